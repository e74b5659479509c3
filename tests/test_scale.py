"""docs/scale.md and the files in deploy/: linters pass, commands are understood, the page's figures are computed."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file

from fasthamer.config import load_config
from fasthamer.tools import cli, distill

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
SCRIPT = (DEPLOY / "slurm.sbatch").read_text(encoding="utf-8")
OBJECTS = {each["kind"]: each for each in yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text(encoding="utf-8"))}
KUBERNETES = "1.30"


def tool(name: str) -> str:
    """The path of a program that a development package installs beside Python's."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    return found or pytest.skip(f"needs {name}: pip install '.[dev]'")


def understood(arguments: list[str]) -> None:
    """Fails unless tools/distill.py takes these arguments."""
    given, overrides = cli.parse(distill._parser(), arguments)
    assert given.resume and load_config(given.config, overrides).KD.MODE == "hybrid"


def test_the_batch_script_is_sound_and_its_command_is_understood():
    bash = shutil.which("bash") or pytest.skip("needs bash")
    subprocess.run([bash, "-n", DEPLOY / "slurm.sbatch"], check=True)
    joined = SCRIPT.replace("\\\n", " ")
    (command,) = re.findall(r"^srun torchrun .*? tools/distill\.py (.*?) \|\|", joined, re.MULTILINE)
    understood(shlex.split(command))
    options = re.findall(r"^#SBATCH --([a-z-]+)", SCRIPT, re.MULTILINE)
    assert {"nodes", "gpus-per-node", "signal", "requeue", "open-mode"} <= set(options)


def test_shellcheck_has_no_complaint():
    ran = subprocess.run([tool("shellcheck"), DEPLOY / "slurm.sbatch"], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout


def test_yamllint_has_no_complaint():
    rules = "{extends: default, rules: {line-length: {max: 120}, document-start: disable}}"
    ran = subprocess.run([tool("yamllint"), "-d", rules, DEPLOY], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout


def test_kubernetes_knows_every_field():
    validator = pytest.importorskip("kubernetes_validate", reason="needs kubernetes-validate: pip install '.[dev]'")
    for each in OBJECTS.values():
        validator.validate(each, KUBERNETES, strict=True)
    with pytest.raises(validator.ValidationError):
        validator.validate({**OBJECTS["Job"], "specs": {}}, KUBERNETES, strict=True)


def test_the_parts_of_the_job_fit_together():
    job, service, claim = (OBJECTS[kind] for kind in ("Job", "Service", "PersistentVolumeClaim"))
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    understood(container["args"])
    name, port = service["metadata"]["name"], service["spec"]["ports"][0]["port"]
    options = dict(each.split("=") for each in container["command"] if "=" in each)
    assert options["--rdzv-endpoint"] == f"{job['metadata']['name']}-0.{name}:{port}" and pod["subdomain"] == name
    assert options["--nnodes"] == str(job["spec"]["completions"]) == str(job["spec"]["parallelism"])
    assert options["--nproc-per-node"] == container["resources"]["limits"]["nvidia.com/gpu"]
    assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": job["metadata"]["name"]}
    volumes = {each["name"]: each for each in pod["volumes"]}
    assert volumes.keys() == {each["name"] for each in container["volumeMounts"]}
    assert volumes["runs"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]


def test_accelerate_reads_the_fsdp_configuration():
    config = load_config_from_file(str(DEPLOY / "fsdp.yaml"))
    assert config.distributed_type == "FSDP" and config.num_processes == 8
    assert config.fsdp_config["fsdp_transformer_layer_cls_to_wrap"] == "Block"


def test_launchers_of_several_nodes_do_not_share_torchruns_store():
    """See `fasthamer.training.accelerator._join_restarted`."""
    (container,) = OBJECTS["Job"]["spec"]["template"]["spec"]["containers"]
    assert {"name": "TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "value": "1"} in container["env"]
    assert "\nexport TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1\n" in SCRIPT


def test_the_figures_of_the_page_are_what_its_block_prints(capsys):
    page = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    block, _ = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)  # the other measures memory
    exec(block, {})
    printed = re.findall(r"\d+\.?\d*", re.sub(r"H100|A100", "", capsys.readouterr().out))
    rows = [line.split("|")[2:4] for line in page.splitlines() if line.count("|") == 5 and "computed" in line]
    shown = [cell.strip() for row in rows for cell in row]
    assert len(shown) == 16 and sorted(shown, key=float) == sorted(printed, key=float)

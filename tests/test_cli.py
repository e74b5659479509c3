"""What the commands share: flags, `KEY VALUE` pairs, one-line errors, and the list of commands."""

from __future__ import annotations

import subprocess
import sys

import pytest

from fasthamer.config import load_config
from fasthamer.tools import cli, zoo
from fasthamer.tools.__main__ import commands, main


def test_every_flag_sets_a_config_key():
    for key, _ in cli.FLAGS.values():
        load_config(None, [key, "7"])


def test_flags_win_over_pairs_and_those_not_given_set_nothing():
    parser = cli.command("tool", "What it does.")
    cli.add_flags(parser, "--steps", "--data", "--teacher-ckpt")
    _, pairs = cli.parse(parser, ["TRAIN.STEPS", "3", "--teacher-ckpt", "hamer.ckpt", "--steps", "5", "SEED", "1"])
    assert pairs == ["TRAIN.STEPS", "3", "SEED", "1", "TEACHER.CHECKPOINT", "hamer.ckpt", "TRAIN.STEPS", "5"]
    assert load_config(None, pairs).TRAIN.STEPS == 5
    assert "--teacher-ckpt TEACHER_CKPT" in parser.format_help()


def test_a_required_flag_is_asked_for(capsys):
    parser = cli.command("tool", "What it does.")
    cli.add_flags(parser, "--data", required=("--data",))
    with pytest.raises(SystemExit) as exit_:
        cli.parse(parser, [])
    assert exit_.value.code == 2 and "--data" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (KeyError("no such student"), "no such student"),
        (ValueError("from a worker:\n  File x\nValueError: damaged"), "ValueError: damaged"),
        (FileNotFoundError(2, "No such file", "a.tar"), "[Errno 2] No such file: 'a.tar'"),
        (ValueError(), "ValueError"),
    ],
)
def test_an_error_is_one_line(error, line, capsys):
    assert cli.one_line(error) == line
    assert cli.failed("tool", error) == 1
    assert capsys.readouterr().err == f"tool: {line}\n"


def test_a_reader_that_has_seen_enough_is_no_error():
    program = "from fasthamer.tools import cli; cli.print_lines(str(number) for number in range(200_000))"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as listing:
        assert listing.stdout.readline() == "0\n"
        listing.stdout.close()
        errors = listing.stderr.read()
    assert (listing.returncode, errors) == (0, "")


def test_the_list_of_commands_has_commands_only():
    names = commands()
    assert {"predict", "distill", "eval", "benchmark", "export", "tokenizer", "data", "zoo"} <= names.keys()
    assert not names.keys() & {"cli", "demo", "assets", "make_hand", "benchmark_fps", "train_tokenizer", "prepare_data"}
    assert names["data"][0] == "prepare_data" and all(summary for _, summary in names.values())


def test_the_help_lists_every_command_and_the_exit_codes(capsys):
    assert main(["--help"]) == main([]) == 0
    printed = capsys.readouterr().out
    assert all(f"\n  {name} " in printed for name in commands()) and "2 a mistake" in printed
    assert main(["benchmrk"]) == 2 and "did you mean 'benchmark'?" in capsys.readouterr().err


def test_every_command_explains_itself_with_an_example_and_the_exit_codes(capsys):
    for name, (file, _) in commands().items():
        with pytest.raises(SystemExit) as stop:
            main([name, "--help"])
        printed = capsys.readouterr().out
        assert stop.value.code == 0 and cli.EXIT_CODES in printed
        assert f"python tools/{file}.py" in printed or f"fasthamer {name} " in printed, name


def test_an_interrupt_is_one_line_and_exit_code_1(monkeypatch, capsys):
    def interrupted(argv):
        raise KeyboardInterrupt

    monkeypatch.setattr(zoo, "main", interrupted)
    assert main(["zoo"]) == 1 and capsys.readouterr().err == "zoo: interrupted\n"


def test_bash_completes_commands_and_options(capsys, tmp_path):
    assert main(["completion", "bash"]) == 0
    (tmp_path / "script").write_text(capsys.readouterr().out)

    def offered(line):
        *before, current = line.split(" ")
        script = f'. ./script; COMP_LINE="{line}"; COMP_CWORD={len(before)}; _fasthamer fasthamer "{current}"'
        shell = ["bash", "-c", script + '; echo "${COMPREPLY[@]}"']
        return subprocess.run(shell, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.split()

    assert offered("fasthamer di") == ["distill"] and offered("fasthamer ") == list(commands())
    assert offered("fasthamer predict image.jpg --si") == ["--side-view"]
    assert offered("fasthamer data c") == ["check"] and "--hold-out" in offered("fasthamer data label --h")
    assert offered("fasthamer completion z") == ["zsh"]


def test_zsh_and_fish_get_the_same_names(capsys):
    assert main(["completion", "zsh"]) == 0
    assert capsys.readouterr().out.startswith("autoload -Uz compinit bashcompinit\n")
    assert main(["completion", "fish"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "complete -c fasthamer -n '__fish_seen_subcommand_from predict' -l side-view" in lines
    for name in commands():
        begin = f"complete -c fasthamer -n __fish_use_subcommand -f -a {name} -d '"
        assert any(line.startswith(begin) for line in lines)
    with pytest.raises(SystemExit):
        main(["completion", "tcsh"])

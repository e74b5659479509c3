"""What the docs name exists: commands' options, config keys, recipes, modules, links."""

import contextlib
import importlib
import io
import re
import shlex
from pathlib import Path

import pytest

from fasthamer.config import defaults, load_config

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
COMMAND = re.compile(r"(?:python|torchrun \S+ \d+) (tools/[a-z]\w*(?:/\w+)*\.py)((?:\\\n|[^\n`|])*)")
BASES = (ROOT, ROOT / "fasthamer")  # what paths in the text are relative to


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def commands() -> list[tuple[str, str, list[str]]]:
    """(page, tool, arguments) of every command that the docs show."""
    found = []
    for page in PAGES:
        for tool, rest in COMMAND.findall(page.read_text(encoding="utf-8")):
            arguments = shlex.split(re.sub(r"[\[\])]", " ", rest.replace("\\\n", " ")), comments=True)
            found.append((name_of(page), tool, arguments))
    return found


@pytest.fixture(scope="module")
def helps():
    """Each tool's help text, subcommands included; those that make the shipped files need packages of their own."""
    texts = {}
    for tool in sorted({tool for _, tool, _ in commands() if not tool.startswith("tools/assets/")}):
        module = importlib.import_module("fasthamer." + tool.removesuffix(".py").replace("/", "."))
        texts[tool] = "".join(help_text(module, arguments) for arguments in (["check"], ["pack"], ["label"], []))
    return texts


def help_text(module, arguments: list[str]) -> str:
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text), pytest.raises(SystemExit):
        module.main([*arguments, "--help"])
    return text.getvalue()


def test_every_option_of_every_command_exists(helps):
    wrong = [
        f"{page}: {tool} has no {option}"
        for page, tool, arguments in commands()
        for option in arguments
        if option.startswith("--") and tool in helps and not re.search(rf"{option}\b(?!-)", helps[tool])
    ]
    assert not wrong, "\n".join(wrong)


def test_every_config_key_exists():
    known = {f"{section}.{key}" for section, node in defaults().items() if hasattr(node, "keys") for key in node}
    sections = "|".join(sorted({key.split(".")[0] for key in known}))
    wrong = [
        f"{name_of(page)}: {key}"
        for page in PAGES
        for key in re.findall(rf"\b(?:{sections})\.[A-Z0-9_]+\b", page.read_text(encoding="utf-8"))
        if key not in known and key.split(".")[1] not in ("BONES",)  # CONTRIBUTING.md's example
    ]
    assert not wrong, "\n".join(wrong)


def test_every_recipe_exists():
    for _, _, arguments in commands():
        if "--config" in arguments:
            load_config(arguments[arguments.index("--config") + 1])


def test_every_link_and_every_path_of_a_file_exists():
    wrong = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
        wrong += [f"{name_of(page)}: {link}" for link in links if link and not (page.parent / link).exists()]
        paths = re.findall(r"`((?:[\w.]+/)+[\w]+\.(?:py|yaml))`", text) + [tool for tool, _ in COMMAND.findall(text)]
        wrong += [f"{name_of(page)}: {path}" for path in paths if not any((base / path).exists() for base in BASES)]
    wrong = [each for each in wrong if not each.endswith(": tools/X.py")]  # stands for any tool
    assert not wrong, "\n".join(wrong)


def test_every_module_and_every_name_in_it_exists():
    wrong = []
    for page in PAGES:
        for dotted in set(re.findall(r"\bfasthamer(?:\.[a-z_]\w*)+", page.read_text(encoding="utf-8"))):
            parts = dotted.split(".")
            for length in range(len(parts), 1, -1):
                try:
                    value = importlib.import_module(".".join(parts[:length]))
                    break
                except ModuleNotFoundError:
                    continue
            else:
                value = importlib.import_module("fasthamer")
                length = 1
            for name in parts[length:]:
                if not hasattr(value, name):
                    wrong.append(f"{name_of(page)}: {dotted}")
                    break
                value = getattr(value, name)
    assert not wrong, "\n".join(wrong)


def test_every_import_in_a_code_block_works():
    for page in PAGES:
        for block in re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE):
            for line in re.findall(r"^from fasthamer\S* import [^(\n]+$", block, re.MULTILINE):
                exec(line, {})


def test_the_site_shows_every_page_once():
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    shown = re.findall(r"^ +- [^:\n]+: (\S+\.md)$", text, re.MULTILINE)
    pages = [page.relative_to(ROOT / "docs").as_posix() for page in sorted((ROOT / "docs").rglob("*.md"))]
    assert sorted(shown) == sorted(pages)

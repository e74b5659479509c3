"""The `fasthamer` command: `fasthamer distill ...` is `python tools/distill.py ...`, and so on."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from fasthamer.registry import unknown
from fasthamer.tools import cli

# Commands whose name is not that of their file, and those that are listed first.
FILES = {"benchmark": "benchmark_fps", "tokenizer": "train_tokenizer", "data": "prepare_data"}
FIRST = ("predict", "doctor", "zoo", "quickstart", "distill", "eval", "export", *FILES)


def commands() -> dict[str, tuple[str, str]]:
    """Each command's module in `fasthamer.tools` and the first line of its docstring."""
    names = {file: name for name, file in FILES.items()}
    found = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        text = path.read_text(encoding="utf-8")
        if not path.stem.startswith("_") and "\ndef main(" in text:  # cli.py has none
            found[names.get(path.stem, path.stem)] = path.stem, text.split('"""')[1].strip().splitlines()[0]
    return {name: found[name] for name in (*FIRST, *sorted(found.keys() - set(FIRST)))}


def main(argv: list[str] | None = None) -> int:
    """Runs the command named by the first argument with the rest."""
    arguments = sys.argv[1:] if argv is None else argv
    known = commands()
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: fasthamer COMMAND ...   (fasthamer COMMAND --help explains one)\n")
        print("\n".join(f"  {name:20s} {summary}" for name, (_, summary) in known.items()))
        print(f"\n{cli.EXIT_CODES}")
        return 0
    name, *rest = arguments
    if name not in known:
        print(f"fasthamer: {unknown('command', name, known)}", file=sys.stderr)
        return 2
    try:
        return importlib.import_module(f"fasthamer.tools.{known[name][0]}").main(rest) or 0
    except KeyboardInterrupt:
        return cli.failed(name, "interrupted")


if __name__ == "__main__":
    sys.exit(main())

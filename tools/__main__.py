"""The `fasthamer` command: `fasthamer distill ...` is `python tools/distill.py ...`."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from fasthamer.registry import unknown


def commands() -> dict[str, str]:
    """Each tool's name and the first line of its docstring."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        text = path.read_text(encoding="utf-8")
        if not path.stem.startswith("_") and "\ndef main(" in text:  # cli.py has none
            found[path.stem] = text.split('"""')[1].strip().splitlines()[0] if '"""' in text else ""
    return found


def main(argv: list[str] | None = None) -> int:
    """Runs the tool named by the first argument with the rest."""
    arguments = sys.argv[1:] if argv is None else argv
    known = commands()
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: fasthamer COMMAND ...   (fasthamer COMMAND --help explains one)\n")
        print("\n".join(f"  {name:16s} {summary}" for name, summary in known.items()))
        return 0
    name, *rest = arguments
    if name not in known:
        print(f"fasthamer: {unknown('command', name, known)}", file=sys.stderr)
        return 2
    return importlib.import_module(f"fasthamer.tools.{name}").main(rest) or 0


if __name__ == "__main__":
    sys.exit(main())

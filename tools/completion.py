"""Print a script that completes `fasthamer` in a shell: its commands, their options, files.

fasthamer completion bash > ~/.local/share/bash-completion/completions/fasthamer
fasthamer completion zsh >> ~/.zshrc
fasthamer completion fish > ~/.config/fish/completions/fasthamer.fish
"""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import sys

from fasthamer.tools import cli
from fasthamer.tools.__main__ import commands

BASH = """\
_fasthamer() {
    local rest=${COMP_LINE#* } offered=""
    if [ "$COMP_CWORD" -eq 1 ]; then
        offered="NAMES"
    else
        case "${rest%% *}" in
CASES
        esac
    fi
    COMPREPLY=($(compgen -W "$offered" -- "$2"))
}
complete -o default -F _fasthamer fasthamer
"""
ZSH = "autoload -Uz compinit bashcompinit\ncompinit\nbashcompinit\n"


def main(argv: list[str] | None = None) -> int:
    """0 done, 2 the user's mistake."""
    parser = cli.command("completion", __doc__)
    parser.add_argument("shell", choices=("bash", "zsh", "fish"))
    arguments = parser.parse_args(argv)
    known = {
        name: ["bash", "zsh", "fish"] if name == "completion" else options(file)
        for name, (file, _) in commands().items()
    }
    if arguments.shell == "fish":
        print(_fish(known), end="")
        return 0
    cases = "\n".join(f'            {name}) offered="{" ".join(each)}" ;;' for name, each in known.items())
    script = BASH.replace("NAMES", " ".join(known)).replace("CASES", cases)
    print((ZSH if arguments.shell == "zsh" else "") + script, end="")
    return 0


def options(file: str) -> list[str]:
    """The options of a command, and its own commands with theirs, as its help has them."""
    text = _help(file)
    found = re.search(r"\{([a-z,]+)\} \.\.\.", text)
    inner = found[1].split(",") if found else []
    text += "".join(_help(file, name) for name in inner)
    return [*inner, *sorted(set(re.findall(r"^  (?:-\w, )?(--[a-z][a-z-]*)", text, re.MULTILINE)))]


def _help(file: str, *arguments: str) -> str:
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        importlib.import_module(f"fasthamer.tools.{file}").main([*arguments, "--help"])
    return text.getvalue()


def _fish(known: dict[str, list[str]]) -> str:
    lines = []
    for name, (_, summary) in commands().items():
        quoted = summary.replace("'", "\\'")
        lines.append(f"complete -c fasthamer -n __fish_use_subcommand -f -a {name} -d '{quoted}'")
        seen = f"-n '__fish_seen_subcommand_from {name}'"
        for option in known[name]:
            kind = f"-l {option[2:]}" if option.startswith("--") else f"-a {option}"
            lines.append(f"complete -c fasthamer {seen} {kind}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())

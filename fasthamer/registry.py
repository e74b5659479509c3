"""Names to builders, with a hint when a name is mistyped."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from typing import Any


class Registry:
    """Maps a name to a builder; nothing is built, imported or downloaded until a name is asked for."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._builders: dict[str, Callable[..., Any]] = {}

    def register(self, builder: Callable[..., Any]) -> Callable[..., Any]:
        """Decorator: files `builder` under its own name."""
        self._builders[builder.__name__] = builder
        return builder

    def build(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Calls the builder filed under `name`.

        Raises:
            KeyError: no such name; the message offers the nearest one.
        """
        return self[name](*args, **kwargs)

    def __getitem__(self, name: str) -> Callable[..., Any]:
        if name not in self._builders:
            raise KeyError(unknown(self.kind, name, self._builders))
        return self._builders[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._builders)

    def __contains__(self, name: str) -> bool:
        return name in self._builders


def unknown(kind: str, name: str, known: object) -> str:
    """One line for a name that does not exist: what came, the nearest that does, and all there are."""
    names = sorted(known)  # type: ignore[call-overload]
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"no {kind} named {name!r}{hint} (there are: {', '.join(names)})"

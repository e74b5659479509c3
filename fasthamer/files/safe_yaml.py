"""Reads untrusted YAML without executing any of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from fasthamer.one_line import one_line
from fasthamer.plain_yaml import plain_data

_Safe: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's loader is ten times as fast


class _Loader(_Safe):
    """The safe loader plus Python's tuples, which DexYCB's extrinsics contain."""

    def tuple(self, node: Any) -> tuple:
        return tuple(self.construct_sequence(node))


_Loader.add_constructor("tag:yaml.org,2002:python/tuple", _Loader.tuple)


def read_yaml(path: Path) -> dict:
    """The mapping in a file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: damaged, not a mapping, or with a tag beyond plain data; the message names it.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing")
    try:
        with open(path, "rb") as file:
            content = plain_data(_Loader(file))
    except yaml.constructor.ConstructorError as error:
        raise ValueError(
            f"{path}: refused, since {one_line(error.problem)}; only plain data is read from YAML"
        ) from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: text that is not UTF-8
        raise ValueError(f"{path}: damaged YAML ({one_line(error)})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a mapping, this is a {type(content).__name__}")
    return content

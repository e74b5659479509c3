"""The values of settings: YAML scalars stay text until the type of a key's default says what they are."""

from __future__ import annotations

import yaml

from fasthamer.one_line import one_line
from fasthamer.plain_yaml import plain_data

MIX_TEXT = ("data", "root", "split")  # of an entry of DATA.MIX: these stay text, weight and shards are numbers


def untyped(text: str) -> object:
    """Mappings and lists in which every scalar stays the text as written, such as 007, yes or 2024-11-26."""
    return plain_data(_UntypedLoader(text))


def as_type_of(default: object, value: object, key: str, source: str) -> object:
    """`value`, text where it was typed or comes from a recipe, as the type of the key's default.

    Raises:
        ValueError: it is of another type.
    """
    if isinstance(default, list):
        value = _decode_list(key, value)
    elif isinstance(value, str) and not isinstance(default, str):
        value = _decode(value)
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) < 1e300 else str(value)  # a float cannot hold every integer
    if isinstance(default, int) and not isinstance(default, bool) and isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(default, str) and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if type(value) is not type(default):
        raise ValueError(
            f"{source}: {key} takes a {type(default).__name__} such as {default!r}, not {one_line(repr(value))} "
            f"({type(value).__name__})"
        )
    return value


class _UntypedLoader(yaml.SafeLoader):
    """Every scalar without a tag stays the text of the file: `as_type_of` types it, by the key's default."""

    yaml_implicit_resolvers = {"<": yaml.SafeLoader.yaml_implicit_resolvers["<"]}  # noqa: RUF012 (merge keys)


def _decode(text: str) -> object:
    """The number, truth value or text that YAML reads, except that 1e-5 is a number too."""
    try:
        value = plain_data(yaml.SafeLoader(text))
        return float(value) if isinstance(value, str) and "e" in value.lower() else value
    except (ValueError, yaml.YAMLError):
        return text


def _decode_list(key: str, value: object) -> object:
    """A list whose items are numbers, or the entries of a mix, in which names stay text."""
    try:
        items = untyped(value) if isinstance(value, str) else value
    except yaml.YAMLError:
        return value
    if not isinstance(items, list):
        return _decode(value) if isinstance(value, str) else value
    if key == "DATA.MIX":
        return [_decode_entry(item) if isinstance(item, dict) else item for item in items]
    return [_decode(item) if isinstance(item, str) else item for item in items]


def _decode_entry(entry: dict) -> dict:
    return {k: _decode(v) if isinstance(v, str) and k not in MIX_TEXT else v for k, v in entry.items()}

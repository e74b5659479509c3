"""YAML as plain data of bounded size: an alias costs as much as what it stands for."""

from __future__ import annotations

from typing import Any

import yaml

LARGEST = 1_000_000  # values of a document, each alias counted as all that it stands for
DEEPEST = 100  # nested mappings and lists


def plain_data(loader: Any) -> Any:
    """The document of a loader of PyYAML, which is disposed of.

    A few lines of aliases to aliases can stand for more values than fit into any memory, and PyYAML builds them.

    Raises:
        yaml.YAMLError: no YAML, a tag that the loader does not know or whose value is none, too many values, or too
            deeply nested.
    """
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _measure(node, {}, 0)
        return loader.construct_document(node)
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError) as error:
        raise yaml.YAMLError(f"a value that is none of its tag ({error})") from None
    except RecursionError:
        raise yaml.YAMLError("nested too deeply") from None
    finally:
        loader.dispose()


def _measure(node: yaml.Node, known: dict[int, tuple[int, int] | None], depth: int) -> tuple[int, int]:
    """Number of values and depth of a node with all aliases replaced."""
    if isinstance(node, yaml.ScalarNode):
        return 1, 0
    if id(node) in known:
        found = known[id(node)]
        if found is None:
            raise yaml.YAMLError("an alias stands for a part that it is in itself")
        return found
    known[id(node)] = None
    size, height = 1, 0
    parts = node.value if isinstance(node, yaml.SequenceNode) else [each for pair in node.value for each in pair]
    for part in parts:
        its_size, its_height = _measure(part, known, depth + 1)
        size, height = size + its_size, max(height, its_height)
    if size > LARGEST or depth + height >= DEEPEST:
        raise yaml.YAMLError(f"more than {LARGEST} values, or nested more than {DEEPEST} deep, aliases counted")
    known[id(node)] = size, height + 1
    return size, height + 1

"""The files of settings: recipes, those they are based on, and lists of datasets to mix."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import yaml

from fasthamer.one_line import one_line
from fasthamer.setting_values import untyped

PACKAGE = Path(__file__).resolve().parent
RENAMED_RECIPES = {"photographs": "real_images"}  # older names of shipped recipes, still found


def with_bases(path: Path, above: tuple[Path, ...] = ()) -> list[tuple[Path, dict]]:
    """The settings of a recipe, with their file, after those of the recipe that it names as its BASE, and so on.

    Args:
        path: from `find_recipe`.
        above: the recipes that are based on this one.

    Raises:
        FileNotFoundError, ValueError: no such BASE, or a recipe that is based on itself; no plain YAML.
    """
    if path in above:
        raise ValueError(f"{path} is based on itself (BASE)")
    settings = _read(path)
    base = settings.pop("BASE", None)
    if base is None:
        return [(path, settings)]
    try:
        found = find_recipe(str(base))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: BASE: {error}") from None
    return [*with_bases(found, (*above, path)), (path, settings)]


def settings_of(recipe: str | Path) -> list:
    """What a recipe and its BASE set, as `KEY VALUE ...`; errors as for `load_config`."""
    settings = [flatten(tree) for _, tree in with_bases(find_recipe(recipe))]
    return [each for pairs in settings for pair in pairs for each in pair]


def named_mix(name: str) -> dict[str, object]:
    """What DATA.NAME stands for if it is a mix's file, or a shipped one's name: settings that hold the mix itself.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it sets more than a mix does.
    """
    path = shipped_recipes() / "data" / f"{name}.yaml"
    if not path.is_file():
        if not name.endswith((".yaml", ".yml")):
            return {}
        path = Path(name)
        if not path.is_file():
            raise FileNotFoundError(f"no mix {name}: --data takes a dataset's name, or a file that lists DATA.MIX")
    settings = dict(flatten(_read(path)))
    if strays := settings.keys() - {"DATA.NAME", "DATA.MIX"}:
        raise ValueError(f"{path}: a mix sets DATA.NAME and DATA.MIX; {min(strays)} belongs in a recipe (--config)")
    if not isinstance(settings.get("DATA.MIX"), list):
        raise ValueError(f"{path}: expected a list DATA.MIX of data, root and weight, see configs/data/hamer_mix.yaml")
    return settings | {"DATA.NAME": "mix"}


def flatten(tree: dict, prefix: str = "") -> Iterator[tuple[str, object]]:
    """A tree of sections as pairs of a dotted key and its value."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def shipped_recipes(package: Path = PACKAGE) -> Path:
    """The folder of the recipes that come with a package: inside it if it is installed, beside it in a checkout."""
    installed = package / "configs"  # a folder beside an installed package is somebody else's
    return installed if installed.is_dir() else package.parent / "configs"


def _read(path: Path) -> dict:
    try:
        loaded = untyped(path.read_text(encoding="utf-8-sig")) or {}
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error}): save it as UTF-8") from None
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not plain YAML: {one_line(error)}") from None
    if not isinstance(loaded, dict):
        raise ValueError(f"{path}: a recipe is a mapping of sections, this is a {type(loaded).__name__}")
    return loaded


def find_recipe(recipe: str | Path) -> Path:
    """The file of a recipe.

    Args:
        recipe: a file, or the name of a shipped one.

    Raises:
        FileNotFoundError: there is none.
    """
    shipped = shipped_recipes()
    for path in (Path(recipe), shipped / f"{RENAMED_RECIPES.get(str(recipe), recipe)}.yaml"):
        if os.path.isfile(path):  # unlike Path.is_file, false for a name that is too long
            return path
    names = sorted(str(p.relative_to(shipped).with_suffix("")) for p in shipped.rglob("*.yaml"))
    raise FileNotFoundError(
        f"no recipe {one_line(repr(str(recipe)))}: neither a file nor one of the shipped ({', '.join(names)})"
    )

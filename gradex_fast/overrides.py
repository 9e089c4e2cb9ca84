"""Changes to a recipe before it is validated: ``section.key=value``, and whole recipes laid over it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePath
from typing import Any

import yaml

from gradex_fast.data_sections import FILE_ENDING
from gradex_fast.errors import GradexError

_HUB = ("config", "revision", "split", "files")

Tree = dict[str, Any]


def apply(tree: Tree, overrides: Iterable[str]) -> None:
    """Set each ``section.key=value`` of `overrides`, the value YAML, in `tree`.

    A section that is a list has its items by number, or by name (sources: `name`, or the path's stem). Paths are set
    first: one to a file takes away the keys that are of hub data sets, which another override may give again.

    Raises:
        GradexError: it does not read section.key=value, or leads nowhere.
    """
    for text in sorted(overrides, key=lambda text: not text.partition("=")[0].endswith(".path")):
        _override(tree, text)


def lay_over(tree: Tree, other: Tree) -> None:
    """Put everything of `other` into `tree`, section by section."""
    for key, value in other.items():
        if isinstance(value, dict) and isinstance(tree.get(key), dict):
            lay_over(tree[key], value)
        else:
            tree[key] = value


def _override(tree: Tree, text: str) -> None:
    key, equals, value = text.partition("=")
    if not equals:
        raise GradexError(f"override {text!r} must read section.key=value")
    *sections, last = key.split(".")
    place: Any = tree
    for section in sections:
        place = _item(place, section, text) if isinstance(place, list) else place.setdefault(section, {})
        if not isinstance(place, dict | list):
            raise GradexError(f"override {text!r}: {section} is not a section")
    if isinstance(place, list):
        raise GradexError(f"override {text!r}: {sections[-1]} is a list; name the item and the key in it")
    try:
        place[last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise GradexError(f"override {text!r}: the value is not YAML: {' '.join(str(error).split())}") from error
    if last == "path" and FILE_ENDING.search(str(place[last])):
        for name in _HUB:
            place.pop(name, None)


def _item(items: list[Any], which: str, text: str) -> Any:
    for number, item in enumerate(items):
        if which in (str(number), _name(item)):
            return item
    names = ", ".join(str(_name(item) or number) for number, item in enumerate(items))
    raise GradexError(f"override {text!r}: there is no {which!r}; there are {names}")


def _name(item: Any) -> str | None:
    if not isinstance(item, dict):
        return None
    return item.get("name") or FILE_ENDING.sub("", PurePath(str(item.get("path", ""))).name)

"""Recipes that come with the package, by name: the paper's data."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import Any, NamedTuple

from gradex_fast.errors import GradexError

_ENDING = ".yaml"


class Packaged(NamedTuple):
    """`about` is the first line of its comments; `licence` the line that opens with that word."""

    name: str
    about: str
    licence: str


def names() -> list[str]:
    folder = files("gradex_fast") / "recipes"
    return sorted(path.name.removesuffix(_ENDING) for path in folder.iterdir() if path.name.endswith(_ENDING))


def text(name: str) -> str:
    """The YAML of recipe `name`, comments and all. Raises `GradexError` if there is none."""
    if name not in names():
        raise GradexError(f"there is no packaged recipe {name!r}; there are {', '.join(names())}")
    return (files("gradex_fast") / "recipes" / (name + _ENDING)).read_text(encoding="utf-8")


def listed() -> list[Packaged]:
    found = []
    for name in names():
        comments = [line.removeprefix("#").strip() for line in text(name).splitlines() if line.startswith("#")]
        licence = next(line for line in comments if line.startswith("Licence: "))
        found.append(Packaged(name, comments[0], licence.removeprefix("Licence: ")))
    return found


def show(recipes: Sequence[dict[str, str]], console: Any) -> None:
    for recipe in recipes:
        lines = f"{recipe['name']}\n  {recipe['about']}\n  Licence: {recipe['licence']}"
        console.print(lines, markup=False, highlight=False, soft_wrap=True)

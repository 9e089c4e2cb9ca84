"""What pydantic refuses in a recipe, as one line that names the key and what to do."""

from __future__ import annotations

import difflib
from typing import Any

from gradex_fast.data_sections import SOURCE_TAGS
from gradex_fast.sections import Section

_MISSING = {
    "model": "model.name, the pretrained model (a hub id or a folder)",
    "model.name": "model.name, the pretrained model (a hub id or a folder)",
    "data.sources": "data.sources, what is chosen from",
    "data.target": "data.target.validation.path, the rows on which f(S) is the loss",
    "data.target.validation": "data.target.validation.path, the rows on which f(S) is the loss",
}
"""What no recipe can do without, and a packaged one may leave to its user."""


def explain(error: Any) -> str:
    """One of pydantic's errors."""
    location = list(error["loc"])
    if location[:2] == ["data", "sources"] and location[2:3] and location[2] in SOURCE_TAGS:
        del location[2]  # pydantic names the branch of the union, which no recipe has
    place = ".".join(map(str, location)) or "recipe"
    if error["type"] == "missing" and place in _MISSING:
        key = _MISSING[place].partition(",")[0]
        return f"recipe: {_MISSING[place]}, is missing: add {key}=... or lay over a recipe that has it"
    if error["type"] != "extra_forbidden":
        return f"recipe: {place}: {error['msg']}"
    near = difflib.get_close_matches(str(error["loc"][-1]), _all_keys(), n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"recipe: unknown key {place!r}{hint}"


def _all_keys() -> list[str]:
    return sorted({key for section in _sections(Section) for key in section.model_fields})


def _sections(base: type[Section]) -> list[type[Section]]:
    return [base, *(leaf for child in base.__subclasses__() for leaf in _sections(child))]

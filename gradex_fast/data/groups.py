"""Rows told apart by a column, those that it tells nothing of, and whether there are as many as expected."""

from __future__ import annotations

import re
from collections.abc import Sequence

from gradex_fast.data.files import Row
from gradex_fast.data_sections import FileRecipe, GroupedRecipe
from gradex_fast.errors import GradexError

UNASSIGNED = "unassigned"
"""The source of rows that name none, where the recipe wants one."""


def grouped(file: GroupedRecipe, rows: Sequence[Row]) -> tuple[dict[str, list[Row]], int]:
    """Rows by what column `file.by` names, in order of first appearance, and how many rows are left out.

    Raises:
        GradexError: no row has the column, one (named) has a value that is no name, or the counts are not as expected.
    """
    groups: dict[str, list[Row]] = {}
    loose: list[Row] = []
    for row in rows:
        if name := _name(file, row):
            groups.setdefault(name, []).append(row)
        else:
            loose.append(row)
    if not groups:
        found = ", ".join(map(str, rows[0].values)) or "none"
        raise GradexError(f"{file.path}: no row has a source in column {file.by!r} (columns: {found})")
    check_count(file, "rows", len(rows), "data.sources")
    check_count(file, "groups", len(groups), "data.sources")
    return _with_loose(file, groups, loose)


def _name(file: GroupedRecipe, row: Row) -> str | None:
    value = row.values.get(file.by)
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise GradexError(f"{row.place}: column {file.by!r} must name the row's source")
    if file.patterns is None:
        return str(value)
    for pattern in file.patterns:
        if found := re.search(pattern.find, str(value)):
            return pattern.source or (found[1] or "").lower()
    return None


def check_count(file: FileRecipe, what: str, found: int, key: str) -> None:
    """Raises GradexError if `file` expects another number of `what`; `key` is the file's in the recipe."""
    expected = getattr(file.expect, what, None)
    if expected is None or file.limit is not None or expected == found:
        return
    raise GradexError(
        f"{file.path}: {found:,} {what}, where the recipe expects {expected:,}; "
        f"if these are the ones that you want, set {key}.expect=null"
    )


def _with_loose(
    file: GroupedRecipe, groups: dict[str, list[Row]], loose: list[Row]
) -> tuple[dict[str, list[Row]], int]:
    if not loose or file.unassigned == "drop":
        return groups, len(loose)
    if file.unassigned == "error":
        raise GradexError(
            f"{loose[0].place}: column {file.by!r} must name the row's source, and does not in {len(loose):,} of the "
            "rows; set data.sources.unassigned to drop or source"
        )
    if UNASSIGNED in groups:
        raise GradexError(f"{file.path}: a source is called {UNASSIGNED!r} already; set data.sources.unassigned=drop")
    return {**groups, UNASSIGNED: loose}, 0

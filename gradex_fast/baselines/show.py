"""The rivals' table on a console and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from gradex_fast.baselines.table import Row

_UNKNOWN = "\N{EN DASH}"


def values(rows: Sequence[Row], finals: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """JSON values of every rival: choice, scores, cost, and the final model's figures where it was trained."""
    return [{**row.values(), **({"final": dict(finals[row.name])} if row.name in finals else {})} for row in rows]


def printed(found: Sequence[Mapping[str, Any]]) -> Table:
    """`values` as a table; passes and seconds with those of the stages that a rival builds on."""
    table, measured = Table(), any("final" in row for row in found)
    columns = ["rival", "sources", "forward rows", "backward rows", "seconds"]
    for column in columns + ["validation loss", "exact match"] * measured:
        table.add_column(column, justify="left" if column == "rival" else "right")
    for row in found:
        whole, final = row["whole"], row.get("final", {})
        cells = [row["name"], f"{len(row['chosen'])}", f"{whole['forward_rows']:,}", f"{whole['backward_rows']:,}"]
        cells.append(_number(whole["seconds"], "{:.1f}"))
        if measured:
            cells += [
                _number(final.get("validation_loss"), "{:.4f}"),
                _number(final.get("validation_exact_match"), "{:.1%}"),
            ]
        table.add_row(*map(Text, cells))
    return table


def _number(value: float | None, form: str) -> str:
    return form.format(value) if value is not None and np.isfinite(value) else _UNKNOWN

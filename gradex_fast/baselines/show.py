"""The rivals' table on a console and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from gradex_fast.baselines.table import Row
from gradex_fast.units import count_text, duration, ratio_text

_UNKNOWN = "\N{EN DASH}"


def values(rows: Sequence[Row], finals: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """JSON values of every rival: choice, scores, cost, and the final model's figures where it was trained."""
    return [{**row.values(), **({"final": dict(finals[row.name])} if row.name in finals else {})} for row in rows]


def printed(found: Sequence[Mapping[str, Any]]) -> Table:
    """`values` as a table; passes, FLOPs and time with those of the stages that a rival builds on."""
    table, measured = Table(), any("final" in row for row in found)
    columns = ["rival", "sources", "rows forward", "rows backward", "FLOPs", "x GRADEX", "time", "x GRADEX"]
    for column in columns + ["validation loss", "exact match"] * measured:
        table.add_column(column, justify="left" if column == "rival" else "right", overflow="fold")
    for row in found:
        table.add_row(*map(Text, [*_cost_cells(row), *(_final_cells(row.get("final", {})) if measured else [])]))
    return table


def _cost_cells(row: Mapping[str, Any]) -> list[str]:
    whole, times = row["whole"], row["times_gradex"]
    return [
        row["name"],
        f"{len(row['chosen'])}",
        f"{whole['forward_rows']:,}",
        f"{whole['backward_rows']:,}",
        count_text(whole["flops"]),
        ratio_text(times["flops"]),
        duration(whole["seconds"], 1),
        ratio_text(times["seconds"]),
    ]


def _final_cells(final: Mapping[str, Any]) -> list[str]:
    return [_number(final.get("validation_loss"), "{:.4f}"), _number(final.get("validation_exact_match"), "{:.1%}")]


def _number(value: float | None, form: str) -> str:
    return form.format(value) if value is not None and np.isfinite(value) else _UNKNOWN

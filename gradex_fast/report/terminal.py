"""The table of sources on a terminal."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from gradex_fast.report.text import interval, printable
from gradex_fast.report.view import Summary, view_of


def terminal_table(summary: Summary) -> Table:
    """Sources by score, for a console; no name is read as markup or as an escape code."""
    table, view = Table(), view_of(summary)
    table.add_column("source", overflow="fold")
    table.add_column("score ± 95 %", justify="right", no_wrap=True)
    table.add_column("chosen", justify="center")
    if view["has_truth"]:
        table.add_column("truth", overflow="fold")
    for source in view["ranked"]:
        cells = [source["name"], interval(source, view["places"]), "✓" if source["chosen"] else ""]
        cells += [source.get("truth") or ""] if view["has_truth"] else []
        style = "" if source["chosen"] else "dim"
        table.add_row(*(Text(printable(cell), style=style) for cell in cells))
    return table

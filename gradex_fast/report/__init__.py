"""One run -> metrics.json, report.md, self-contained report.html, scores.csv, the terminal's table.

A summary is a plain mapping of JSON values. Its ``sources`` are required (of each its name, rows and chosen);
every other part may be empty, None or absent.
"""

from gradex_fast.report.files import markdown_templates, scores_csv, write_report
from gradex_fast.report.kept import keep_summary, kept_summary
from gradex_fast.report.terminal import terminal_table
from gradex_fast.report.view import Summary, score_meaning

__all__ = [
    "Summary",
    "keep_summary",
    "kept_summary",
    "markdown_templates",
    "score_meaning",
    "scores_csv",
    "terminal_table",
    "write_report",
]

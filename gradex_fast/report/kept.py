"""report.json: all that a report says, kept in the run's directory; from it a report is written again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gradex_fast.errors import GradexError
from gradex_fast.files import file_checksum, read_json, write_json
from gradex_fast.report.files import without_nan
from gradex_fast.report.view import Summary

FORMAT = 1


def keep_summary(folder: Path, summary: Summary) -> None:
    """Write report.json, of the selection that lies there now.

    Raises:
        GradexError: the file cannot be written.
    """
    stamp = file_checksum(folder / "selection.json")
    write_json(folder / "report.json", {"format": FORMAT, "selection": stamp, "summary": without_nan(summary)})


def kept_summary(folder: Path) -> dict[str, Any]:
    """The summary of the run in `folder`.

    Raises:
        GradexError: there is no run, it has not selected yet, or its report.json is of another selection or another
            version of gradex_fast.
    """
    again = f"finished stages are kept: gradex-fast run {folder / 'config.yaml'}"
    if not (folder / "manifest.json").is_file():
        raise GradexError(f"{folder} is no run: there is no manifest.json; name the folder of a run")
    if not (folder / "selection.json").is_file():
        raise GradexError(f"{folder} has chosen nothing yet; {again}")
    found = read_json(folder / "report.json")
    if not isinstance(found, dict) or "summary" not in found:
        raise GradexError(f"{folder} has no report.json, an older gradex_fast made it; {again}")
    if found.get("format") != FORMAT:
        raise GradexError(f"{folder / 'report.json'} has format {found.get('format')!r}, not {FORMAT}; {again}")
    if found["selection"] != file_checksum(folder / "selection.json"):
        raise GradexError(f"{folder / 'report.json'} is of another selection than selection.json; {again}")
    return found["summary"]

"""What the scripts over several seeds share: their options, one temporary run directory a seed, a line of JSON each."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gradex_fast.cli import calm_libraries


def options(description: str, seeds: Sequence[int]) -> argparse.ArgumentParser:
    """``--seeds`` and ``--out``."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(seeds))
    parser.add_argument("--out", type=Path, help="JSON file to write")
    return parser


def measure_each(seeds: Sequence[int], measure: Callable[[int, Path], dict[str, Any]]) -> list[dict[str, Any]]:
    """`measure(seed, empty folder)` for every seed, printed as it comes."""
    calm_libraries()
    rows = []
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(measure(seed, Path(folder) / "run"))
        print(json.dumps(rows[-1]), flush=True)
    return rows


def write(path: Path | None, value: Any) -> None:
    if path:
        path.write_text(json.dumps(value, indent=2) + "\n")

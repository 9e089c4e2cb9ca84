"""One set of figures of `gpu_check.py`, in a process of its own.

    python benchmarks/gpu_measures.py llama --out llama.json
    python benchmarks/gpu_measures.py llama --device cpu --quick --out llama.json     # tiny; its figures mean nothing

The file is written again after every row: what ends the process leaves the rows before.
"""

from __future__ import annotations

import argparse
import importlib
import json
import traceback
from pathlib import Path

import solve_report

MEASURES = {
    "rates": "gpu_kernels",
    "shapes": "gpu_kernels",
    "layer": "gpu_kernels",
    "errors": "gpu_kernels",
    "devices": "gpu_passes",
    "gpt2": "gpu_passes",
    "llama": "gpu_passes",
    "alpaca": "gpu_rivals",
    "hooks": "gpu_rivals",
}
"""The module of every measure: a function from the options to rows, imported when it is asked for."""


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=MEASURES)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="tiny models and shapes, one turn")
    parser.add_argument("--repeats", type=int, default=5, help="turns of every pass")
    parser.add_argument("--turns", type=int, default=7, help="of every kernel, some 20 ms each")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    options = parser.parse_args()
    if options.quick:
        options.repeats = options.turns = 1
    return options


def main() -> int:
    options, rows = parse(), []

    def write(error: str | None) -> None:
        options.out.write_text(json.dumps({"rows": rows, "error": error}, indent=2) + "\n")

    write("it wrote no row")
    try:
        measure = getattr(importlib.import_module(MEASURES[options.name]), options.name)
        for row in measure(options):
            rows.append(row if not options.quick or row["check"] else row | {"reached": None})
            solve_report.print_row({name: row[name] for name in ("measured", "must reach", "reached", "what")})
            write("it did not come to its end")
    except Exception as error:
        traceback.print_exc()
        write(f"{type(error).__name__}: {error}".splitlines()[0])
        return 1
    write(None)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

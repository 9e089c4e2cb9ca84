"""`gradex-fast diagnose` on the demo: every part, mean over seeds; what README and the choice of the estimator cite.

    python benchmarks/bench_diagnose.py --seeds 0 1 --subsets 24 --out benchmarks/results/diagnose.json

Writes JSON and, beside it, the same as Markdown tables.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import seeds
import torch

from gradex_fast import demo
from gradex_fast.diagnose import PARTS, diagnose, output
from gradex_fast.progress import Reporter

Rows = list[dict[str, Any]]


def measure(seed: int, folder: Path, subsets: int) -> dict[str, Any]:
    recipe = demo.make_demo(folder, seed).recipe
    asked = recipe.diagnose.model_copy(update={"subsets": subsets})
    found = diagnose(recipe.model_copy(update={"diagnose": asked}), list(PARTS), reporter=Reporter(quiet=True))
    return {"seed": seed, "parts": output.values(found.parts)}


def mean(rows: Rows) -> dict[str, Any]:
    """Of the same line of several seeds' tables: figures are averaged, names are those of the first."""

    def one(values: list[Any]) -> Any:
        known = [value for value in values if value is not None]
        return float(np.mean(known)) if known and all(isinstance(value, float) for value in known) else values[0]

    return {key: one([row[key] for row in rows]) for key in rows[0]}


def means(found: list[dict[str, Any]]) -> dict[str, Rows]:
    summaries = {name: [each["parts"][name]["summary"] for each in found] for name in found[0]["parts"]}
    return {name: [mean(list(rows)) for rows in zip(*tables, strict=True)] for name, tables in summaries.items()}


def markdown(parts: dict[str, Rows]) -> str:
    lines = []
    for name, rows in parts.items():
        lines += [f"\n{output.TITLES[name]}\n", "| " + " | ".join(rows[0]) + " |", "|---" * len(rows[0]) + "|"]
        lines += ["| " + " | ".join(output.cell(key, value) for key, value in row.items()) + " |" for row in rows]
    return "\n".join(lines).lstrip() + "\n"


def main() -> None:
    parser = seeds.options(__doc__, range(2))
    parser.add_argument("--subsets", type=int, default=24)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = seeds.measure_each(options.seeds, partial(measure, subsets=options.subsets))
    averaged = means(found)
    print(markdown(averaged))
    seeds.write(options.out, {"subsets": options.subsets, "mean": averaged, "seeds": found})
    if options.out:
        options.out.with_suffix(".md").write_text(markdown(averaged))


if __name__ == "__main__":
    main()

"""Dense gradients projected: our drop-in projector against TRAK's and dattri's on the CPU, time and error.

    python benchmarks/bench_project.py --out benchmarks/results/project.json

Needs `pip install --no-deps traker dattri` for the rivals. Theirs make P in blocks of 100 columns, one as long as the
other: two blocks are timed, and a projection to d is ⌈d / 100⌉ of them; dattri's is the same code, timed to 10⁶.
"kept": the whole P in memory, where it fits 3 GiB; what is timed is the product alone, for either type. Ours are whole
calls. Medians of up to three. The error of a pair of rows is |⟨Pᵀa, Pᵀb⟩ - ⟨a, b⟩| / (|a| |b|), its mean over pairs and
seeds. Writes JSON and, beside it, a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from dattri.func.projection import BasicProjector as Dattri
from trak.projectors import BasicProjector as Trak

from gradex_fast import native
from gradex_fast.compat.trak import BasicProjector, ProjectionType

RIVALS = {"TRAK": (Trak, math.inf), "dattri": (Dattri, 1_000_000)}
"""And up to which size they are timed."""

BLOCK, KEPT = 100, 3 * 2**30
ERROR_ROWS, ERROR_SIZE = 32, 5_000
PAIRS = tuple(torch.triu_indices(ERROR_ROWS, ERROR_ROWS, 1))
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[8, 64])
    parser.add_argument("--sizes", type=int, nargs="+", default=[100_000, 1_000_000, 10_000_000])
    parser.add_argument("--dims", type=int, nargs="+", default=[512, 2048, 4096])
    parser.add_argument("--seeds", type=int, default=10, help="of the errors")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    asked = parser.parse_args()
    rows, found = [], {"threads": torch.get_num_threads(), "instruction_set": native.instruction_set()}
    for size in asked.sizes:
        for row in speeds(size, asked.rows, asked.dims):
            rows.append(row)
            print(json.dumps(row), flush=True)
    found |= {"speed": rows, "error": [errors(dim, asked.seeds) for dim in asked.dims]}
    text = f"`python benchmarks/bench_project.py`\n\n{table(rows)}\n\n{table(found['error'])}\n"
    print(text)
    if asked.out:
        asked.out.write_text(json.dumps(found, indent=2) + "\n")
        asked.out.with_suffix(".md").write_text(text)


def speeds(size: int, counts: list[int], dims: list[int]) -> Iterator[Row]:
    gradients = torch.randn(max(counts), size)
    rivals = {kind: blocks(gradients, counts, kind) for kind in ProjectionType}
    for dim in dims:
        kept = products(gradients, counts, dim) if 4 * size * dim <= KEPT else {}
        for n in counts:
            for kind in ProjectionType:
                ours = BasicProjector(size, dim, 0, kind, "cpu")
                row = {"n": n, "p": size, "d": dim, "type": kind.value}
                row["ours, s"] = seconds(lambda x=gradients[:n], ours=ours: ours.project(x, 0))
                for name, block in rivals[kind].items():
                    row[f"{name}, s"] = math.ceil(dim / BLOCK) * block[n] if block else None
                    row[f"{name} / ours"] = row[f"{name}, s"] / row["ours, s"] if block else None
                row["kept, s"] = kept.get(n)
                row["kept / ours"] = kept[n] / row["ours, s"] if kept else None
                row["ours, ns per entry of P"] = row["ours, s"] / (size * dim) * 1e9
                yield row


def blocks(gradients: torch.Tensor, counts: list[int], kind: ProjectionType) -> dict[str, dict[int, float]]:
    """Seconds by rival and n of one block of P and its product; none where the rival is not timed."""
    size, found = gradients.shape[1], {}
    for name, (made, largest) in RIVALS.items():
        if size <= largest:
            theirs = made(size, 2 * BLOCK, 0, kind.value, torch.device("cpu"), block_size=BLOCK)
            found[name] = {n: seconds(lambda x=gradients[:n], p=theirs: p.project(x, 0)) / 2 for n in counts}
            theirs.free_memory()
        else:
            found[name] = {}
    return found


def products(gradients: torch.Tensor, counts: list[int], dim: int) -> dict[int, float]:
    """Seconds by n of TRAK's projector with all of P in one block."""
    theirs = Trak(gradients.shape[1], dim, 0, "normal", torch.device("cpu"), block_size=dim)
    return {n: seconds(lambda x=gradients[:n]: theirs.project(x, 0)) for n in counts}


def seconds(work: Callable[[], object], enough: float = 3.0) -> float:
    spent = []
    while len(spent) < 3 and sum(spent) < enough:
        begin = time.perf_counter()
        work()
        spent.append(time.perf_counter() - begin)
    return statistics.median(spent)


def errors(dim: int, seeds: int) -> Row:
    """Mean over pairs of rows with something in common, and over seeds; √(2 / π d) for normals at right angles."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(ERROR_ROWS, ERROR_SIZE, generator=draw) + 0.5 * torch.randn(1, ERROR_SIZE, generator=draw)
    exact, scale = gram(x), x.double().norm(dim=1)
    row: Row = {"d": dim, "√(2 / π d)": math.sqrt(2 / (math.pi * dim))}
    for kind in ProjectionType:
        for name, made in {"ours": BasicProjector, **{name: made for name, (made, _) in RIVALS.items()}}.items():
            found = []
            for seed in range(seeds):
                projected = made(ERROR_SIZE, dim, seed, kind.value, torch.device("cpu"), block_size=BLOCK).project(x, 0)
                products = gram(projected) / (1 if name == "dattri" else dim)
                found.append(((products - exact).abs() / scale / scale[:, None])[PAIRS].mean().item())
            row[f"{name}, {kind.value}"] = statistics.mean(found)
    return row


def gram(x: torch.Tensor) -> torch.Tensor:
    return x.double() @ x.double().T


def table(rows: list[Row]) -> str:
    lines = [list(rows[0]), ["---"] * len(rows[0]), *([shown(value) for value in row.values()] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def shown(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.3g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


if __name__ == "__main__":
    main()

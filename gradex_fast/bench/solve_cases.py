"""The subset solver on a synthetic problem: packing its matrix, and batches of subsets with their estimates."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np

from gradex_fast import kernels, native
from gradex_fast.bench.cases import Case, Group
from gradex_fast.bench.counts import Work
from gradex_fast.bench.problems import LATENT, VALIDATION, Problem, Size, make_problem, penalties, random_subsets
from gradex_fast.bench.settings import BenchSettings
from gradex_fast.bench.turns import Call
from gradex_fast.tally import Tally

REGIME = "mid"


def solve_groups(settings: BenchSettings, warn: Callable[[str], None]) -> Iterator[Group]:
    """One group, on the CPU: a batch is the shared start, all solves and f̂ on the validation rows.

    Args:
        warn: is told where a subset did not converge.
    """
    size = Size(settings.samples, settings.sources, settings.dim)
    problem, subsets = make_problem(size), random_subsets(settings.sources, settings.subsets)
    l2, data = penalties(problem)[REGIME], (problem.features, problem.margins, problem.group_ptr)
    pack = partial(kernels.SubsetSolver, *data, threads=settings.threads)
    solver = pack()
    found = solver.solve(subsets, l2=l2, threads=settings.threads)
    if missed := int((found.status != kernels.Status.CONVERGED).sum()):
        warn(f"{missed} of {len(subsets)} subset regressions did not converge: their time says little")

    def batch(penalty: float) -> None:
        x = solver.solve(subsets, l2=penalty, threads=settings.threads).x
        kernels.mean_losses(x, problem.valid_features, problem.valid_margins, threads=settings.threads)

    def make() -> Mapping[str, Sequence[Call]]:
        """Of two penalties in turn, so that nothing can be remembered."""
        return {packing: [pack], solving: [partial(batch, l2), partial(batch, l2 * (1 + 1e-9))]}

    shape = f"{settings.samples} × {settings.sources}"
    packing, solving = f"pack {shape}", f"solve {shape}, {settings.subsets} subsets"
    matrix = float(problem.features.nbytes)
    cases = (
        Case(packing, Work(2 * matrix, 0.0), {"bytes": 2 * matrix}),
        Case(solving, solve_work(problem, subsets, found.iterations), {"subsets": float(settings.subsets)}),
    )
    yield Group("solve", cases, make)


def solve_work(problem: Problem, subsets: np.ndarray, iterations: np.ndarray) -> Work:
    """FLOPs by `Tally`, from the steps that were taken: right to a factor of two or so. The matrices are read once."""
    rows, dim = subsets @ np.diff(problem.group_ptr), problem.features.shape[1]
    tally = Tally()
    tally.solved(rows, iterations, len(problem.features), dim)
    tally.judged(len(subsets), VALIDATION, dim, 0)
    read = problem.features.nbytes + problem.valid_features.nbytes
    kind = "bfloat16" if native.instruction_set() == "avx512bf16" else "float32"
    return Work(float(read), tally.flops, kind=kind)


def needed_bytes(settings: BenchSettings) -> float:
    """Rows and their packed copies, the latent matrix that they are drawn by, Hessians, and the solutions."""
    rows = settings.samples + VALIDATION
    hessians = 3 * 8.0 * settings.dim**2
    return (
        hessians
        + 4.0 * settings.dim * (3 * rows + 2 * LATENT)
        + settings.subsets * (8.0 * settings.dim + settings.sources)
    )

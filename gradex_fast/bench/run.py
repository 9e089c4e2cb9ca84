"""`bench`: everything in order, and what is known so far after every group of cases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import torch
from torch import nn

from gradex_fast.bench import ceilings
from gradex_fast.bench.about import about
from gradex_fast.bench.cases import Group
from gradex_fast.bench.fits import require_kernels, require_room
from gradex_fast.bench.kernel_cases import kernel_groups
from gradex_fast.bench.models import recipe_of
from gradex_fast.bench.pass_cases import pass_groups
from gradex_fast.bench.record import Record
from gradex_fast.bench.results import Results
from gradex_fast.bench.settings import BenchSettings
from gradex_fast.bench.shapes import layers_of
from gradex_fast.bench.solve_cases import solve_groups
from gradex_fast.bench.turns import in_rounds
from gradex_fast.errors import GradexError
from gradex_fast.fitting import failure_of
from gradex_fast.model import load_outline
from gradex_fast.preflight import usable_device
from gradex_fast.sections import ModelRecipe
from gradex_fast.units import duration

Say = Callable[[str], None]


@dataclass(frozen=True)
class _Setup:
    """Attributes: recipe, outline: of the model; None where no part needs it."""

    settings: BenchSettings
    device: str
    dtype: str
    recipe: ModelRecipe | None
    outline: nn.Module | None

    @property
    def places(self) -> list[str]:
        return sorted({"cpu" if part == "solve" else self.device for part in self.settings.parts})


def bench(
    settings: BenchSettings, say: Say = lambda line: None, keep: Callable[[Results], None] = lambda results: None
) -> Results:
    """Measure what the settings ask for.

    Args:
        say: is told a line for every group. keep: is given the results so far after every group.

    Raises:
        GradexError: the model or the device is not there, or memory cannot hold a part; before anything is measured.
    """
    with ExitStack() as stack:
        setup = _set_up(settings, stack)
        record = Record(about(setup.device, setup.dtype, setup.outline), settings)
        _measure_ceilings(record, setup, say)
        for part in settings.parts:
            groups = _groups(part, setup, record)
            while _next_group(groups, part, record, settings, say):
                keep(record.results(complete=False))
        _measure_ceilings(record, setup, say)
    found = record.results(complete=True)
    keep(found)
    return found


def _set_up(settings: BenchSettings, stack: ExitStack) -> _Setup:
    device = usable_device(settings.device)
    require_kernels(device)
    dtype = {"cpu": "float32", "cuda": "bfloat16"}[device] if settings.dtype == "auto" else settings.dtype
    recipe = outline = None
    if {"kernels", "pass"} & set(settings.parts):
        options = {name: getattr(settings, name) for name in ("adapter", "rank", "targets")}
        recipe = stack.enter_context(recipe_of(settings.model, dtype=dtype, **options))
        outline = load_outline(recipe)
    require_room(settings, recipe, outline, device)
    stack.enter_context(_threads(settings.threads))
    return _Setup(settings, device, dtype, recipe, outline)


def _groups(part: str, setup: _Setup, record: Record) -> Iterator[Group]:
    settings, device = setup.settings, setup.device
    if part == "solve":
        return solve_groups(settings, record.warn)
    if part == "pass":
        return pass_groups(settings, setup.recipe, device)
    if others := layers_of(setup.outline)[1]:
        record.leave_out(part, others[0], f"{len(others)} parameters of more than two dimensions have no case")
    return kernel_groups(settings, setup.outline, device, getattr(torch, setup.dtype))


def _next_group(groups: Iterator[Group], part: str, record: Record, settings: BenchSettings, say: Say) -> bool:
    """Whether there was one more; one that memory cannot hold, or that the model refuses, is left out."""
    current: list[Group] = []

    def measure() -> None:
        current.extend([found] if (found := next(groups, None)) else [])
        for group in current:
            if quick := _quick_enough(group, record, settings.seconds):
                say(f"{part}: {', '.join(case.name for case in quick.cases)}")
                options = {"rounds": settings.repeats, "seconds": settings.seconds, "wall": group.wall}
                names = {case.name for case in quick.cases}
                calls = {name: each for name, each in group.make().items() if name in names}
                record.add(quick, in_rounds(calls, group.device, **options))

    try:
        failure = failure_of(measure)
        why = failure and f"memory ran out: {failure}"
    except GradexError as error:
        why = str(error)
    for name in ([case.name for group in current for case in group.cases] or [part]) if why else ():
        record.leave_out(part, name, why)
    return bool(current)


def _quick_enough(group: Group, record: Record, seconds: float) -> Group | None:
    """The cases whose call can be done in the time; the others are left out by name."""
    kept = []
    for case in group.cases:
        if (floor := max(record.floors(case.work).values(), default=0.0)) <= seconds:
            kept.append(case)
        else:
            why = f"a call takes {duration(floor, 1)} at least by the ceilings; raise --seconds ({seconds:g})"
            record.leave_out(group.part, case.name, why)
    return replace(group, cases=tuple(kept)) if kept else None


def _measure_ceilings(record: Record, setup: _Setup, say: Say) -> None:
    for device in setup.places:
        say(f"ceilings of the {device}")
        own = setup.settings.distributions if device == setup.device else ()
        record.ceilings(device, ceilings.measure(device, own, setup.settings.threads))


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)

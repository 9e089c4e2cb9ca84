"""Results, and a comparison of two, as people read them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from gradex_fast.bench.compare import Comparison
from gradex_fast.bench.results import CaseResult, Results, Spread
from gradex_fast.terminal import say
from gradex_fast.units import count_text

_SCALES = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))
_UNKNOWN = "\N{EN DASH}"
_BOUNDS = {"bandwidth": "memory", "gaussian": "P", "rademacher": "P"}
_UNITS = {"entries of P": "P"}
_MARKS = {"same": "", None: "", "unknown": "too few rounds"}


def print_results(found: Results, console: Console) -> None:
    for line in _header(found):
        say(console, line)
    console.print(_cases(found.cases))
    for line in (*_together(found), *_ratios(found), *_footer(found)):
        say(console, line)


def print_comparison(found: Comparison, console: Console) -> None:
    columns = [Column(name, justify="right", overflow="fold") for name in ("first", "second", "ratio")]
    table = Table(Column("case", overflow="fold"), *columns, "outside both spreads")
    for each in found.cases:
        first, second = (
            _seconds(figure) if each.unit == "s" else f"{figure:.3g}" for figure in (each.first, each.second)
        )
        table.add_row(*map(Text, (each.name, first, second, f"{each.ratio:.3f}", _MARKS.get(each.change, each.change))))
    console.print(table)
    for name, only in (("first", found.only_first), ("second", found.only_second)):
        for case in only:
            say(console, f"only in the {name}: {case}")
    for line in found.warnings:
        say(console, f"warning: {line}")


def _header(found: Results) -> Iterator[str]:
    machine, asked = found.machine, found.settings
    adapter = f"LoRA r = {asked.rank}" if asked.adapter == "lora" else "all parameters"
    if found.parameters is not None:
        sizes = f"{found.trained:,} of {found.parameters:,} parameters trained"
        yield f"{asked.model}, {adapter}: {sizes}, {found.dtype}; {asked.rows} × {asked.tokens} tokens"
    where = machine["cpu"] if machine["device"] == "cpu" else f"{machine['device']}, {machine['cpu']}"
    yield f"{where}, {machine['threads']} threads, {machine['instruction_set']}, load {found.load}; d = {asked.dim}"
    for device in dict.fromkeys(each.device for each in found.ceilings):
        own = [f"{count_text(each.best)} {_ceiling(each)}" for each in found.ceilings if each.device == device]
        yield f"ceilings ({device}): {', '.join(own)}"


def _ceiling(each) -> str:
    return each.unit if each.name == "bandwidth" else f"{each.name} {each.unit}"


def _cases(cases: Sequence[CaseResult]) -> Table:
    columns = [Column(name, justify="right") for name in ("least", "median", "quartiles", "a second")]
    table = Table(Column("case", overflow="fold"), *columns, Column("of the ceiling", justify="right"))
    for case in cases:
        spread = case.seconds
        unit = _unit(spread.median)
        cells = [_in(spread.minimum, unit), f"{_in(spread.median, unit)} {unit}"]
        cells += [f"{_in(spread.lower, unit)}\N{EN DASH}{_in(spread.upper, unit)}", _rate(case)]
        share = _UNKNOWN if case.share is None else f"{case.share:.0%} {_BOUNDS.get(case.bound, case.bound)}"
        name = case.name if case.layers is None else f"{case.name}  ×{case.layers}"
        table.add_row(*map(Text, (name, *cells, share)))
    return table


def _rate(case: CaseResult) -> str:
    """The first of its rates: what the case is there for."""
    unit, rate = next(iter(case.rates.items()), (None, None))
    return (
        _UNKNOWN if unit is None else f"{count_text(rate) if rate >= 1e5 else f'{rate:,.3g}'} {_UNITS.get(unit, unit)}"
    )


def _together(found: Results) -> Iterator[str]:
    """The model's layers, each as often as there is one."""
    for distribution in found.settings.distributions:
        own = [case for case in found.cases if case.layers and case.name.endswith(f", {distribution}")]
        if own:
            total, layers = sum(case.layers * case.seconds.median for case in own), sum(case.layers for case in own)
            yield f"all {layers} layers' sketches, {distribution}: {_seconds(total)}"


def _ratios(found: Results) -> Iterator[str]:
    for each in found.ratios:
        spread = each.ratio
        yield f"{each.name} / {each.to}: {spread.median:.3f} ({_range(spread)}, {spread.rounds} rounds)"
    for case in found.cases:
        if "subsets" in case.rates:
            yield f"{case.name}: {1e3 / case.rates['subsets']:.3g} ms a subset, {case.rates['subsets']:,.0f} a second"


def _range(spread: Spread) -> str:
    return f"quartiles {spread.lower:.3f}\N{EN DASH}{spread.upper:.3f}"


def _footer(found: Results) -> Iterator[str]:
    for each in found.left_out:
        yield f"left out: {each.name}: {each.why}"
    for line in found.warnings:
        yield f"warning: {line}"


def _seconds(value: float) -> str:
    unit = _unit(value)
    return f"{_in(value, unit)} {unit}"


def _unit(value: float) -> str:
    return next((unit for scale, unit in _SCALES if value >= scale), "µs")


def _in(value: float, unit: str) -> str:
    return f"{value / dict((name, scale) for scale, name in _SCALES)[unit]:.3g}"

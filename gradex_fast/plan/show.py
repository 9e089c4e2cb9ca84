"""A forecast as people read it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from gradex_fast.plan.rows import disk_line, sources_table
from gradex_fast.terminal import say
from gradex_fast.units import count_text, duration, ratio_text

_PARTS = ("training", "sketch")


def print_forecast(found: Mapping[str, Any], console: Console) -> None:
    console.print(sources_table(found["sources"]))
    console.print(_times(found))
    console.print(_room(found))
    for line in (*_memory(found), disk_line(found["bytes"]), *_ratios(found["ratios"]), *_assumed(found)):
        say(console, line)


def _times(found: Mapping[str, Any]) -> Table:
    stages = list(found["passes"])
    table = Table("GPU time on a", *stages, "together")
    for name, card in found["cards"].items():
        hours = [*(card["hours"][stage] for stage in stages), card["together"]]
        table.add_row(name, *(duration(None if each is None else 3600 * each) for each in hours))
    return table


def _room(found: Mapping[str, Any]) -> Table:
    table = Table("memory of a", "usable", *_PARTS)
    for name, card in found["cards"].items():
        table.add_row(name, _gib(card["usable_bytes"]), *(_fit(card[p], found["memory"][p]) for p in _PARTS))
    return table


def _fit(card: Mapping[str, Any], part: Mapping[str, Any]) -> str:
    if card["rows"] is None:
        return "not known"
    if card["fits"]:
        return "fits"
    return f"{card['rows']:.0f} of {part['rows']:.0f} rows fit" if card["rows"] else "does not fit"


def _memory(found: Mapping[str, Any]) -> Iterator[str]:
    for name in _PARTS:
        part = found["memory"][name]
        pieces = [f"{_gib(part[key])} {key}" for key in ("weights", "gradients", "optimiser") if part[key]]
        pieces.append(f"{_gib(part['activations'])} activations of {part['rows']:.0f} longest rows")
        yield f"memory, {name}: {_gib(part['total'])} = {' + '.join(pieces)}"


def _gib(size: float | None) -> str:
    return "\N{EN DASH}" if size is None else f"{size / 2**30:.1f} GiB"


def _ratios(found: Mapping[str, Any]) -> Iterator[str]:
    yield f"the choice costs {ratio_text(found['choice_to_training'])} trainings on everything"
    for name, text in (("real_forward", "forward selection"), ("real_ensemble", "a random ensemble")):
        yield f"{text} by real fine-tuning: {ratio_text(found[f'{name}_to_choice'])} times the choice"
    yield f"the search, on the CPU: {count_text(found['solver_flops'])} FLOPs"


def _assumed(found: Mapping[str, Any]) -> Iterator[str]:
    assumed, dtype = found["assumed"], found["model"]["dtype"]
    yield (
        f"assumed: {assumed['utilisation']:.0%} of a card's dense bfloat16 peak (--utilisation), "
        f"{assumed['usable_memory']:.0%} of its memory"
    )
    if dtype == "float32":
        yield "this model computes in float32, of which no card's peak is known here: expect several times as long"

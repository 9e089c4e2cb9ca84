"""A forecast as people read it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.table import Column, Table

from gradex_fast.plan.rows import disk_line, sources_table, unassigned_line
from gradex_fast.terminal import say
from gradex_fast.units import count_text, duration, ratio_text

_PARTS = ("training", "sketch")
_FIXED = {name: name for name in ("weights", "gradients", "optimiser")} | {"unpacked": "a weight unpacked"}


def print_forecast(found: Mapping[str, Any], console: Console) -> None:
    console.print(sources_table(found["sources"]))
    for line in unassigned_line(found["unassigned"]):
        say(console, line)
    console.print(_times(found))
    console.print(_room(found))
    for line in (*_memory(found), disk_line(found["bytes"]), *_ratios(found["ratios"]), *_assumed(found)):
        say(console, line)


def _times(found: Mapping[str, Any]) -> Table:
    stages = list(found["passes"])
    table = Table("GPU time on a", *(Column(stage, justify="right") for stage in (*stages, "together")))
    for name, card in found["cards"].items():
        hours = [*(card["hours"][stage] for stage in stages), card["together"]]
        table.add_row(name, *map(_time, hours))
    return table


def _time(hours: float | None) -> str:
    seconds = None if hours is None else 3600 * hours
    return "< 1 s" if seconds and seconds < 1 else duration(seconds)


def _room(found: Mapping[str, Any]) -> Table:
    table = Table("memory of a", Column("usable", justify="right"), *_PARTS)
    for name, card in found["cards"].items():
        table.add_row(name, _size(card["usable_bytes"]), *(_fit(card[p], found["memory"][p]) for p in _PARTS))
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
        pieces = [f"{_size(part[key])} {text}" for key, text in _FIXED.items() if part[key]]
        rows = f"{part['rows']:.0f} rows" if part["rows"] != 1 else "one row"
        pieces.append(f"{_size(part['activations'])} activations of {rows} of {part['tokens']:,.0f} tokens")
        yield f"memory, {name}: {_size(part['total'])} = {' + '.join(pieces)}"
    yield from _about_memory(found["model"])


def _about_memory(model: Mapping[str, Any]) -> Iterator[str]:
    """What of the recipe made it so."""
    dtype, own = model["dtype"], model["trained_dtype"]
    if model["quantization"]:
        yield f"{model['quantization']}: linear layers' weights; norms, embeddings and the output head are {dtype}"
    if own != dtype:
        less = "; model.adapter_dtype=bfloat16 takes less" if own == "float32" else ""
        yield f"adapters are {own} on a {dtype} base: their inputs are kept in {own}, which is counted{less}"
    if model["gradient_checkpointing"]:
        yield "gradient checkpointing: every layer's input and one layer's inside; its time is not in the table"
    if model["spread"]:
        yield "model.device_map: memory is the sum over all GPUs, among which it is spread; the table has one alone"


def _size(size: float | None) -> str:
    if size is None:
        return "\N{EN DASH}"
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"


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

"""`gradex-fast plan`: rows, memory, disk and hours on named cards, from the model's outline: no weights are read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from gradex_fast.costs import Cost, together
from gradex_fast.data import load_corpus
from gradex_fast.errors import GradexError
from gradex_fast.footprint import Footprint, footprint
from gradex_fast.model import load_tokenizer
from gradex_fast.plan import stages
from gradex_fast.plan.cards import OWN_UTILISATION, USABLE, UTILISATION, Card, named
from gradex_fast.plan.rows import disk, sources
from gradex_fast.preflight import check
from gradex_fast.recipe import Recipe
from gradex_fast.types import Corpus, Example

Plan = dict[str, Any]


def forecast(recipe: Recipe, cards: Sequence[str] | None = None, utilisation: float = UTILISATION) -> Plan:
    """What a run would take on one GPU of each kind: JSON values, null for what is not known.

    Hours are FLOPs over the assumed share of the peak: an order of magnitude for a model of which no speed was ever
    measured. Memory is that of a device that holds the whole model.

    Args:
        cards: names of `CARDS`; None: all. utilisation: of the dense bfloat16 peak, in passes through the model.

    Raises:
        GradexError: whatever `pipeline.prepare` would refuse, or an unknown card.
    """
    chosen = named(cards)
    if not 0 < utilisation <= 1:
        raise GradexError(f"--utilisation is {utilisation:g}, not a share above 0, at most 1")
    corpus = load_corpus(recipe, load_tokenizer(recipe.model))
    check(recipe, corpus)
    size, costs = footprint(recipe.model, recipe.sketch), stages.costs_by_stage(corpus, recipe)
    memory = _memory(size, corpus, recipe)
    return {
        "sources": sources(corpus),
        "unassigned": corpus.unassigned,
        "model": {
            "bytes": size.weights,
            "trained_parameters": size.trained,
            "dtype": size.dtype,
            "trained_dtype": size.trained_dtype,
            **{name: getattr(recipe.model, name) for name in ("quantization", "gradient_checkpointing")},
            "spread": recipe.model.device_map is not None,
        },
        "passes": {stage: cost.values() for stage, cost in costs.items()},
        "memory": {part: {name: _known(value) for name, value in each.items()} for part, each in memory.items()},
        "cards": {name: _on_card(card, costs, memory, utilisation) for name, card in chosen.items()},
        "bytes": disk(corpus, recipe, size.trained),
        "ratios": _ratios(corpus, recipe, costs),
        "assumed": {"utilisation": utilisation, "own_utilisation": OWN_UTILISATION, "usable_memory": USABLE},
    }


def _memory(size: Footprint, corpus: Corpus, recipe: Recipe) -> dict[str, dict[str, float]]:
    """Bytes at the height of a pass over `rows` rows, all as long as the longest and as much supervised.

    `row` is of each, of `tokens` tokens: a sample, or with ``train.packing`` a packed row. The others do not depend on
    rows; `unpacked` is a quantised weight in use.
    """
    trained = stages.training_rows(corpus)
    sketched = [*trained, *corpus.validation.examples]
    (t, s), rows = _largest(trained), min(len(trained), recipe.train.batch_size)
    if recipe.train.packing:
        whole = min(max(t, recipe.train.packed_tokens), rows * t)
        t, s, rows = whole, math.ceil(whole * max(e.supervised / len(e.input_ids) for e in trained)), 1
    longest, supervised = _largest(sketched)
    parts = {
        "training": {
            "weights": size.weights,
            "gradients": size.gradients,
            "optimiser": 2 * size.gradients,  # AdamW's two moments
            "unpacked": size.unpacked,
            "row": size.activations(size.training, t, s),
            "rows": rows,
            "tokens": t,
        },
        "sketch": {
            "weights": size.weights,
            "gradients": 0,
            "optimiser": 0,
            "unpacked": size.unpacked,
            "row": size.activations(size.sketching, longest, supervised),
            "rows": max(1, min(len(sketched), recipe.sketch.batch_tokens // longest)),
            "tokens": longest,
        },
    }
    return {
        name: {**part, "activations": part["rows"] * part["row"], "total": _fixed(part) + part["rows"] * part["row"]}
        for name, part in parts.items()
    }


def _largest(examples: Sequence[Example]) -> tuple[int, int]:
    """Tokens of the longest row, and the most that are supervised in one."""
    return max(len(e.input_ids) for e in examples), max(e.supervised for e in examples)


def _fixed(part: Mapping[str, float]) -> float:
    return sum(part[name] for name in ("weights", "gradients", "optimiser", "unpacked"))


def _on_card(
    card: Card, costs: Mapping[str, Cost], memory: Mapping[str, Mapping[str, float]], utilisation: float
) -> Plan:
    def hours(cost: Cost) -> float | None:
        own = cost.own_flops / OWN_UTILISATION
        return _known((cost.model_flops / utilisation + own) / card.flops / 3600)

    return {
        "hours": {stage: hours(cost) for stage, cost in costs.items()},
        "together": hours(together(costs.values())),
        "usable_bytes": card.usable,
        **{part: _rows_that_fit(card, each) for part, each in memory.items()},
    }


def _rows_that_fit(card: Card, part: Mapping[str, float]) -> Plan:
    """How many rows at once, of those that are asked for; 0: the model does not fit, or not with one row."""
    room = card.usable - _fixed(part)
    if not math.isfinite(part["row"]):
        return {"rows": None if room > 0 else 0, "fits": None if room > 0 else False}
    rows = max(0, min(part["rows"], int(room // part["row"])))
    return {"rows": rows, "fits": rows == part["rows"]}


def _ratios(corpus: Corpus, recipe: Recipe, costs: Mapping[str, Cost]) -> dict[str, float | None]:
    """FLOPs of the choice in trainings on everything, and of selections by real fine-tuning in choices."""
    search = stages.solving(corpus, recipe)
    choice = together([*(cost for stage, cost in costs.items() if stage != stages.FINAL), search])
    rivals = {
        "real_forward": stages.real_forward(corpus, recipe),
        "real_ensemble": stages.real_ensemble(corpus, recipe),
    }
    found = {"choice_to_training": choice.flops / costs[stages.FINAL].flops}
    found |= {f"{name}_to_choice": cost.flops / choice.flops for name, cost in rivals.items()}
    return {**{name: _known(value) for name, value in found.items()}, "solver_flops": search.own_flops}


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None

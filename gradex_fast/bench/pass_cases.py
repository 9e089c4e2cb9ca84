"""Whole passes of a model over one batch: the plain forward and backward pass, and the sketch pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from torch import nn

from gradex_fast.batch import Batch
from gradex_fast.bench.cases import Case, Group
from gradex_fast.bench.counts import Work
from gradex_fast.bench.models import make_batch, make_model
from gradex_fast.bench.settings import BenchSettings
from gradex_fast.bench.shapes import layers_of
from gradex_fast.bench.turns import Call
from gradex_fast.flops import features, pass_flops
from gradex_fast.footprint import Footprint, footprint
from gradex_fast.model import load_outline
from gradex_fast.sections import ModelRecipe, SketchRecipe
from gradex_fast.sketch import Sketcher

PLAIN = "plain pass"


def pass_groups(settings: BenchSettings, recipe: ModelRecipe, device: str) -> Iterator[Group]:
    """One group: a plain pass, and a sketch pass for every distribution, of the same batch."""
    names = {f"sketch pass, {kind}": kind for kind in settings.distributions}
    done = {"rows": settings.rows, "tokens": settings.rows * settings.tokens}
    works = {PLAIN: pass_work(settings, recipe, device)}
    works |= {name: pass_work(settings, recipe, device, kind) for name, kind in names.items()}

    def make() -> Mapping[str, Sequence[Call]]:
        model, batch = make_model(recipe, device), make_batch(recipe.task, settings.rows, settings.tokens, device)
        options = {"dim": settings.dim, "threads": settings.threads}
        sketchers = {name: Sketcher(model, distribution=kind, **options) for name, kind in names.items()}
        sketches = {name: [partial(sketcher, batch)] for name, sketcher in sketchers.items()}
        return {PLAIN: [partial(plain_pass, model, batch)], **sketches}

    cases = tuple(Case(name, work, done) for name, work in works.items())
    yield Group("pass", cases, make, base=PLAIN, wall=True, device=device)


def plain_pass(model: nn.Module, batch: Batch) -> None:
    """Forward and backward with the model's own loss, logits at all positions; the gradients are let go at the end."""
    model(**batch).loss.backward()
    model.zero_grad(set_to_none=True)


def pass_work(settings: BenchSettings, recipe: ModelRecipe, device: str, distribution: str | None = None) -> Work:
    """Of a plain pass, or of a sketch pass.

    Bytes are those of the weights, once forward and once backward, of what autograd keeps, written and read, and of the
    plain pass's gradients; what is looked up in a table of embeddings is left out. What is not known counts 0.
    """
    n, t, s = settings.rows, settings.tokens, settings.tokens if distribution is None else settings.tokens - 1
    sketch = SketchRecipe(dim=settings.dim, distribution=distribution or "gaussian")
    flops, size, outline = pass_flops(recipe, sketch), footprint(recipe, sketch), load_outline(recipe)
    backward = flops.backward if distribution is None else flops.slopes + flops.sketch
    kept, row = size.training if distribution is None else size.sketching, features([(t, s)])[0]
    moved = 2.0 * read_bytes(outline) + 2.0 * n * _known(row @ kept) + (size.gradients if distribution is None else 0)
    entries = 0.0
    if distribution in ("gaussian", "rademacher"):
        entries = float(settings.dim) * made_elements(outline, n * t)
    work = {"kind": recipe.dtype, "distribution": distribution or "gaussian", "device": device}
    return Work(moved, n * _known(row @ (flops.forward + backward)), entries, **work)


def needed_bytes(settings: BenchSettings, size: Footprint) -> dict[str, float]:
    """Of a plain pass, which needs more than a sketch pass does: weights, gradients and activations."""
    rows = settings.rows * size.activations(size.training, settings.tokens, settings.tokens)
    return {"weights": float(size.weights), "gradients": float(size.gradients), "activations": _known(rows)}


def read_bytes(outline: nn.Module) -> int:
    """Of all parameters that are more than a table to look up in; a tied head reads its table as a matrix."""
    owners = [module for module in outline.modules() if not isinstance(module, nn.Embedding)]
    found = {id(p): p for module in owners for p in module.parameters(recurse=False)}
    return sum(parameter.numel() * parameter.itemsize for parameter in found.values())


def made_elements(outline: nn.Module, tokens: int) -> int:
    """Elements whose rows of P a pass must make; of a table that is looked up, a line for every token at most."""
    found, others = layers_of(outline)
    rows = {layer: min(layer.q, tokens) if layer.kind == "table" else layer.q for layer in found}
    named = dict(outline.named_parameters())
    return sum(count * rows[layer] * layer.p for layer, count in found.items()) + sum(named[o].numel() for o in others)


def _known(value: float) -> float:
    return float(value) if value == value else 0.0

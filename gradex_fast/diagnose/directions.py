"""Where the expansion is followed to: where fine-tuning goes, where the estimate puts it, and anywhere."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from gradex_fast import kernels
from gradex_fast.diagnose.expansion import Step, length
from gradex_fast.diagnose.truth import chosen, recipe_of
from gradex_fast.files import checksum, explained_if_full, write_json
from gradex_fast.model import load_model
from gradex_fast.modules import grouped, trainable
from gradex_fast.state import Run
from gradex_fast.terms import width
from gradex_fast.train import total_steps, train


@dataclass(frozen=True)
class Direction:
    """A step of length |θ*|, θ* the trained parameters.

    Attributes:
        kind: "fine-tuned", θ_S - θ* of a subset that was fine-tuned for real; "estimated", P x_S / √d of the same
            subset (what the authors' code follows); "random", normals.
        number: of the subset, or of the draw.
        end: its relative length before it was scaled: how far fine-tuning, or the estimate, goes. NaN for a random one.
        sketch: float64 [d]; g̃_i · sketch estimates ⟨∇h_i, step⟩: Pᵀ step / √d, or for an estimated step, which lies
            in the span of P, x_S itself, which is exact.
    """

    kind: str
    number: int
    step: Step
    end: float
    sketch: np.ndarray


def directions(run: Run, model: nn.Module, subsets: np.ndarray) -> list[Direction]:
    """One of each kind for every subset; `model` stands at θ*."""
    found = []
    for index, subset in enumerate(subsets):
        x = run.estimator.solve(subset[None]).x[0]
        found.append(_scaled(run, model, "fine-tuned", index, fine_tuned_step(run, subset)))
        found.append(_scaled(run, model, "estimated", index, lifted_step(run, model, x), x))
        found.append(_scaled(run, model, "random", index, random_step(model, run.recipe.seed + index)))
    return found


def step_file(run: Run, subset: np.ndarray) -> Path:
    """Where θ_S - θ* is kept."""
    rows = (example.digest for example in run.examples(chosen(run, subset)))
    return run.path / "diagnosis" / "steps" / f"{checksum(recipe_of(run).key(), *rows)[:16]}.safetensors"


def fine_tuned_step(run: Run, subset: np.ndarray) -> Step:
    """θ_S - θ*, float32, after fine-tuning θ* on a subset once; then read from `step_file`."""
    path, recipe, examples = step_file(run, subset), recipe_of(run), run.examples(chosen(run, subset))
    if not path.exists():
        begin = time.monotonic()
        model = load_model(run.recipe.model, run.recipe.seed, run.device, trained=run.path / "meta")
        before = {name: parameter.detach().float().clone() for name, parameter in trainable(model).items()}
        with run.reporter.stage(f"train step {path.stem[:6]}", total_steps(len(examples), recipe), "steps") as stage:
            folder = run.path / "checkpoints" / f"step-{path.stem}"
            train(model, examples, recipe, pad_id=run.pad_id, folder=folder, seed=run.recipe.seed, stage=stage)
        step = {name: (p.detach().float() - before[name]).cpu().contiguous() for name, p in trainable(model).items()}
        _save(path, step)
        write_json(path.with_suffix(".json"), {"rows": len(examples), "seconds": time.monotonic() - begin})
    return load_file(path, device=run.device)


def _save(path: Path, step: Step) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with explained_if_full(path, 4 * sum(part.numel() for part in step.values())):
        save_file(dict(step), path.with_suffix(".tmp"))
        path.with_suffix(".tmp").replace(path)


def lifted_step(run: Run, model: nn.Module, x: np.ndarray) -> Step:
    """P x / √d over the sketched parameters, 0 over the others."""
    step = {name: torch.zeros_like(parameter) for name, parameter in trainable(model).items()}
    for name, parameter in sketched(run, model).items():
        weights = torch.as_tensor(x, dtype=torch.float32, device=parameter.device)[None]
        lifted = kernels.lift(weights, parameter.numel(), name=name, width=width(parameter), **_plan(run))
        step[name] = lifted.reshape(parameter.shape)
    return step


def random_step(model: nn.Module, seed: int) -> Step:
    """Standard normals, the same on every device."""
    draw = torch.Generator().manual_seed(seed)
    return {name: torch.randn(p.shape, generator=draw).to(p.device) for name, p in trainable(model).items()}


def sketch_of(run: Run, model: nn.Module, step: Step) -> np.ndarray:
    """Pᵀ Δ / √d: float64 [d]."""
    dim = run.train.g.shape[1]
    total = torch.zeros(1, dim, device=next(model.parameters()).device)
    for name, parameter in sketched(run, model).items():
        row = step[name].reshape(1, -1).float()
        kernels.project(row, name=name, dim=dim, width=width(parameter), out=total, **_plan(run))
    return total[0].double().cpu().numpy()


def sketched(run: Run, model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that ``sketch.parameters`` lets into a sketch."""
    parameters = trainable(model)
    return {name: parameters[name] for name in grouped(parameters, {"": run.recipe.sketch.parameters})}


def _plan(run: Run) -> dict:
    return {"seed": run.recipe.seed, "distribution": run.recipe.sketch.distribution}


def _scaled(run: Run, model: nn.Module, kind: str, number: int, step: Step, x: np.ndarray | None = None) -> Direction:
    whole, own = length(trainable(model)), length(step)
    scale = whole / own if own else 0.0
    step = {name: part * scale for name, part in step.items()}
    end = float("nan") if kind == "random" else own / whole
    return Direction(kind, number, step, end, sketch_of(run, model, step) if x is None else x * scale)

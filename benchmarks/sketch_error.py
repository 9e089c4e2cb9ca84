"""How far sketched inner products of real gradients are off, against d, for every distribution (Johnson–Lindenstrauss).

    python benchmarks/sketch_error.py --out benchmarks/results/sketch_error.json

∇h at θ* of the demo's two-layer GPT-2 (noisy addition, full parameters), of clean and noisy samples alike. The error of
a pair is |⟨g̃_i, g̃_j⟩ - ⟨g_i, g_j⟩| / (|g_i| |g_j|). Beside it √(2 / π d), what normals give a pair at right angles; and
the same for single terms d ⊗ x much alike, where TensorSketch errs most. Writes JSON and, beside it, a Markdown table.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import tempfile
from pathlib import Path

import numpy as np
import torch

from gradex_fast import demo, kernels, pipeline
from gradex_fast.batch import collate
from gradex_fast.capture import width
from gradex_fast.cli import calm_libraries
from gradex_fast.losses import MARGINS, token_losses
from gradex_fast.model import load_model
from gradex_fast.modules import trainable
from gradex_fast.progress import Reporter
from gradex_fast.reference.projection import DISTRIBUTIONS

Gradients = dict[str, torch.Tensor]
"""By parameter, [samples, *the parameter's shape]."""


def real_gradients(samples: int, steps: int) -> Gradients:
    """∇h of every n-th training row at θ*, one backward pass each."""
    with tempfile.TemporaryDirectory() as folder:
        made = demo.make_demo(Path(folder) / "run", 0, dataclasses.replace(demo.FULL, steps=steps))
        run = pipeline.run(made.recipe, until="meta", reporter=Reporter(quiet=True))
        model = load_model(run.recipe.model, 0, "cpu", trained=run.path / "meta").eval()
        rows, pad_id = run.examples(), run.pad_id
    parameters = trainable(model)
    found = []
    for example in rows[:: len(rows) // samples][:samples]:
        losses, supervised, _ = token_losses(model, collate([example], pad_id))
        objective = MARGINS["sequence"](losses, supervised)[1].sum()
        found.append(torch.autograd.grad(objective, list(parameters.values())))
    return {name: torch.stack(each) for name, each in zip(parameters, zip(*found, strict=True), strict=True)}


def single_terms(samples: int, size: int = 256) -> Gradients:
    """d_i ⊗ x_i of one layer whose samples are much alike: cosines of about 0.9 on either side."""
    draw = torch.Generator().manual_seed(0)
    common, own = (torch.randn(n, 2, size, generator=draw) for n in (1, samples))
    d, x = (3 * common + own).unbind(1)
    return {"layer.weight": torch.einsum("no,nc->noc", d, x)}


def sketched(gradients: Gradients, dim: int, seed: int, distribution: str) -> np.ndarray:
    total = torch.zeros(len(next(iter(gradients.values()))), dim)
    for name, rows in gradients.items():
        plan = {"name": name, "seed": seed, "dim": dim, "distribution": distribution, "width": width(rows[0])}
        try:
            kernels.project(rows.flatten(1), out=total, **plan)
        except NotImplementedError:
            kernels.project(rows.flatten(1), out=total, backend="reference", **plan)
    return total.double().numpy()


def errors(gradients: Gradients, dim: int, seeds: int, distribution: str) -> dict[str, float]:
    """Over pairs and seeds: mean, 95th percentile, and the standard error of the mean over seeds."""
    whole = torch.cat([rows.flatten(1) for rows in gradients.values()], dim=1).double().numpy()
    norms, pairs = np.linalg.norm(whole, axis=1), np.triu_indices(len(whole), 1)
    exact = (whole @ whole.T)[pairs]
    scale = np.outer(norms, norms)[pairs]
    found = []
    for seed in range(seeds):
        g = sketched(gradients, dim, seed, distribution)
        found.append(abs((g @ g.T)[pairs] - exact) / scale)
    found = np.array(found)
    spread = found.mean(1).std(ddof=1) / math.sqrt(seeds)
    return {"mean": float(found.mean()), "error": float(spread), "p95": float(np.quantile(found, 0.95))}


def table(found: dict[str, dict[str, dict[str, dict[str, float]]]], dims: list[int]) -> str:
    lines = []
    for kind, by_distribution in found.items():
        lines += [f"\n{kind}: mean error (95th percentile)\n", "| d | " + " | ".join(by_distribution) + " | √(2/πd) |"]
        lines.append("|---" * (len(by_distribution) + 2) + "|")
        for dim in dims:
            cells = [f"{row[str(dim)]['mean']:.4f} ({row[str(dim)]['p95']:.3f})" for row in by_distribution.values()]
            lines.append(f"| {dim} | " + " | ".join(cells) + f" | {math.sqrt(2 / math.pi / dim):.4f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dims", type=int, nargs="+", default=[25, 50, 100, 200, 400, 800])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--samples", type=int, default=40)
    parser.add_argument("--steps", type=int, default=400, help="of meta-training")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    calm_libraries()
    kinds = {
        "real gradients": real_gradients(options.samples, options.steps),
        "single terms": single_terms(options.samples),
    }
    found = {
        kind: {
            distribution: {str(dim): errors(gradients, dim, options.seeds, distribution) for dim in options.dims}
            for distribution in DISTRIBUTIONS
        }
        for kind, gradients in kinds.items()
    }
    print(table(found, options.dims))
    if options.out:
        settings = {key: value for key, value in vars(options).items() if key != "out"}
        options.out.write_text(json.dumps({**settings, "errors": found}, indent=2) + "\n")
        options.out.with_suffix(".md").write_text(table(found, options.dims).lstrip())


if __name__ == "__main__":
    main()

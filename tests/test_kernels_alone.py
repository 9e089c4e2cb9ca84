"""`gradex_fast.kernels` with torch and NumPy only."""

from __future__ import annotations

import subprocess
import sys

_PROGRAM = """
import sys

HEAVY = "accelerate datasets jinja2 peft psutil pyarrow pydantic rich safetensors sklearn tokenizers transformers yaml"


class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in HEAVY.split():
            raise ImportError(f"{name} is not to be imported")


sys.meta_path.insert(0, Blocked())
try:
    import transformers
except ImportError:
    pass
else:
    raise AssertionError("nothing is blocked")

import numpy as np
import torch
from gradex_fast import kernels

x, d, plan = torch.randn(3, 2, 5), torch.randn(3, 2, 4), {"name": "w", "seed": 0}
for distribution in kernels.DISTRIBUTIONS:
    own = {"distribution": distribution, **plan}
    g = kernels.sketch(x, d, dim=6, **own)
    dense = torch.einsum("nto,ntc->noc", d, x).flatten(1)
    assert torch.allclose(kernels.project(dense, dim=6, width=5, **own), g, atol=1e-4)
    assert kernels.lift(g, 20, width=5, **own).shape == (3, 20)
    assert kernels.sketch_rows(x, torch.tensor([[0, 1]] * 3), dim=6, **own).shape == (3, 6)
assert kernels.sketch(x.to("meta"), d.to("meta"), dim=6, **plan).shape == (3, 6)
assert torch.vmap(lambda rows: kernels.project(rows, dim=6, **plan))(x).shape == (3, 2, 6)
features, margins = np.random.default_rng(0).standard_normal((9, 4)), np.ones(9)
solver = kernels.SubsetSolver(features, margins, [0, 4, 9])
found = solver.solve([[0], [0, 1]], l2=0.1)
assert (found.status == kernels.Status.CONVERGED).all() and found.loss.shape == found.gradient_norm.shape == (2,)
assert (kernels.solve(features, margins, [0, 4, 9], [[0], [0, 1]], l2=0.1).x == found.x).all()
assert kernels.mean_losses(found.x, features, margins).shape == (2,)
assert kernels.row_losses(found.x, features, margins).shape == (2, 9)
search = kernels.NeighbourSearch(solver, features.astype(np.float32), margins, l2=0.1)
assert search.best([0], [1]).move == 0
print(*sorted({name.partition(".")[0] for name in sys.modules} & set(HEAVY.split())), "done")
"""


def test_all_kernels_without_the_heavy_packages() -> None:
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True)
    assert done.stdout == "done\n", done.stderr

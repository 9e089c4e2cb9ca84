"""gradex_fast: predicts the fine-tuned loss of any subset of training sources from one training run.

The public names, in pipeline order. Each is imported when first asked for: kernels, Sketcher, SubsetEstimator and the
searches need torch and NumPy only, Recipe, run and what is around them the extra `pipeline`.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "Recipe": "recipe",
    "load_corpus": "data",
    "Sketcher": "sketch",
    "SketchStore": "store",
    "read_sketches": "interchange",
    "write_sketches": "interchange",
    "SubsetEstimator": "estimate",
    "forward_selection": "select",
    "backward_selection": "select",
    "floating_selection": "select",
    "random_ensemble": "select",
    "Constraints": "constraints",
    "run": "pipeline",
    "Run": "state",
    "Corpus": "types",
    "Estimates": "types",
    "Example": "types",
    "Selection": "types",
    "Sketches": "types",
    "Source": "types",
    "GradexError": "errors",
    "kernels": "",
    "SubsetLogisticRegression": "compat.sklearn",
}

# Those of `compat` need a package that is an extra, which ``from gradex_fast import *`` must not.
__all__ = [name for name, home in _HOMES.items() if not home.startswith("compat")]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'gradex_fast' has no attribute {name!r}")
    home = _HOMES[name]
    try:
        return getattr(import_module(f"gradex_fast.{home}"), name) if home else import_module(f"gradex_fast.{name}")
    except ImportError as error:
        from gradex_fast.extras import needed_for

        if needed := needed_for(error):
            raise ImportError(f"gradex_fast.{name} {needed}", name=error.name) from error
        raise


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])

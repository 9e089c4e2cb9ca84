"""All rivals by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from gradex_fast.baselines.datamodel import datamodel
from gradex_fast.baselines.deft import deft
from gradex_fast.baselines.dsir import dsir
from gradex_fast.baselines.less import less, less_sgd
from gradex_fast.baselines.outcome import Outcome
from gradex_fast.baselines.plain import chance, everything, pretrained
from gradex_fast.baselines.rival import Rival
from gradex_fast.baselines.searches import ensemble_real, forward_real, gradex
from gradex_fast.baselines.trak import trak

RIVALS: dict[str, Callable[..., Outcome]] = {
    "gradex": gradex,
    "pretrained": pretrained,
    "all": everything,
    "random": Rival(chance),
    "dsir": Rival(dsir),
    "deft": Rival(deft),
    "deft_meta": Rival(partial(deft, trained=True), needs=("meta",)),
    "less": Rival(less, needs=("meta",)),
    "less_sgd": Rival(less_sgd, needs=("meta", "sketch")),
    "trak": Rival(trak, needs=("meta", "sketch")),
    "datamodel": Rival(datamodel, needs=("meta", "sketch", "estimate")),
    "forward_real": forward_real,
    "ensemble_real": ensemble_real,
}
"""Each is called with (run, keep=None, **its own options)."""

QUICK = tuple(name for name in RIVALS if not name.endswith("_real"))
"""Those that train no model for every subset."""

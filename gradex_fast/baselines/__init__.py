"""The rivals of the paper, and some beyond it, behind one interface: (run, keep) -> `Outcome`.

Each works on the corpus and the models of one run, returns a `Selection` (lower scores for better sources) and counts
what it cost. `RIVALS` names them; `compare` carries some of them out side by side.
"""

from __future__ import annotations

from gradex_fast.baselines.final import feature_transfer, finals
from gradex_fast.baselines.outcome import Outcome
from gradex_fast.baselines.real import RealEstimator
from gradex_fast.baselines.registry import QUICK, RIVALS
from gradex_fast.baselines.table import Row, check_names, compare
from gradex_fast.costs import Cost

__all__ = [
    "QUICK",
    "RIVALS",
    "Cost",
    "Outcome",
    "RealEstimator",
    "Row",
    "check_names",
    "compare",
    "feature_transfer",
    "finals",
]

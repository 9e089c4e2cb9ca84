"""Estimates to chosen sources: forward, backward and floating selection, random ensemble. Pure NumPy.

A score is lower for a better source. The ensemble's is T_i = mean f̂ over the subsets that hold i (Algorithm 3);
a greedy search's is the change of f̂ that source i makes in the chosen set: f̂(S) - f̂(S ∖ i) for a chosen one,
f̂(S ∪ i) - f̂(S) for another.
"""

from gradex_fast.constraints import Constraints
from gradex_fast.select.ensemble import random_ensemble
from gradex_fast.select.estimator import Estimator
from gradex_fast.select.greedy import backward_selection, floating_selection, forward_selection
from gradex_fast.select.sampling import SAMPLINGS, random_subsets
from gradex_fast.select.threshold import FEW, MOST

__all__ = [
    "FEW",
    "MOST",
    "SAMPLINGS",
    "Constraints",
    "Estimator",
    "backward_selection",
    "floating_selection",
    "forward_selection",
    "random_ensemble",
    "random_subsets",
]

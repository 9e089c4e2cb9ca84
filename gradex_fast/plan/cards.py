"""GPUs by name: dense bfloat16 peak and memory, as their vendor's data sheets have them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from gradex_fast.errors import GradexError

USABLE = 0.9
"""Of a card's memory; the rest is the driver's, libraries' work space, and gaps between tensors."""


class Card(NamedTuple):
    """A GPU.

    Attributes:
        flops: multiplications and additions a second in bfloat16, without sparsity, sums in float32.
        memory: GB of the data sheet; torch sees about as many GiB (139.8 of an H200's 141).
    """

    flops: float
    memory: int

    @property
    def usable(self) -> float:
        """Bytes for tensors."""
        return USABLE * self.memory * 2**30


CARDS = {
    # NVIDIA A100 Tensor Core GPU data sheet (nvidia-1758950-r4): BFLOAT16 312 TFLOPS, 624 with sparsity; 40 and 80 GB
    "A100-40": Card(312e12, 40),
    "A100-80": Card(312e12, 80),
    # NVIDIA H100 Tensor Core GPU data sheet, SXM: BFLOAT16 1,979 TFLOPS with sparsity, half of it without; 80 GB
    "H100": Card(989.5e12, 80),
    # NVIDIA H200 Tensor Core GPU data sheet, SXM: BFLOAT16 1,979 TFLOPS with sparsity, half of it without; 141 GB
    "H200": Card(989.5e12, 141),
    # NVIDIA L40S data sheet: BFLOAT16 362.05 TFLOPS, 733 with sparsity; 48 GB
    "L40S": Card(362.05e12, 48),
    # NVIDIA Ada GPU architecture white paper, appendix A: BF16 with FP32 accumulate 165.2 TFLOPS; 24 GB
    "RTX4090": Card(165.2e12, 24),
    # NVIDIA HGX B200 data sheet: FP16/BF16 36 PFLOPS of 8 GPUs with sparsity, half of it without; 8 × 180 GB
    "B200": Card(2250e12, 180),
}

UTILISATION = 0.4
"""Of the peak, in a pass through the model: an assumption. On an H200 Llama-3-8B with LoRA reached 0.40 (16 rows of 512
tokens), GPT-2 with all parameters 0.14 (64 rows of 128): small models and short rows stay far below."""

OWN_UTILISATION = 0.015
"""The same of the sketch's own arithmetic, most of which makes P and is no matrix product: an assumption, a little
below what an H200 reached: 0.034 (Llama-3-8B's adapters, d = 128) and 0.017 (GPT-2, all parameters, d = 100)."""


def named(names: Sequence[str] | None) -> dict[str, Card]:
    """The cards of these names; None: all.

    Raises:
        GradexError: an unknown name.
    """
    for name in names or ():
        if name not in CARDS:
            raise GradexError(f"--cards: {name!r} is not known; known: {', '.join(CARDS)}")
    return {name: CARDS[name] for name in names or CARDS}

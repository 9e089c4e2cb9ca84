"""Training rows that equal a held-out row: an error, or dropped and counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gradex_fast.errors import GradexError
from gradex_fast.types import Source


def without_overlap(training: Sequence[Source], held_out: Sequence[Source], drop: bool) -> list[Source]:
    """`training` without the examples whose digest is one of `held_out`'s; counts `overlapping`.

    Raises:
        GradexError: there are some and `drop` is false.
    """
    seen = {example.digest: example.id for source in held_out for example in source.examples}
    equal = [e for source in training for e in source.examples if e.digest in seen]
    if equal and not drop:
        first = equal[0]
        raise GradexError(
            f"{len(equal)} training rows equal a validation or test row, such as {first.id} and "
            f"{seen[first.digest]}; remove them or set data.on_overlap=drop"
        )
    return [_without(source, seen) for source in training]


def _without(source: Source, seen: dict[str, str]) -> Source:
    kept = tuple(example for example in source.examples if example.digest not in seen)
    return replace(source, examples=kept, overlapping=len(source.examples) - len(kept))

"""Rows in the few shapes that trainers know: prompt and completion, text, alpaca, messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gradex_fast.data.chat import turns_of
from gradex_fast.data.files import Row
from gradex_fast.errors import GradexError
from gradex_fast.export.mixture import Mixture, Piece, count_kinds
from gradex_fast.export.tables import Columns


def prompted(piece: Piece, end: str = "") -> Columns:
    """Columns prompt and completion; plain text is a completion of nothing. `end` closes completions without it."""
    texts = [one.completion for one in piece.completions]
    completions = [text if text.endswith(end) else text + end for text in texts]
    return {"prompt": [one.prompt for one in piece.completions], "completion": completions}


def plain(piece: Piece) -> Columns:
    return {"text": [one.completion for one in piece.completions]}


def alpaca(piece: Piece) -> Columns:
    """Columns instruction, input ("" where there is none), output."""
    return {name: [row.get(name) or "" for row in piece.rows] for name in ("instruction", "input", "output")}


def conversations(piece: Piece) -> list[list[dict[str, Any]]]:
    """The messages as the run's chat template saw them."""
    (column,) = piece.columns
    return [turns_of(Row(id, row), column) for id, row in zip(piece.ids, piece.rows, strict=True)]


def require_text_alone_or_messages_alone(mixture: Mixture, tool: str) -> bool:
    """Whether all rows are messages.

    Raises:
        GradexError: some are and some are not, or they are a classifier's.
    """
    refuse_classifiers(mixture, tool)
    kinds = count_kinds(mixture)
    if 0 < kinds["messages"] < mixture.rows:
        raise GradexError(
            f"{tool} takes one template for all rows, but {kinds['messages']} are messages and "
            f"{mixture.rows - kinds['messages']} are not; use --to axolotl, jsonl or hf-dataset"
        )
    return kinds["messages"] > 0


def refuse_classifiers(mixture: Mixture, tool: str) -> None:
    if mixture.recipe.model.task == "sequence-classification":
        raise GradexError(f"{tool} has no fine-tuning of classifiers; use --to jsonl or hf-dataset")
    if count_kinds(mixture)["said"]:
        raise GradexError(f"conversations in prompt and completion are not written for {tool}; use --to jsonl")


def keys_of(conversations: Sequence[Sequence[dict[str, Any]]]) -> set[str]:
    return {key for turns in conversations for turn in turns for key in turn}

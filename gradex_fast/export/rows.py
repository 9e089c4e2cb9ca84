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


def conversations(piece: Piece) -> Columns:
    """The messages as the run's chat template saw them: column messages, or prompt and completion."""
    names = ("messages",) if piece.kind == "messages" else ("prompt", "completion")
    rows = [Row(id, row) for id, row in zip(piece.ids, piece.rows, strict=True)]
    return {name: [turns_of(row, own) for row in rows] for name, own in zip(names, piece.columns, strict=True)}


def require_one_form(mixture: Mixture, tool: str) -> str:
    """What all rows are: "messages", "said" (messages in prompt and completion), or "text" of any kind.

    Raises:
        GradexError: they are not all the same, or a classifier's.
    """
    refuse_classifiers(mixture, tool)
    kinds = count_kinds(mixture)
    for form, name in (("messages", "messages"), ("said", "messages in prompt and completion")):
        if 0 < kinds[form] < mixture.rows:
            raise GradexError(
                f"{tool} takes one template for all rows, but {kinds[form]} are {name} and "
                f"{mixture.rows - kinds[form]} are not; use --to {'axolotl, ' if form == 'messages' else ''}jsonl or "
                "hf-dataset"
            )
        if kinds[form]:
            return form
    return "text"


def refuse_classifiers(mixture: Mixture, tool: str) -> None:
    if mixture.recipe.model.task == "sequence-classification":
        raise GradexError(f"{tool} has no fine-tuning of classifiers; use --to jsonl or hf-dataset")


def refuse_said(mixture: Mixture, tool: str) -> None:
    if count_kinds(mixture)["said"]:
        raise GradexError(f"conversations in prompt and completion are not written for {tool}; use --to trl or jsonl")


def keys_of(conversations: Sequence[Sequence[dict[str, Any]]]) -> set[str]:
    return {key for turns in conversations for turn in turns for key in turn}

"""Small tokenizers, files and recipes for the tests of `gradex_fast.data`."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from gradex_fast.recipe import Recipe

SPECIAL = ["<pad>", "<eos>", "<bos>", "[CLS]", "[SEP]", "<unk>"]
CHAT = (
    "{% for m in messages %}<bos>{{ m['role'] }}:{{ m['content'] }}<eos>\n{% endfor %}"
    "{% if add_generation_prompt %}<bos>assistant:{% endif %}"
)


def characters(*, bos: bool = False, pair: bool = False, **names: str) -> PreTrainedTokenizerFast:
    """One token a character. `bos`: adds <bos>; `pair`: BERT's [CLS] a [SEP] b [SEP]."""
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *string.printable])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    backend.add_special_tokens(SPECIAL)
    single, double = ("<bos> $A", None) if bos else ("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1")
    if bos or pair:
        tokens = [(token, vocabulary[token]) for token in ("<bos>", "[CLS]", "[SEP]")]
        backend.post_processor = processors.TemplateProcessing(single=single, pair=double, special_tokens=tokens)
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", **names)


def language_model(**options: Any) -> PreTrainedTokenizerFast:
    return characters(**{"eos_token": "<eos>", "pad_token": "<pad>"} | options)


def decoded(tokenizer: PreTrainedTokenizerFast, ids: Any) -> str:
    return "".join(tokenizer.convert_ids_to_tokens([int(i) for i in ids]))


def jsonl(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path.name


def pairs(*texts: str) -> list[dict[str, str]]:
    """``"2+2=4"`` is the prompt ``2+2=`` and the completion ``4``."""
    split = [text.partition("=") for text in texts]
    return [{"prompt": a + "=", "completion": b} for a, _, b in split]


def recipe(folder: Path, sources: Any, *, target: dict | None = None, model: Any = None, **data: Any) -> Recipe:
    """`sources`: the recipe's own form, or file names. The target's validation is one pair."""
    if target is None:
        target = {"validation": {"path": jsonl(folder / "held-out.jsonl", pairs("8+1=9"))}}
    if isinstance(sources, list):
        sources = [{"path": s} if isinstance(s, str) else s for s in sources]
    data = {"folder": str(folder), "sources": sources, "target": target, **data}
    return Recipe.build({"model": {"name": "none", **(model or {})}, "data": data})

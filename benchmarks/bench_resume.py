"""A whole run of a recipe killed (SIGKILL) in every stage and started again, beside one that was not: the same bits?

    python examples/multitask/prepare.py --data multitask_shared.jsonl.zst --out multitask --rows 12
    python benchmarks/bench_resume.py examples/multitask/recipe.yaml data.folder=multitask model.name=multitask/model

Prints the seconds of both, and every file that differs; exit status 1 if one does.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MOMENTS = {
    "meta-training": ("os.mkdir", r"/meta-\w+/checkpoint-\d+$"),
    "meta-model": ("open", r"/meta/adapter_model|/meta/model"),
    "sketches, the third shard": ("os.rename", r"sketches/\.train-000002"),
    "sketches, validation": ("os.rename", r"sketches/\.validation-000000"),
    "selection": ("os.rename", r"\.selection\.json"),
    "final training": ("os.mkdir", r"/final-\w+/checkpoint-\d+$"),
    "report": ("os.rename", r"\.report\.md"),
}
BITS = ("meta/*.safetensors", "sketches/*.safetensors", "final/*.safetensors", "subsets.parquet", "scores.csv")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--kill", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.kill:
        return killed_at(*asked.kill, [asked.recipe, *asked.overrides])
    with tempfile.TemporaryDirectory() as folder:
        whole, broken = Path(folder) / "whole", Path(folder) / "broken"
        begin = time.monotonic()
        subprocess.run(command(asked, whole), check=True)
        middle = time.monotonic()
        for name, moment in MOMENTS.items():
            status = subprocess.run(command(asked, broken, moment)).returncode
            print(
                f"killed in {name}: {'yes' if status == -signal.SIGKILL else f'no, exit status {status}'}", flush=True
            )
        subprocess.run(command(asked, broken), check=True)
        print(f"{middle - begin:.0f} s whole, {time.monotonic() - middle:.0f} s with {len(MOMENTS)} kills")
        found, wanted = outcome(broken), outcome(whole)
    different = sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
    print(f"{len(wanted)} outcomes, {len(different)} differ: {', '.join(different)}")
    return 1 if different else 0


def command(asked: argparse.Namespace, output: Path, moment: tuple[str, str] | None = None) -> list[str]:
    recipe = [asked.recipe, *asked.overrides, f"output={output}"]
    return [sys.executable, __file__, *recipe, "--kill", *(moment or ("none", "none"))]


def killed_at(event: str, path: str, arguments: list[str]) -> int:
    from gradex_fast.cli import main

    def watch(name: str, details: tuple) -> None:
        if name == event and re.search(path, str(details[0])):
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    return main(["run", *arguments, "--quiet"])


def outcome(run: Path) -> dict[str, str]:
    """What must not differ: files by their digest, and the selection without its time."""
    files = [path for pattern in BITS for path in run.glob(pattern)]
    found = {str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    selection = json.loads((run / "selection.json").read_text())
    return found | {
        "selection.json": json.dumps({k: v for k, v in selection.items() if k != "seconds"}, sort_keys=True)
    }


if __name__ == "__main__":
    sys.exit(main())

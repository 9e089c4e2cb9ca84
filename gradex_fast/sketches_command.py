"""`gradex-fast sketches`: a run's sketches for attribution tools. Heavy imports wait until the command needs them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gradex_fast.commands import OVERRIDES, add_command
from gradex_fast.terminal import calm_libraries, say, show

FORMS = ("bergson", "trak", "npy", "safetensors")

_OPENED_BY = {
    "bergson": "bergson.data.load_gradients({0}/train), or load_gradient_dataset",
    "trak": "TRAKer(..., save_dir={0}, use_half_precision=False); finalize_features(), finalize_scores('validation')",
    "npy": "numpy.load({0}/train/sketches.npy, mmap_mode='r')",
    "safetensors": "safetensors.numpy.load_file({0}/train/sketches.safetensors)",
}


def add_sketches(commands: Any) -> None:
    text = "write a run's sketches, with the rows' ids, margins and losses, in the form of another tool"
    command = add_command(commands, "sketches", text)
    command.add_argument("run", type=Path, help="the run's folder, or its recipe")
    command.add_argument("overrides", **OVERRIDES)
    command.add_argument("--to", required=True, choices=FORMS)
    command.add_argument("--out", type=Path, help="folder (default: exports/sketches-FORM in the run's folder)")
    command.set_defaults(command=_sketches)


def _sketches(options: argparse.Namespace) -> int:
    calm_libraries()
    from gradex_fast.run_sketches import export_sketches

    made = export_sketches(options.run, options.to, options.out, tuple(options.overrides), options.overwrite)
    show(made, _print, options)
    return 0


def _print(made: dict[str, Any], console: Any) -> None:
    rows = " and ".join(f"{count:,} {split}" for split, count in made["rows"].items())
    say(console, f"sketches of {rows} rows, {made['dim']} columns: {made['folder']}")
    if broken := sum(made["not_finite"].values()):
        as_zeros = ", written as zeros" if made["form"] == "trak" else ""
        say(console, f"note: {broken:,} rows have no finite gradient{as_zeros}")
    say(console, f"opened by {_OPENED_BY[made['form']].format(made['folder'])}")

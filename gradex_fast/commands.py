"""Commands around a run: what it will take, what it chose for other tools, whether this installation is right.

Heavy imports wait until a command needs them.
"""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import Any

from gradex_fast.terminal import calm_libraries, say, show

EXPORTS = ("trl", "axolotl", "llamafactory", "jsonl", "hf-dataset")


def add_export(commands: Any) -> None:
    command = commands.add_parser("export", help="write a finished run's chosen rows in the form of another tool")
    command.add_argument("run", type=Path, help="the run's folder, or its recipe")
    command.add_argument("overrides", nargs="*", metavar="section.key=value")
    command.add_argument("--to", required=True, choices=EXPORTS)
    command.add_argument("--out", type=Path, help="folder (default: exports/TOOL in the run's folder)")
    command.set_defaults(command=_export)


def _export(options: argparse.Namespace) -> int:
    calm_libraries()
    from gradex_fast.export import export

    made = export(options.run, options.to, options.out, tuple(options.overrides), options.overwrite)
    show(made, _print_export, options)
    return 0


def _print_export(made: dict[str, Any], console: Any) -> None:
    sources = len({piece["source"] for piece in made["pieces"]})
    say(console, f"{made['rows']:,} rows of {sources} sources: {made['folder']}")
    for note in made["notes"]:
        say(console, f"note: {note}")
    if "command" in made:
        say(console, f"train ({made['for']}): cd {shlex.quote(made['folder'])} && {made['command']}")

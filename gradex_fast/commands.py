"""Commands around a run: what it will take, what it chose for other tools, whether this installation is right.

Heavy imports wait until a command needs them.
"""

from __future__ import annotations

import argparse
import json
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gradex_fast.terminal import calm_libraries, say, show

RECIPE = {"type": Path, "help": "a YAML file, or the name of one that `gradex-fast recipes` lists"}
OVERRIDES = {"nargs": "*", "metavar": "section.key=value", "help": "of the recipe; or another recipe to lay over it"}
EXPORTS = ("trl", "axolotl", "llamafactory", "jsonl", "hf-dataset")


def add_command(commands: Any, name: str, text: str) -> argparse.ArgumentParser:
    """A command whose own --help says what the list of commands says."""
    return commands.add_parser(name, help=text, description=text)


def add_plan(commands: Any) -> None:
    command = add_command(commands, "plan", "rows, memory, disk and hours on named GPUs; reads no weights")
    command.add_argument("recipe", **RECIPE)
    command.add_argument("overrides", **OVERRIDES)
    command.add_argument("--cards", nargs="+", metavar="CARD", help="such as H100 H200 (default: all that are known)")
    command.add_argument("--utilisation", type=float, metavar="SHARE", help="of a card's bfloat16 peak (default: 0.4)")
    command.set_defaults(command=_plan)


def _plan(options: argparse.Namespace) -> int:
    from gradex_fast.recipe import Recipe

    words = options.cards or []
    recipe = Recipe.load(options.recipe, (*options.overrides, *(word for word in words if "=" in word)))
    calm_libraries()
    from gradex_fast.plan import forecast, print_forecast

    assumed = {} if options.utilisation is None else {"utilisation": options.utilisation}
    found = forecast(recipe, [word for word in words if "=" not in word] or None, **assumed)
    show(found, print_forecast, options)
    return 0


def add_doctor(commands: Any) -> None:
    command = add_command(commands, "doctor", "versions, CPU, CUDA, and every kernel against its specification")
    command.set_defaults(command=_doctor)


def _doctor(options: argparse.Namespace) -> int:
    """Plain print: what prints prettily may be what is broken."""
    from gradex_fast.doctor import examine

    lines = []
    for line in examine():
        lines.append(line)
        if not options.json and (line.status == "wrong" or not options.quiet):
            print(line, flush=True)
    wrong = sum(line.status == "wrong" for line in lines)
    if options.json:
        print(json.dumps({"right": not wrong, "lines": [asdict(line) for line in lines]}, indent=2))
    elif wrong or not options.quiet:
        print(f"{wrong} of {len(lines)} are wrong" if wrong else "nothing is wrong")
    return 1 if wrong else 0


def add_export(commands: Any) -> None:
    command = add_command(commands, "export", "write a finished run's chosen rows in the form of another tool")
    command.add_argument("run", type=Path, help="the run's folder, or its recipe")
    command.add_argument("overrides", **OVERRIDES)
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

"""Commands on runs that are finished: their report again, and one run beside another. Neither needs model or data."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gradex_fast.errors import GradexError
from gradex_fast.terminal import say, show


def add_report(commands: Any) -> None:
    text = "write a run's report again from what lies in its folder; nothing is trained"
    command = commands.add_parser("report", help=text, description=text)
    command.add_argument("run", type=Path, help="the run's folder, or its recipe")
    command.set_defaults(command=_report)


def _report(options: argparse.Namespace) -> int:
    from gradex_fast.rewrite import rewrite

    show(rewrite(options.run), lambda made, console: say(console, f"report: {made['report']}"), options)
    return 0


def compare_runs(options: argparse.Namespace) -> int:
    """`compare` where its first argument is a folder."""
    from gradex_fast.between import between
    from gradex_fast.between_show import print_between

    if options.rivals or options.keep or options.finetune or options.overwrite:
        raise GradexError("compare: --rivals, --keep, --finetune and --overwrite go with a recipe, not with runs")
    show(between([options.recipe, *map(Path, options.overrides)]), print_between, options)
    return 0

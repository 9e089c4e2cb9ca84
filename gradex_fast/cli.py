"""Command line to recipe to pipeline. Heavy imports wait until a command needs them."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gradex_fast.bench.command import add_bench
from gradex_fast.commands import OVERRIDES, RECIPE, add_command, add_doctor, add_export, add_plan
from gradex_fast.errors import GradexError
from gradex_fast.extras import needed_for
from gradex_fast.finished_commands import add_report, compare_runs
from gradex_fast.ranks import Ranks, require_alone
from gradex_fast.sketches_command import add_sketches
from gradex_fast.terminal import calm_libraries
from gradex_fast.terminal import show as _show
from gradex_fast.termination import Terminated, terminable

STAGE_COMMANDS = {
    "run": ("report", "the whole recipe; called again it goes on from where it stopped"),
    "prepare": ("prepare", "read, check and tokenise the data"),
    "meta": ("meta", "... and train once on everything"),
    "sketch": ("sketch", "... and project every sample's gradient"),
    "cluster": ("cluster", "... and cut raw rows into clusters, where the recipe says so"),
    "estimate": ("estimate", "... and fine-tune the anchors, calibrate the estimate"),
    "select": ("select", "... and choose the sources"),
    "finetune": ("finetune", "... and train the final model"),
}
REQUIRED_AUC = 0.9


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0: done. 1: the demo's AUC is under 0.9, `doctor` found fault, or an extra is not installed.

    2: a mistake; the message names it.
    130: interrupted. 143: terminated (SIGTERM); a training has first saved the step that it was in.
    """
    options = _parsed(arguments)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        with terminable():
            return options.command(options)
    except GradexError as error:
        print(f"gradex-fast: {error}", file=sys.stderr)
        return 2
    except ImportError as error:
        if not (needed := needed_for(error)):
            raise
        print(f"gradex-fast {needed}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"gradex-fast: {error}; finished stages are kept, the same command goes on from here", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("gradex-fast: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    except Terminated:
        print("gradex-fast: terminated; the same command goes on from here", file=sys.stderr)
        return 143


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Overrides may stand anywhere among the options, where argparse alone wants them in one piece."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and ("overrides" not in options or any(text.startswith("-") for text in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        options.overrides += rest
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gradex-fast", description="Which data to fine-tune on.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    demo = add_command(commands, "demo", "noisy addition end to end, nothing downloaded; an installation check")
    demo.add_argument("--short", action="store_true", help="a smaller run, for continuous integration")
    demo.add_argument("--seed", type=int, default=0)
    demo.add_argument("--out", type=Path, help="output folder (default runs/demo-SEED)")
    demo.set_defaults(command=_demo)
    for name, (until, text) in STAGE_COMMANDS.items():
        command = add_command(commands, name, text)
        command.add_argument("recipe", **RECIPE)
        command.add_argument("overrides", **OVERRIDES)
        command.add_argument("--dry-run", action="store_true", help="print rows, tokens, time and disk; write nothing")
        if name == "sketch":
            share = "only every n-th shard, i = 0 ... n - 1: one task of a Slurm array"
            command.add_argument("--shard", metavar="i/n", help=share)
        command.set_defaults(command=_run, until=until, shard=None)
    rivals = add_command(
        commands, "compare", "... and choose by other methods too (DSIR, LESS, ...); or two runs or more"
    )
    rivals.add_argument("recipe", type=Path, help="a recipe, with overrides after it; or a run's folder, with others")
    rivals.add_argument("overrides", **OVERRIDES)
    rivals.add_argument("--rivals", nargs="+", metavar="NAME", help="which (default: all that train no model a subset)")
    rivals.add_argument("--keep", type=int, metavar="K", help="sources that each keeps (default: as many as it likes)")
    rivals.add_argument("--finetune", action="store_true", help="train a model on each choice and measure it")
    rivals.set_defaults(command=_compare)
    _add_diagnose(commands)
    add_export(commands)
    add_sketches(commands)
    for command in set(commands.choices.values()):
        command.add_argument("--overwrite", action="store_true", help="throw away what an earlier run left there")
    add_plan(commands)
    add_doctor(commands)
    add_report(commands)
    _add_readers(commands)
    for command in set(commands.choices.values()):
        command.add_argument("--quiet", action="store_true", help="print results and warnings only")
        command.add_argument("--json", action="store_true", help="print results as JSON, nothing else, on stdout")
    add_bench(commands)
    return parser


def _add_readers(commands: Any) -> None:
    """Commands that write nothing."""
    text = "what is trained on, token by token: id, text, and whether the loss is taken on it"
    command = add_command(commands, "preview", text)
    command.add_argument("recipe", **RECIPE)
    command.add_argument("overrides", **OVERRIDES)
    command.add_argument("--rows", type=int, default=2, metavar="N", help="of each source (default 2)")
    command.add_argument("--source", metavar="NAME", help="this one alone, or target-validation, ...")
    command.set_defaults(command=_preview)
    recipes = add_command(commands, "recipes", "the recipes that come with gradex_fast; with a name, that recipe")
    recipes.add_argument("name", nargs="?", help="print this one's YAML")
    recipes.set_defaults(command=_recipes)


def _add_diagnose(commands: Any) -> None:
    text = "how good the estimates are: the expansion, f̂ against f, dimension, ridge and margin"
    command = add_command(commands, "diagnose", text)
    command.add_argument("recipe", **RECIPE)
    command.add_argument("overrides", **OVERRIDES)
    names = "rrss truth dim ridge (the default), curvature"
    command.add_argument("--parts", nargs="+", metavar="PART", help=f"which of {names}")
    command.set_defaults(command=_diagnose)


def _preview(options: argparse.Namespace) -> int:
    from gradex_fast.recipe import Recipe

    recipe = Recipe.load(options.recipe, tuple(options.overrides))
    calm_libraries()
    from gradex_fast.preview import preview, print_preview

    _show(preview(recipe, options.rows, options.source), print_preview, options)
    return 0


def _recipes(options: argparse.Namespace) -> int:
    from gradex_fast import packaged

    if options.name:
        text = packaged.text(options.name)
        if options.json:
            text = json.dumps({"name": options.name, "yaml": text}, indent=2) + "\n"
        print(text, end="")
        return 0
    found = [recipe._asdict() for recipe in packaged.listed()]
    _show(found, packaged.show, options)
    return 0


def _diagnose(options: argparse.Namespace) -> int:
    require_alone("diagnose")
    from gradex_fast.recipe import Recipe

    parts = [text for text in options.parts or () if "=" not in text]
    overrides = [*options.overrides, *(text for text in options.parts or () if "=" in text)]
    recipe = Recipe.load(options.recipe, tuple(overrides))
    calm_libraries()
    from gradex_fast.diagnose import DEFAULT, diagnose, output

    found = diagnose(recipe, parts or DEFAULT, reporter=_reporter(options), overwrite=options.overwrite)
    shown = {**found.parts, "cost": found.cost}
    _show(output.values(shown), lambda _, console: _print_diagnosis(found, console), options)
    return 0


def _print_diagnosis(found: Any, console: Any) -> None:
    from gradex_fast.diagnose import output

    output.show({**found.parts, "cost": found.cost}, console)
    console.print(f"diagnosis: {found.folder}", markup=False, highlight=False, soft_wrap=True)


def _run(options: argparse.Namespace) -> int:
    from gradex_fast.recipe import Recipe

    recipe = Recipe.load(options.recipe, tuple(options.overrides))
    calm_libraries()
    if options.dry_run:
        from gradex_fast.plan import plan, print_plan

        _show(plan(recipe), print_plan, options)
        return 0
    from gradex_fast import joint
    from gradex_fast.pipeline import run
    from gradex_fast.progress import Reporter

    ranks = Ranks.of(options.shard) if options.shard else Ranks.here()
    reporter = _reporter(options) if ranks.leads else Reporter.silent()
    finished = run(recipe, until=options.until, overwrite=options.overwrite, reporter=reporter, ranks=ranks)
    joint.leave()
    if ranks.leads:
        _conclude(finished, options)
    return 0


def _compare(options: argparse.Namespace) -> int:
    if options.recipe.is_dir():
        return compare_runs(options)
    require_alone("compare")
    from gradex_fast.recipe import Recipe

    recipe = Recipe.load(options.recipe, tuple(options.overrides))
    calm_libraries()
    from gradex_fast.baselines import check_names, compare, finals, show
    from gradex_fast.files import write_json
    from gradex_fast.pipeline import run

    check_names(options.rivals)
    current = run(recipe, until="select", overwrite=options.overwrite, reporter=_reporter(options))
    with current.reporter:
        rows = compare(current, options.rivals, options.keep)
        found = show.values(rows, finals(current, rows) if options.finetune else {})
    write_json(current.path / "rivals" / "compare.json", found)
    _show(found, lambda _, console: console.print(show.printed(found)), options)
    return 0


def _demo(options: argparse.Namespace) -> int:
    require_alone("demo")
    calm_libraries()
    import torch

    from gradex_fast import demo, pipeline

    torch.set_num_threads(1)  # the model is so small that a second thread costs more than it brings
    folder = options.out or Path("runs") / f"demo-{options.seed}"
    size = demo.SHORT if options.short else demo.FULL
    made = demo.make_demo(folder, options.seed, size)
    named = {"compare": made.compare, "labels": made.labels}
    finished = pipeline.run(made.recipe, reporter=_reporter(options), overwrite=options.overwrite, **named)
    _conclude(finished, options)
    auc = json.loads((finished.path / "metrics.json").read_text())["auc"]
    if auc < REQUIRED_AUC:
        print(f"gradex-fast: AUC {auc:.2f} is under {REQUIRED_AUC}: this installation is not right", file=sys.stderr)
    return 0 if auc >= REQUIRED_AUC else 1


def _conclude(finished, options: argparse.Namespace) -> None:
    from gradex_fast.summary import print_summary

    if finished.summary:
        metrics = json.loads((finished.path / "metrics.json").read_text(encoding="utf-8"))
        _show(metrics, lambda _, console: print_summary(finished, console), options)
    else:
        chosen = [finished.corpus.names[index] for index in finished.selection.chosen] if finished.selection else None
        made = {"output": str(finished.path), "chosen": chosen, "seconds": finished.reporter.seconds}
        _show(made, _print_chosen, options)


def _print_chosen(made: dict[str, Any], console: Any) -> None:
    if made["chosen"] is not None:
        names = ", ".join(made["chosen"]) or "no source"
        console.print(f"chosen: {names}", markup=False, highlight=False, soft_wrap=True)


def _reporter(options: argparse.Namespace):
    from gradex_fast.progress import Reporter

    return Reporter(quiet=options.quiet or options.json)

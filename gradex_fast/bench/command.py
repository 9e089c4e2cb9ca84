"""The command line of `gradex-fast bench`. Heavy imports wait until it is known what to do."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gradex_fast.commands import add_command
from gradex_fast.errors import GradexError
from gradex_fast.ranks import require_alone
from gradex_fast.terminal import calm_libraries, show
from gradex_fast.termination import Terminated

_LISTS = ("distributions", "parts")
_NUMBERS = {
    "rank": "of LoRA",
    "rows": "of a batch (default 8)",
    "tokens": "of every row (default 128)",
    "dim": "d of the sketch and of the regressions (default 100)",
    "samples": "training rows of the subset problem (default 12,800)",
    "sources": "that they come from (default 100)",
    "subsets": "that are solved together (default 1,000)",
    "threads": "(default: torch's number)",
    "repeats": "rounds of every case, at most (default 7)",
}


def add_bench(commands: Any) -> None:
    """Every option is a field of `BenchSettings`, which has the defaults and the bounds."""
    text = "how fast kernels, passes and the subset solver are here, beside what this machine allows"
    command = add_command(commands, "bench", text)
    command.add_argument(
        "--model", help="gpt2, llama-3-8b, llama-3.2-1b, minilm, tiny, or a configuration: file, folder, hub id"
    )
    command.add_argument("--adapter", help="lora (the default) or full: all parameters")
    command.add_argument("--targets", metavar="PATTERN", help="which layers have adapters (default: all-linear)")
    command.add_argument("--dtype", help="float32 or bfloat16 (default: bfloat16 on a GPU)")
    command.add_argument("--device", help="cpu or cuda (default: the GPU where there is one)")
    command.add_argument("--parts", nargs="+", metavar="PART", help="which of kernels pass solve (default: all)")
    command.add_argument(
        "--distributions", nargs="+", metavar="NAME", help="gaussian (the default) rademacher tensorsketch"
    )
    for name, help_text in _NUMBERS.items():
        command.add_argument(f"--{name}", type=int, metavar="N", help=help_text)
    command.add_argument("--seconds", type=float, metavar="S", help="of rounds for every case, about (default 20)")
    files = {"nargs": 2, "type": Path, "metavar": ("A.json", "B.json")}
    command.add_argument("--compare", **files, help="measure nothing: two result files case by case")
    place = "print JSON, nothing else, on stdout; with FILE, write it there after every case, and print the table"
    command.add_argument("--json", nargs="?", const=True, default=False, metavar="FILE", help=place)
    command.add_argument("--quiet", action="store_true", help="print results and warnings only")
    command.set_defaults(command=_bench)


def _bench(options: argparse.Namespace) -> int:
    require_alone("bench")
    out = _output(options)
    if options.compare:
        return _compare(options, out)
    from gradex_fast.bench.settings import BenchSettings

    given = {name: getattr(options, name) for name in BenchSettings.model_fields}
    given |= {name: given[name] and tuple(given[name]) for name in _LISTS}
    settings = BenchSettings.of(**{name: value for name, value in given.items() if value is not None})
    calm_libraries()
    from gradex_fast.bench.run import bench
    from gradex_fast.bench.show import print_results
    from gradex_fast.files import write_json

    def keep(results: Any) -> None:
        if out:
            write_json(out, results.model_dump(mode="json"))

    try:
        found = bench(settings, _speaker(options), keep)
    except (KeyboardInterrupt, Terminated) as stop:
        kept = f"; {out} has what was measured" if out and out.exists() else ""
        print(f"gradex-fast: stopped{kept}", file=sys.stderr)
        return 130 if isinstance(stop, KeyboardInterrupt) else 143
    if not found.cases:
        reasons = [f"{each.name}: {each.why}" for each in found.left_out] or ["no parameter is trained"]
        raise GradexError(f"bench: nothing was measured: {reasons[0]}")
    show(found.model_dump(mode="json"), lambda _, console: print_results(found, console), _shown(options))
    return 0


def _compare(options: argparse.Namespace, out: Path | None) -> int:
    from gradex_fast.bench.compare import compare
    from gradex_fast.bench.results import Results
    from gradex_fast.bench.show import print_comparison
    from gradex_fast.files import write_json

    found = compare(*map(Results.read, options.compare))
    if out:
        write_json(out, found.values())
    show(found.values(), lambda _, console: print_comparison(found, console), _shown(options))
    return 0


def _output(options: argparse.Namespace) -> Path | None:
    """The file that --json names. Raises `GradexError` where it cannot be one."""
    if options.json in (True, False):
        return None
    path = Path(options.json)
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise GradexError(f"bench --json {path}: a file in a folder that exists is wanted")
    return path


def _shown(options: argparse.Namespace) -> argparse.Namespace:
    """JSON on stdout only where no file was named."""
    return argparse.Namespace(json=options.json is True)


def _speaker(options: argparse.Namespace) -> Callable[[str], None]:
    """Plain lines: a live bar would take turns with what is measured."""
    quiet = options.quiet or options.json is True

    def speak(line: str) -> None:
        if not quiet:
            print(line, file=sys.stderr, flush=True)

    return speak

"""One command for a machine with a GPU: build in place, test, sanitize, measure, report.

    python benchmarks/gpu_check.py --out gpu                 # under 9 minutes
    python benchmarks/gpu_check.py --out gpu --only llama    # some steps, with what is built
    python benchmarks/gpu_check.py --out gpu --dry-run       # on any machine: every host-side step, at tiny sizes

Writes gpu_check.json and gpu_check.md in the folder, after every step, and each step's output under logs/. Exit status
1: the build, a test, a sanitizer, a measure's process or a check of correctness failed. A speed that is not reached is
marked in the table and does not change the exit status: it depends on the card. Nothing is downloaded, and the
device's settings are only read.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path

import gpu_report
import gpu_steps
from gpu_measures import MEASURES

TOTAL = 535
"""Seconds of the whole command, at most."""

BUDGETS = {
    "machine": 20,
    "build": 70,
    "tests": 70,
    "small": 20,
    "memcheck": 35,
    "racecheck": 30,
    "rates": 15,
    "shapes": 15,
    "layer": 12,
    "errors": 15,
    "devices": 25,
    "gpt2": 40,
    "llama": 50,
    "alpaca": 75,
    "hooks": 40,
}
"""Seconds that each step may take, in their order, or twice that where earlier ones left so much over."""

NEEDED = ("machine", "build")
"""Without these the rest makes no sense."""

STEPS = {
    "machine": gpu_steps.machine,
    "build": gpu_steps.build,
    "tests": gpu_steps.tests,
    "small": gpu_steps.small,
    "memcheck": partial(gpu_steps.sanitizer, tool="memcheck"),
    "racecheck": partial(gpu_steps.sanitizer, tool="racecheck"),
    **{name: partial(gpu_steps.measure, name=name) for name in MEASURES},
}
assert set(STEPS) == set(BUDGETS) and sum(BUDGETS.values()) <= TOTAL


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the report and the logs")
    parser.add_argument("--dry-run", action="store_true", help="without a GPU; no figure means anything")
    parser.add_argument("--only", nargs="+", choices=[*BUDGETS], default=[*BUDGETS], help="some of the steps")
    parser.add_argument("--seconds", type=float, default=TOTAL, help="for everything; later steps may be left out")
    parser.add_argument("--commit", help="what to call the code where git cannot say")
    options = parser.parse_args()
    options.only = [name for name in BUDGETS if name in {"machine", *options.only}]
    return options


def limit(name: str, left: float, later: list[str]) -> float | None:
    """Seconds that a step may take: its own, and as much again where later ones do not need it. None: too few left."""
    own, reserved = BUDGETS[name], sum(BUDGETS[each] for each in later)
    allowed = min(left, 2 * own, max(own, left - reserved))
    return allowed if allowed >= own / 2 else None


def run_step(name: str, check: gpu_steps.Check, allowed: float | None, missing: str | None) -> dict:
    began = time.monotonic()
    if missing:
        found = gpu_steps.result("skipped", f"{missing} failed")
    elif allowed is None:
        found = gpu_steps.result("skipped", "no time was left")
    else:
        found = STEPS[name](check, allowed)
    spent = {"seconds": round(time.monotonic() - began, 1), "may take": None if allowed is None else round(allowed)}
    print(f"{name:>10}  {found['status']:<9} {spent['seconds']:6.1f} s  {found['note'][:200]}", flush=True)
    return {"step": name, **spent, **found}


def require_device(check: gpu_steps.Check) -> None:
    found = check.machine.get("device", {})
    if not check.dry and found.get("capability") is None:
        raise SystemExit(f"{found.get('name', 'the device could not be asked')}: --dry-run runs the host side")


def main() -> int:
    options, began = parse(), time.monotonic()
    check = gpu_steps.Check(options.out.resolve(), options.dry_run)
    (check.folder / "logs").mkdir(parents=True, exist_ok=True)
    steps, missing, text = [], None, ""
    for index, name in enumerate(options.only):
        allowed = limit(name, options.seconds - (time.monotonic() - began), options.only[index + 1 :])
        steps.append(run_step(name, check, allowed, missing))
        if name == "machine":
            require_device(check)
            check.machine["commit"] = options.commit or check.machine["commit"]
        if name in NEEDED and steps[-1]["status"] in gpu_report.BAD:
            missing = name
        report = {"dry run": check.dry, "machine": check.machine, "repeats": 5, "steps": steps}
        text = gpu_report.write(report, check.folder)
    print(f"\n{text}\n{time.monotonic() - began:.0f} s; {check.folder}/gpu_check.json, gpu_check.md")
    return int(gpu_report.failed(report))


if __name__ == "__main__":
    raise SystemExit(main())

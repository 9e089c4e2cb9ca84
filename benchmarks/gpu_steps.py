"""The steps of `gpu_check.py`: what each runs, and what it makes of the output."""

from __future__ import annotations

import json
import os
import re
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gpu_machine
from gpu_process import Outcome, run_within

BENCHMARKS = Path(__file__).resolve().parent
ROOT = BENCHMARKS.parent
FINDINGS = 86
"""compute-sanitizer's exit status when it found something, told from the script's own."""

QUICK = ("--device", "cpu", "--quick")


@dataclass
class Check:
    """One run of the whole command. Attributes: folder: for all files. machine: `gpu_machine.facts`."""

    folder: Path
    dry: bool
    machine: dict[str, Any] = field(default_factory=dict)

    def run(self, name: str, seconds: float, *command: str | Path, **environment: str) -> Outcome:
        """A command in the checkout, with its package; no network is asked for anything."""
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        own = {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1", **environment}
        return run_within(seconds, [str(part) for part in command], self.folder / "logs" / f"{name}.log", ROOT, own)


Result = dict[str, Any]


def result(status: str, note: str = "", rows: list | None = None, tail: list[str] | None = None) -> Result:
    """status: ok, failed, timed out, or why nothing was run. tail: the output's last lines, if it is bad."""
    return {"status": status, "note": note, "rows": rows or [], "tail": tail or []}


def of(outcome: Outcome, note: str = "", rows: list | None = None) -> Result:
    return result(outcome.status, note, rows, [] if outcome.code == 0 else outcome.tail())


def machine(check: Check, seconds: float) -> Result:
    """The device and the versions, asked for in a process that does not stay."""
    outcome = check.run("machine", seconds, sys.executable, BENCHMARKS / "gpu_machine.py")
    if outcome.code == 0:
        check.machine = json.loads(outcome.text.splitlines()[-1])
    return of(outcome, str(check.machine.get("device", {}).get("name", "")))


def build(check: Check, seconds: float) -> Result:
    """The extension in place, for this device's architecture alone."""
    capability = check.machine["device"]["capability"] or "<capability>"
    settings = {"GRADEX_CUDA": "1", "GRADEX_CUDA_ARCH": capability.replace(".", "")}
    command = [sys.executable, "setup.py", "build_ext", "--inplace"]
    shown = " ".join([*(f"{name}={value}" for name, value in settings.items()), *_shown(command)])
    if check.dry:
        return result("printed", shown)
    if nvcc := gpu_machine.cuda_tool("nvcc"):
        settings["CUDA_HOME"] = os.environ.get("CUDA_HOME") or str(Path(nvcc).parents[1])
    outcome = check.run("build", seconds, *command, **settings)
    if outcome.code != 0:
        return of(outcome, shown)
    asked = "from gradex_fast import native; assert native.CUDA_BUILT, 'built without CUDA'"
    return of(check.run("import", max(20, seconds - outcome.seconds), sys.executable, "-c", asked), shown)


def tests(check: Check, seconds: float) -> Result:
    """Every test that needs a device; in a dry run they are only collected."""
    junit, options = check.folder / "logs" / "tests.xml", ["--continue-on-collection-errors", "-p", "no:cacheprovider"]
    options += ["--collect-only", "-q"] if check.dry else ["-v", "--tb=short", f"--junit-xml={junit}"]
    junit.unlink(missing_ok=True)
    outcome = check.run("tests", seconds, sys.executable, "-m", "pytest", "-m", "cuda", *options)
    if check.dry:
        found = re.findall(r"^.*tests? collected.*$", outcome.text, re.MULTILINE)
        return result("ok", found[-1].strip("= ")) if found else of(outcome)
    ended = junit.exists()
    counts, wrong = read_junit(junit) if ended else read_log(outcome.text)
    said = [", ".join(f"{count} {what}" for what, count in counts.items()), *wrong]
    said += [] if ended and outcome.code is not None else [f"it ended in {last_test(outcome.text)}"]
    good = ended and counts["passed"] > 0 and all(name.startswith(MISSING) for name in wrong)
    status = "timed out" if outcome.code is None else "ok" if good else "failed"
    return result(status, "; ".join(said), tail=[] if good else outcome.tail(80))


MISSING = "not collected: "
"""Before a file that imports a package which this machine lacks: no failure of what is tested."""


def read_junit(path: Path) -> tuple[dict[str, int], list[str]]:
    """Counts, and the names of tests that failed and of files that could not be collected."""
    counts, wrong = {"passed": 0, "failed": 0, "skipped": 0}, []
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        name = "::".join(filter(None, [case.get("classname"), case.get("name")]))
        bad = next((found for kind in ("failure", "error") if (found := case.find(kind)) is not None), None)
        if bad is None:
            counts["passed" if case.find("skipped") is None else "skipped"] += 1
            continue
        lacking = re.search(r"No module named '?([\w.]+)", f"{bad.get('message')} {bad.text}")
        if bad.get("message") == "collection failure" and lacking and not lacking[1].startswith("gradex_fast"):
            wrong.append(f"{MISSING}{name} (no {lacking[1]})")
        else:
            counts["failed"] += 1
            wrong.append(name)
    return counts, wrong


def read_log(text: str) -> tuple[dict[str, int], list[str]]:
    """The same from pytest's lines so far, where it did not come to its end."""
    done = re.findall(r"^(\S+::.*?) (PASSED|FAILED|ERROR|SKIPPED)", text, re.MULTILINE)
    words = {"passed": ("PASSED",), "failed": ("FAILED", "ERROR"), "skipped": ("SKIPPED",)}
    counts = {what: sum(word in those for _, word in done) for what, those in words.items()}
    return counts, [name for name, word in done if word in words["failed"]]


def last_test(text: str) -> str:
    """The test that pytest began last."""
    return next(iter(re.findall(r"^(\S+::\S+)", text, re.MULTILINE)[::-1]), "none of the tests")


def small(check: Check, seconds: float) -> Result:
    """`gpu_small.py` as it is, with torch's allocator poisoned."""
    device = "cpu" if check.dry else "cuda"
    allowed = max(1.0, seconds - 10)
    outcome = check.run("small", seconds, *_small(device, allowed))
    return of(outcome, _last(outcome))


def sanitizer(check: Check, seconds: float, tool: str) -> Result:
    """`gpu_small.py` under compute-sanitizer, each tensor in memory of its own so that no overrun stays inside one."""
    found = gpu_machine.cuda_tool("compute-sanitizer")
    if found is None:
        return result("absent", "no compute-sanitizer in CUDA_HOME/bin, on the path or in /usr/local/cuda/bin")
    command = [found, "--tool", tool, "--error-exitcode", str(FINDINGS), "--print-limit", "20"]
    command += ["--report-api-errors", "no"] if tool == "memcheck" else []  # torch asks for what may not be there
    command += _small("cuda", max(1.0, seconds - 20))
    if check.dry:
        return result("printed", " ".join(_shown(command)))
    outcome = check.run(tool, seconds, *command, PYTORCH_NO_CUDA_MEMORY_CACHING="1")
    if "Device not supported" in outcome.text:
        return result("absent", "compute-sanitizer does not support this device", tail=outcome.tail())
    said = re.findall(r"^=+ ((?:ERROR|RACECHECK) SUMMARY.*)$", outcome.text, re.MULTILINE)
    cases = re.findall(r"^\d+ of \d+ cases.*$", outcome.text, re.MULTILINE)
    return of(outcome, "; ".join([*said, *cases]))


def measure(check: Check, seconds: float, name: str) -> Result:
    """One of `gpu_measures.MEASURES`; the rows that it wrote before it failed count."""
    out = check.folder / "logs" / f"{name}.json"
    out.unlink(missing_ok=True)
    command = [sys.executable, BENCHMARKS / "gpu_measures.py", name, "--out", out, *(QUICK if check.dry else ())]
    outcome = check.run(name, seconds, *command)
    found = json.loads(out.read_text()) if out.exists() else {"rows": [], "error": "it did not start"}
    return of(outcome, found["error"] or "", found["rows"])


def _small(device: str, seconds: float) -> list[str]:
    return [sys.executable, str(BENCHMARKS / "gpu_small.py"), "--device", device, "--seconds", f"{seconds:.0f}"]


def _shown(command: Sequence[str]) -> list[str]:
    """Without this machine's folders."""
    return [Path(part).name if os.path.isabs(part) else part for part in command]


def _last(outcome: Outcome) -> str:
    return outcome.tail(1)[0] if outcome.tail(1) else ""

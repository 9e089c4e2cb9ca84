"""The tutorial does what it says, block after block, in an empty folder."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gradex_fast.cli import main

PAGES = Path(__file__).parents[1] / "docs" / "pages"
BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.DOTALL | re.MULTILINE)


def blocks(page: str) -> Iterator[tuple[str, str, str]]:
    """(language, file's name or nothing, text) of each; a reader runs bash and Python, and writes what has a name."""
    for found in BLOCK.finditer((PAGES / page).read_text(encoding="utf-8")):
        yield found[1], found[2] or "", found[3]


def run_bash(text: str) -> None:
    """gradex-fast in this process, where transformers is imported already; all else in a shell."""
    for line in text.splitlines():
        if line.startswith("gradex-fast "):
            assert main(shlex.split(line)[1:]) == 0, line
        else:
            environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
            subprocess.run(line, shell=True, check=True, env=environment)


def test_the_tutorial_runs_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    kinds = set()
    for language, name, text in blocks("tutorial.md"):
        kinds.add(language)
        if name:
            Path(name).write_text(text)
        elif language == "bash":
            run_bash(text)
        elif language == "python":
            exec(text, {})
    assert kinds == {"bash", "console", "python", "text", "yaml"}
    assert {path.name for path in Path("chosen").iterdir()} >= {"export.json"}
    assert Path("runs/films/clusters.parquet").exists() and Path("runs/films/report.html").exists()


def test_pages_are_all_in_the_contents_and_their_links_lead_somewhere() -> None:
    contents = (PAGES.parent / "mkdocs.yml").read_text(encoding="utf-8")
    for page in PAGES.rglob("*.md"):
        assert f"- {page.relative_to(PAGES).as_posix()}\n" in contents, page
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page}: {target}"

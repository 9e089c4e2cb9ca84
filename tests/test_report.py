"""The report is right, whole, inert whatever the data's text says, and loads nothing."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from gradex_fast.errors import GradexError
from gradex_fast.report import scores_csv, terminal_table, write_report

HOSTILE = [
    "<script>alert(1)</script>",
    '" onload="alert(1)" x="',
    "</title></style></svg><img src=x onerror=alert(1)>",
    "a|b\\|c\nd\r\n| e |",
    "[x](javascript:alert(1)) ![y](z) <https://evil.example> **b** `c` _d_ ~~e~~ $f$",
    "[bold red]loud[/bold red] [link=file:///x]y[/link] :smile:",
    "\x1b[31mred\x1b[0m \u202eesrever \ud800",
    "{{ 7 * 7 }} {% raw %} &lt;b&gt; &amp;",
]
CALM = [f"source-{i}" for i in range(len(HOSTILE))]


def summary(names: list[str]) -> dict:
    """Every part filled; each name stands wherever the data's text can stand."""
    scores = [0.5 + 0.01 * i for i in range(len(names))]
    sources = [
        {"name": name, "rows": 25, "tokens": 1034, "truncated": 1, "dropped": 2, "overlapping": 3}
        | {"score": f, "low": f - 0.004, "high": f + 0.006, "chosen": i < 3, "truth": name}
        for i, (name, f) in enumerate(zip(names, scores, strict=True))
    ]
    return {
        "title": names[0],
        "method": "forward",
        "sources": sources[::-1],
        "target": {"train": 0, "validation": 200, "test": 400},
        "path": [{"source": name, "loss": 0.6 - f} for name, f in zip(names, scores, strict=True)],
        "details": {
            "steps": 2,
            "fraction": 0.75,
            "sampling": names[5],
            "threshold": 0.52,
            "convergence": [{"subsets": 125, "spearman": 0.9, "error": None}],
            "cross_validation": [{"fraction": 0.75, "threshold": None, "explained": 0.5}],
            "sweep": [{"ratio": 0.05, "sources": [name], "loss": 0.4} for name in names],
            "cost": {"unit": names[4], "spent": 1.0, "budget": 1234567},
        },
        "estimate": {"ridge": 10.0, "dim": 100, "margin": names[1], "subsets": 1000}
        | {"milliseconds": 0.83, "rank_stability": {name: 0.9 for name in names}}
        | {"calibration": {"intercept": 0.01, "slope": 0.98}},
        "truth": [{"subset": names, "estimate": 0.51, "truth": 0.52}]
        + [{"subset": [name], "estimate": 0.61, "truth": 0.60} for name in names],
        "final": {"selected": {"loss": 0.2, "exact_match": 0.9, names[2]: names[3]}}
        | {name: {"loss": 0.4, "exact_match": None} for name in names},
        "metrics": {"auc": 1.0, "spearman": 0.94, "pearson": 0.97, "relative_error": 0.002}
        | {"constant_error": 0.016, "seconds": 93.1, "final_loss": {"selected": 0.2}},
        "seconds": {name: 1.5 for name in names},
        "warnings": names,
        "config": "\n".join(names),
        "versions": {name: name for name in names},
        "seeds": {name: 0 for name in names},
    }


def bare(empty: object = None) -> dict:
    """One source with no score, and every other part empty, None or absent."""
    source = {"name": "only", "rows": 3, "score": None, "low": None, "high": None, "chosen": True}
    if empty == "absent":
        return {"sources": [source]}
    parts = "target path details estimate truth final metrics seconds warnings config versions seeds"
    return {"title": "t", "method": "ensemble", "sources": [source]} | dict.fromkeys(parts.split(), empty)


class Page(HTMLParser):
    """Elements with their attributes, and the text of each table cell and of the whole page."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict]] = []
        self.cells: list[str] = []
        self.text, self._cell = "", False
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "td":
            self._cell = True
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        self._cell = self._cell and tag != "td"

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._cell:
            self.cells[-1] += data

    def attributes(self, tag: str, name: str) -> list[str]:
        return [attrs[name] for element, attrs in self.elements if element == tag and name in attrs]


def test_hostile_text_changes_nothing_but_text(tmp_path):
    calm = Page(write_report(tmp_path / "calm", summary(CALM)))
    hostile = Page(write_report(tmp_path / "hostile", summary(HOSTILE)))
    shape = [(tag, sorted(attrs)) for tag, attrs in calm.elements]
    assert [(tag, sorted(attrs)) for tag, attrs in hostile.elements] == shape
    for name in HOSTILE[:6] + HOSTILE[7:]:
        assert re.sub("\r\n?", "\n", name) in [cell.replace("\r", "") for cell in hostile.cells]


def test_page_runs_and_loads_nothing(tmp_path):
    page = Page(write_report(tmp_path, summary(CALM)))
    assert not re.search(r"https?:|//|url\(|@import|javascript:", page.source)
    names = {name for _, attrs in page.elements for name in attrs}
    assert not names & {"src", "href", "xlink:href", "action", "srcset", "data"}
    assert not [name for name in names if name.startswith("on")]
    assert not {tag for tag, _ in page.elements} & {
        "script",
        "link",
        "iframe",
        "img",
        "object",
        "base",
    }
    assert page.attributes("meta", "content")[-1].startswith("default-src 'none';")


def test_markdown_keeps_hostile_names_as_text(tmp_path):
    write_report(tmp_path, summary(HOSTILE))
    tokens = (
        MarkdownIt("commonmark")
        .enable(["table", "strikethrough"])
        .parse((tmp_path / "report.md").read_text(encoding="utf-8"))
    )
    inline = [token for token in tokens if token.type == "inline"]
    kinds = {child.type for token in inline for child in token.children}
    assert kinds <= {"text", "text_special", "softbreak", "strong_open", "strong_close"}
    assert sum(token.content.startswith("**Warning:**") for token in inline) == len(HOSTILE)
    assert sum(c.type == "strong_open" for t in inline for c in t.children) == len(HOSTILE)
    assert not [token for token in tokens if token.type == "html_block"]
    text = ["".join(child.content for child in token.children) for token in inline]
    assert HOSTILE[0] in text and HOSTILE[4] in text and HOSTILE[7] in text
    assert r"a|b\|c\nd\r\n| e |" in text


def test_markdown_rows_have_their_header_s_columns(tmp_path):
    write_report(tmp_path, summary(HOSTILE))
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    widths = [[len(re.findall(r"(?<!\\)\|", line)) for line in table] for table in tables]
    assert len(tables) == 8  # final, sources, path, convergence, cross-validation, sweep, truth, cost
    assert all(len(set(table)) == 1 for table in widths)


def test_metrics_are_the_summary_s_and_valid_json(tmp_path):
    metrics = {
        "auc": float("nan"),
        "spearman": None,
        "final_loss": {"all": float("-inf"), "selected": 1.5},
    }
    write_report(tmp_path, bare("absent") | {"metrics": metrics})

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    read = json.loads((tmp_path / "metrics.json").read_text(), parse_constant=refuse)
    assert read == {"auc": None, "spearman": None, "final_loss": {"all": None, "selected": 1.5}}


@pytest.mark.parametrize("empty", ["absent", None, "", (), {}])
def test_every_optional_part_may_be_empty(tmp_path, empty):
    page = Page(write_report(tmp_path, bare(empty)))
    assert "1 of 1 sources chosen" in page.text
    assert "None" not in page.text and "circle" not in [tag for tag, _ in page.elements]
    assert json.loads((tmp_path / "metrics.json").read_text()) == {}
    assert "None" not in (tmp_path / "report.md").read_text(encoding="utf-8")
    terminal_table(bare(empty))
    assert scores_csv(tmp_path, bare(empty)).read_text() == ("source,rows,score,low,high,chosen\nonly,3,,,,true\n")


def test_answer_and_warnings_come_first_and_sources_by_score(tmp_path):
    run = summary(CALM)
    run["sources"][-1]["score"] = float("nan")
    page = Page(write_report(tmp_path, run))
    assert page.text.index("3 of 8 sources chosen") < page.text.index("75 of 200 rows kept")
    warnings = page.source.index('class="warnings"')
    assert page.source.index("<h1>") < warnings < page.source.index("<h2>Sources")
    order = [cell for cell in page.cells if cell.startswith("source-")][: len(CALM) * 2 : 2]
    assert order == [*CALM[1:], CALM[0]]  # each row holds its name twice, the second as truth
    assert "0.5100 ± 0.0050" in page.cells


@pytest.mark.parametrize(("loss", "says"), [(0.1, "75 % lower"), (0.5, "25 % higher")])
def test_says_what_the_selection_bought(tmp_path, loss, says):
    run = bare() | {"final": {"selected": {"loss": loss}, "all": {"loss": 0.4}}}
    assert f"selected is {says}" in Page(write_report(tmp_path, run)).text
    assert says in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_wide_intervals_do_not_hide_the_order(tmp_path):
    run = summary(CALM) | {"path": [], "truth": []}
    narrow = Page(write_report(tmp_path, run))
    run["sources"] = [s | {"low": s["score"] - 9, "high": s["score"] + 9} for s in run["sources"]]
    wide = Page(write_report(tmp_path, run))
    places = [float(x.rstrip("%")) for x in wide.attributes("circle", "cx")]
    assert places == sorted(places) and places[-1] - places[0] == pytest.approx(84 / 3, abs=0.02)
    assert "run past it" in wide.text and "run past it" not in narrow.text


def test_a_lone_interval_is_drawn_whole(tmp_path):
    run = bare()
    run["sources"][0] |= {"score": 0.50, "low": 0.49, "high": 0.51}
    page = Page(write_report(tmp_path, run))
    assert page.attributes("circle", "cx") == ["50.00%"]
    assert [page.attributes("line", end) for end in ("x1", "x2")] == [["8.00%"], ["92.00%"]]


def test_scatter_has_one_scale_for_estimate_and_truth(tmp_path):
    pairs = [(0.2, 0.2), (0.4, 0.3), (0.6, 0.6), (float("nan"), 0.5)]
    truth = [{"subset": ["a"], "estimate": e, "truth": t} for e, t in pairs]
    page = Page(write_report(tmp_path, bare() | {"truth": truth}))
    x = [float(value.rstrip("%")) for value in page.attributes("circle", "cx")]
    y = [100 - float(value.rstrip("%")) for value in page.attributes("circle", "cy")]
    assert x == pytest.approx([8, 29, 92]) and y == pytest.approx([8, 50, 92])
    assert "3 subsets really fine-tuned" in page.text


def test_scores_csv_reads_back(tmp_path):
    run = summary(HOSTILE[:6])
    run["sources"][2]["low"] = float("nan")
    rows = list(csv.DictReader(io.StringIO(scores_csv(tmp_path, run).read_bytes().decode(), newline="")))
    assert list(rows[0]) == ["source", "rows", "score", "low", "high", "chosen", "truth"]
    for row, source in zip(rows, run["sources"], strict=True):
        assert (row["source"], row["truth"]) == (source["name"], source["truth"])
        assert float(row["score"]) == source["score"]
        assert row["low"] == ("" if source is run["sources"][2] else str(source["low"]))
        assert row["chosen"] == ("true" if source["chosen"] else "false")


def test_terminal_shows_names_as_they_are():
    console = Console(file=io.StringIO(), width=400)
    console.print(terminal_table(summary(HOSTILE)))
    shown = console.file.getvalue()
    assert HOSTILE[0] in shown and HOSTILE[5] in shown
    assert r"\x1b[31mred\x1b[0m \u202eesrever \ud800" in shown and "\x1b" not in shown
    assert shown.count("✓") == 3 and shown.count("± 0.005") == len(HOSTILE)


def test_full_disk_leaves_the_old_report(tmp_path, monkeypatch):
    write_report(tmp_path, bare())
    old = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(GradexError, match=r"cannot write .*metrics.json .*No space left on device"):
        write_report(tmp_path, summary(CALM))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == old

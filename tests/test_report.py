"""The report is right, whole, inert whatever the data's text says, and loads nothing."""

from __future__ import annotations

import base64
import csv
import errno
import hashlib
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
from gradex_fast.report.trust import trust

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


def row(name: str, value: float) -> dict:
    return {"id": f"{name}/3", "text": [[name, name]], "value": value, "error": 0.5, "loss": 1.0}


def summary(names: list[str]) -> dict:
    """Every part filled; each name stands wherever the data's text can stand."""
    scores = [0.5 + 0.01 * i for i in range(len(names))]
    sources = [
        {"name": name, "rows": 25, "tokens": 1034, "truncated": 1, "dropped": 2, "overlapping": 3}
        | {"score": f, "low": f - 0.004, "high": f + 0.006, "chosen": i < 3, "truth": name, "cosine": 0.1 * i}
        for i, (name, f) in enumerate(zip(names, scores, strict=True))
    ]
    return {
        "title": names[0],
        "method": "forward",
        "sources": sources[::-1],
        "target": {"train": 0, "validation": 200, "test": 400},
        "target_rows": [{"name": "target-train", "rows": 9, "truncated": 4, "dropped": 0, "overlapping": 5}],
        "others": {"backward": names},
        "path": [{"source": name, "loss": 0.6 - f} for name, f in zip(names, scores, strict=True)],
        "curves": {"forward": [{"sources": i, "loss": 0.6 - 0.01 * i, "low": 0.5, "high": 0.7} for i in range(1, 9)]},
        "map": {"places": [[i / 9, i * i / 99] for i in range(len(names))], "target": [1, 0], "share": 0.5, "dim": 100},
        "rows": [{"name": name, "best": [row(name, 2.0)], "worst": [row(name, -3.0)]} for name in names],
        "details": {
            "steps": 2,
            "fraction": 0.75,
            "sampling": names[5],
            "threshold": 0.52,
            "convergence": [{"subsets": m, "spearman": 0.9, "error": 0.5} for m in (125, 250, 500)],
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


def test_page_loads_nothing_and_runs_its_own_script_alone(tmp_path):
    page = Page(write_report(tmp_path, summary(HOSTILE)))
    names = {name for _, attrs in page.elements for name in attrs}
    assert not names & {"src", "xlink:href", "action", "srcset", "data"}
    assert not [name for name in names if name.startswith("on")]
    tags = [tag for tag, _ in page.elements]
    assert not set(tags) & {"link", "iframe", "img", "object", "base", "image", "foreignobject"}
    links = [attrs["href"] for _, attrs in page.elements if "href" in attrs]
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert links and {link.removeprefix("#") for link in links} <= set(ids) and len(set(ids)) == len(ids)
    assert set(re.findall(r"url\((.)", page.source)) == {"#"} and "@import" not in page.source
    assert tags.count("script") == 1
    script = page.source[page.source.index("<script>") + 8 : page.source.rindex("</script>")]
    assert not re.search(r"https?:|fetch|XMLHttp|import|eval|innerHTML|document\.write", script)
    policy = page.attributes("meta", "content")[-1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.startswith("default-src 'none';") and f"script-src 'sha256-{digest}';" in policy


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
    warnings = len(HOSTILE) + 3  # leakage, cuts, rows left out
    assert sum(token.content.startswith("**Warning:**") for token in inline) == warnings
    assert sum(c.type == "strong_open" for t in inline for c in t.children) == warnings
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
    assert "None" not in page.text and "svg" not in [tag for tag, _ in page.elements]
    assert json.loads((tmp_path / "metrics.json").read_text()) == {}
    assert "None" not in (tmp_path / "report.md").read_text(encoding="utf-8")
    terminal_table(bare(empty))
    assert scores_csv(tmp_path, bare(empty)).read_text() == ("source,rows,score,low,high,chosen\nonly,3,,,,true\n")


def test_answer_and_warnings_come_first_and_sources_by_score(tmp_path):
    run = summary(CALM)
    run["sources"][-1]["score"] = float("nan")
    page = Page(write_report(tmp_path, run))
    assert page.text.index("3 of 8 sources chosen") < page.text.index("75 of 200 rows kept")
    places = [page.source.index(text) for text in ("<h1>", 'role="alert"', ">Which<", ">How sure<", ">What it buys<")]
    assert places == sorted(places) and places[-1] < page.source.index('<h2 id="sources"')
    order = [cell for cell in page.cells if cell.startswith("source-")][: len(CALM) * 2 : 2]
    assert order == [*CALM[1:], CALM[0]]  # each row holds its name twice, the second as truth
    assert page.cells[2:4] == ["0.5100", "0.0050"]


def test_leakage_and_cut_rows_are_warnings(tmp_path):
    page = Page(write_report(tmp_path, summary(CALM)))
    assert "leakage: 29 training rows equal a validation or test row and were left out (most in target-train: 5)" in (
        page.text
    )
    assert "12 of 209 rows are longer than data.max_length and were cut (most in target-train: 4)" in page.text
    assert "16 rows have no token with a loss" in page.text
    clean = summary(CALM) | {"warnings": [], "target_rows": []}
    clean["sources"] = [s | {"truncated": 0, "dropped": 0, "overlapping": 0} for s in clean["sources"]]
    assert 'role="alert"' not in Page(write_report(tmp_path, clean)).source


@pytest.mark.parametrize(("loss", "says"), [(0.1, "75 % lower"), (0.5, "25 % higher")])
def test_says_what_the_selection_bought(tmp_path, loss, says):
    run = bare() | {"final": {"selected": {"loss": loss}, "all": {"loss": 0.4}}}
    assert f"selected is {says}" in Page(write_report(tmp_path, run)).text
    assert says in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_charts_keep_their_text_and_take_the_pages_colours(tmp_path):
    page = Page(write_report(tmp_path, summary(HOSTILE)))
    figures = [attrs for tag, attrs in page.elements if tag == "svg"]
    assert len(figures) == 5 and all(attrs["role"] == "img" and attrs["aria-label"] for attrs in figures)
    drawn = "".join(re.findall(r"<svg.*?</svg>", page.source, re.DOTALL))
    assert set(re.findall(r"(?:fill|stroke): (?!none|url)([^;\"]*)", drawn)) == {
        f"var(--{name})" for name in ("ink", "soft", "line", "paper", "kept", "left", "mark")
    }
    assert "#00000" not in drawn and "font-family" not in drawn and not re.search(r"@\d+@", drawn)
    assert "&lt;script&gt;" in drawn and "\u202e" not in drawn


def test_many_sources_are_drawn_together(tmp_path):
    few, many = summary(CALM), summary([f"source {i}" for i in range(4000)])
    many = {key: many[key] for key in ("title", "method", "sources", "map")}
    charts = re.findall(r"<svg.*?</svg>", Page(write_report(tmp_path, many)).source, re.DOTALL)
    assert len(charts) == 2 and sum(map(len, charts)) < 500_000
    assert "source 17<" not in "".join(charts)
    assert "source-3<" in "".join(re.findall(r"<svg.*?</svg>", Page(write_report(tmp_path, few)).source, re.DOTALL))


@pytest.mark.parametrize(
    ("change", "fact", "good"),
    [
        ({}, "The subsets keep their order", True),
        ({"rank_stability": {"ridge x 10": 0.3, "ridge / 10": 0.9}}, "The subsets change their order", False),
    ],
)
def test_says_whether_the_ranks_hold_at_other_ridges(change, fact, good):
    run = summary(CALM)
    found = [one for one in trust(run | {"estimate": run["estimate"] | change}) if one.text.startswith(fact)]
    assert [one.good for one in found] == [good]


@pytest.mark.parametrize(("anchors", "error", "good"), [(9, 0.001, True), (9, 0.02, False), (3, 0.001, None)])
def test_an_estimate_has_to_beat_a_constant(anchors, error, good):
    run = summary(CALM)
    run |= {"truth": run["truth"][:anchors], "metrics": run["metrics"] | {"calibrated_error": error}}
    fact = trust(run)[0]
    assert fact.good is good and ("no smaller than" if error > 0.016 else "16 times smaller than") in fact.text


def test_the_border_is_sure_where_no_interval_reaches_over_it():
    run = summary(CALM) | {"method": "ensemble"}
    run["sources"] = [s | {"low": s["score"] - 0.004, "high": s["score"] + 0.004} for s in run["sources"]]
    sure = next(fact for fact in trust(run) if "nats apart" in fact.text)
    assert sure.good and "0.010 nats apart, and no interval" in sure.text
    run["sources"] = [s | {"high": s["score"] + 0.006} for s in run["sources"]]
    unsure = next(fact for fact in trust(run) if "nats apart" in fact.text)
    assert unsure.good is False and "reach over the border between them: 1." in unsure.text


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

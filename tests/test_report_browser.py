"""The report in a real Chromium: it works by mouse and keys, harms nobody, and is legible wide, narrow, light and dark.

It needs the package playwright and a Chromium: ``pip install -e ".[browser]"``, then ``apt-get install chromium``, or
``playwright install chromium``, or GRADEX_CHROMIUM with the path of one.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_report import CALM, HOSTILE, summary

from gradex_fast.report import write_report

api = pytest.importorskip("playwright.sync_api", reason='needs playwright: pip install -e ".[browser]"')

LONG = [*HOSTILE, "x" * 10_000, "שלום עולם \u202e txt.exe", "مصدر البيانات"]
VIEWS = [(width, scheme) for width in (1280, 390) for scheme in ("light", "dark")]
FLAGS = "--no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update"


@pytest.fixture(scope="module")
def browser() -> Iterator:
    names = ("chromium", "chromium-browser", "google-chrome")
    path = os.environ.get("GRADEX_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    with api.sync_playwright() as driver:
        if not (path or Path(driver.chromium.executable_path).exists()):
            pytest.skip("needs a Chromium: apt-get install chromium, or playwright install chromium")
        launched = driver.chromium.launch(executable_path=path, args=FLAGS.split())
        yield launched
        launched.close()


class Opened:
    """A page, with all that it said and asked for."""

    def __init__(self, browser, path: Path, width: int = 1280, scheme: str = "light") -> None:
        self.page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        self.page.set_default_timeout(180_000)  # a machine may have other work
        self.noise: list[str] = []
        self.page.on("console", lambda message: self.noise.append(message.text))
        self.page.on("pageerror", lambda error: self.noise.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.noise.append(dialog.message), dialog.dismiss()))
        self.page.on("request", lambda request: self.noise.append(request.url) if request.url != address else None)
        address = path.as_uri()
        self.page.goto(address)

    def names(self) -> list[str]:
        """Of the sources in sight, from the top."""
        return self.page.locator("#source-table tbody tr:not([hidden]) td.name:nth-child(2)").all_text_contents()

    def header(self, text: str):
        return self.page.locator("#source-table th", has=self.page.get_by_role("button", name=text, exact=True))


@pytest.fixture
def opened(browser, tmp_path) -> Iterator:
    pages = []

    def open_report(run: dict, *view) -> Opened:
        pages.append(Opened(browser, write_report(tmp_path, run), *view))
        return pages[-1]

    yield open_report
    for each in pages:
        each.page.close()
    assert [each.noise for each in pages] == [[]] * len(pages)


@pytest.mark.parametrize("names", [CALM, LONG], ids=["calm", "hostile"])
@pytest.mark.parametrize("view", VIEWS, ids=str)
def test_nothing_is_wider_than_the_page_and_all_text_is_legible(opened, names, view):
    page = opened(summary(names), *view).page
    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    assert page.evaluate("document.documentElement.scrollWidth") <= view[0]
    assert page.evaluate("getComputedStyle(document.body).backgroundColor === 'rgb(255, 255, 255)'") == (
        view[1] == "light"
    )
    assert page.evaluate(_CONTRASTS) >= 4.5  # WCAG 2.1, AA
    sizes = page.evaluate(_SIZES)
    assert len(sizes) > 40 and min(sizes) >= 9.5


_CONTRASTS = """() => {
  const light = (colour) => {
    const linear = (c) => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    const [r, g, b] = colour.match(/[\\d.]+/g).map((c) => linear(c / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const under = (node) => {
    for (; node; node = node.parentElement) {
      const colour = getComputedStyle(node).backgroundColor;
      if (!colour.endsWith(", 0)")) return colour;
    }
  };
  const texts = [...document.querySelectorAll("main *:not(option, title, g, use, path, defs)")].filter((node) =>
    [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim()));
  return Math.min(...texts.map((node) => {
    const style = getComputedStyle(node), colour = node.namespaceURI.endsWith("svg") ? style.fill : style.color;
    const [a, b] = [light(colour), light(under(node))].sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05);
  }));
}"""
_SIZES = """() => [...document.querySelectorAll("svg text")].map((text) =>
  parseFloat(getComputedStyle(text).fontSize) * Math.hypot(text.getScreenCTM().c, text.getScreenCTM().d))"""


def test_hostile_names_are_read_as_they_are_and_do_nothing(opened):
    run = opened(summary(LONG))
    page = run.page
    assert page.evaluate("document.scripts.length") == 1
    assert page.evaluate("document.querySelectorAll('img, iframe, a:not([href^=\"#\"]), form').length") == 0
    found = page.locator(
        "#source-table tbody tr > td:nth-child(2) :not(summary) > bdi, #source-table tbody tr > td:nth-child(2) > bdi"
    ).all_text_contents()
    assert found[8] == LONG[8] and found[0] == HOSTILE[0] and found[10] == LONG[10]
    heights = page.evaluate("[...document.querySelectorAll('#source-table tbody tr')].map((row) => row.offsetHeight)")
    assert len(heights) == len(LONG) and max(heights) < 200
    page.locator("#source-table summary").first.focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.querySelector('#source-table details').open")


def test_no_other_script_runs(browser, tmp_path):
    page = Opened(browser, write_report(tmp_path, summary(CALM))).page
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<p onclick=\"window.hit = 1\" id=\"trap\">here</p>')")
    page.locator("#trap").click()
    page.evaluate("document.body.append(Object.assign(document.createElement('script'), {text: 'window.hit = 2'}))")
    assert page.evaluate("window.hit") is None
    page.close()


def test_headers_sort_by_mouse_and_by_key(opened):
    run = summary(CALM)
    run["sources"][0] |= {"score": None, "low": None, "high": None}  # CALM[7]
    run["sources"] = [s | {"rows": 10 * i} for i, s in enumerate(run["sources"])]
    shown = opened(run)
    best_first = CALM[:7]
    assert shown.names() == [*best_first, CALM[7]]
    assert shown.header("score").get_attribute("aria-sort") == "ascending"
    shown.header("score").get_by_role("button").click()
    assert shown.names() == [*best_first[::-1], CALM[7]]  # what is not known stays last
    assert shown.header("score").get_attribute("aria-sort") == "descending"
    shown.header("rows").get_by_role("button").focus()
    shown.page.keyboard.press("Enter")
    assert shown.names() == CALM[::-1]
    assert shown.header("rows").get_attribute("aria-sort") == "ascending"
    assert shown.page.locator("[aria-sort]").count() == 1
    shown.header("score").get_by_role("button").click()
    assert shown.names() == [*best_first, CALM[7]]  # from the first place too
    shown.header("source").get_by_role("button").click()
    assert shown.names() == CALM
    ring = "getComputedStyle(document.activeElement).outlineStyle"
    shown.page.keyboard.press("Tab")
    assert shown.page.evaluate(ring) == "solid"


def test_sources_are_filtered_by_text_and_choice(opened):
    shown = opened(summary(HOSTILE))
    shown.page.get_by_label("Source contains").fill("SCRIPT")
    assert [name[:8] for name in shown.names()] == ["<script>", "[x](java"]
    assert shown.page.get_by_role("status").text_content() == "2 of 8 sources"
    shown.page.get_by_label("Source contains").fill("")
    shown.page.get_by_label("Show", exact=True).select_option("chosen")
    assert len(shown.names()) == 3
    shown.page.get_by_label("Show", exact=True).select_option("not chosen")
    assert len(shown.names()) == 5


def test_ten_thousand_sources_are_shown_a_hundred_at_a_time(opened):
    names = [f"source {index:05d}" for index in range(10_000)]
    many = summary(CALM) | {key: summary(names)[key] for key in ("sources", "map", "path")}
    shown = opened(many)
    assert shown.names() == names[:100]
    shown.header("score").get_by_role("button").click()
    assert shown.names() == names[:-101:-1]
    shown.page.get_by_label("Source contains").fill("0999")
    assert shown.names() == [*names[9999:9989:-1], "source 00999"]
    shown.page.get_by_label("Source contains").fill("")
    shown.page.get_by_role("button", name="show all 10,000").click()
    assert shown.page.get_by_role("status").text_content() == "10,000 of 10,000 sources"
    assert shown.page.locator("#source-table tbody tr:not([hidden])").count() == 10_000

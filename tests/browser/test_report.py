# SPDX-License-Identifier: GPL-3.0-or-later
"""The report and the change-request document in a real browser: nothing loaded, readable, reachable by keys, told to a screen reader, printable."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.onprem.circleci_server.plugins.module_utils.report import (
    build_report,
    render_page,
    render_plan,
)

from .chromium import Chromium, program
from .sample import findings

SHOTS = Path(os.environ.get("SCREENSHOTS") or "tests/output/browser")
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
# Contrast of each text with what lies behind it, as WCAG 2 counts it; drawings are asked for their fill.
CONTRAST = """(() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgba = text => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = text; canvas.fillRect(0, 0, 1, 1); return [...canvas.getImageData(0, 0, 1, 1).data]; };
  const light = ([r, g, b]) => { const f = v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; return 0.2126 * f(r) + 0.7152 * f(g) + 0.0722 * f(b); };
  const behind = element => {
    for (let at = element; at; at = at.parentElement) {
      if (at.tagName === 'svg') { const box = at.querySelector('.zone'); if (box) return rgba(getComputedStyle(box).fill); }
      const colour = rgba(getComputedStyle(at).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return [255, 255, 255, 255];
  };
  const found = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const element = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || element.closest('.hidden, .skip, style, title') || !element.getClientRects().length) continue;
    const style = getComputedStyle(element);
    const [first, second] = [light(rgba(element.closest('svg') ? style.fill : style.color)), light(behind(element))];
    const ratio = (Math.max(first, second) + 0.05) / (Math.min(first, second) + 0.05);
    if (ratio < 4.5) found.push([walk.currentNode.data.trim().slice(0, 40), Math.round(ratio * 10) / 10]);
  }
  return found;
})()"""
WIDER = """[...document.querySelectorAll('main *, header *, nav *')].filter(element => element.getBoundingClientRect().right > innerWidth + 1
  && !element.closest('.scroll, figure, svg, .hidden, .skip')).map(element => element.outerHTML.slice(0, 80)).slice(0, 5)"""
FOCUS = """(() => { const at = document.activeElement; const style = getComputedStyle(at); const box = at.getBoundingClientRect();
  return {tag: at.tagName, text: (at.getAttribute('aria-label') || at.innerText || '').trim().slice(0, 60), outline: style.outlineStyle + ' ' + style.outlineWidth,
  seen: box.width > 0 && box.bottom > 0 && box.top < innerHeight && box.right > 0}; })()"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    if not program():
        pytest.skip("needs a Chromium: apt-get install chromium")
    made = Chromium()
    yield made
    made.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One site with trouble, three sites of 60 hosts, a site where all is well, and a plan."""
    folder = tmp_path_factory.mktemp("pages")
    before = build_report(findings("osaka", generated="2026-11-17T05:00:00Z"))
    trouble = build_report(findings("osaka", trouble=True), before)
    well = [build_report(findings(name, number)) for number, name in enumerate(("kyoto", "nara"), 1)]
    _markdown, plan = render_plan({
        "site": "osaka", "release": "4.10.0", "summary": "Install it.",
        "hosts": [{"name": "nomad1", "addresses": ["10.0.0.1"], "roles": ["Nomad client"], "reboot": True}],
    })  # fmt: skip
    texts = {"one-site": render_page([trouble]), "all-well": render_page(well[:1]), "three-sites": render_page([trouble, *well]), "plan": plan}
    paths = {}
    for name, text in texts.items():
        paths[name] = folder / f"{name}.html"
        paths[name].write_text(text, encoding="utf-8")
    return paths


def shown(browser: Chromium, page: Path, scheme: str = "light", size: str = "desktop") -> None:
    browser.looks(scheme)
    browser.size(*SIZES[size])
    browser.open(page)


@pytest.mark.parametrize("name", ["one-site", "all-well", "three-sites", "plan"])
def test_it_loads_nothing_and_complains_of_nothing(browser: Chromium, pages: dict[str, Path], name: str) -> None:
    shown(browser, pages[name])
    asked = [event["params"]["request"]["url"] for event in browser.events if event["method"] == "Network.requestWillBeSent"]
    assert asked == [pages[name].as_uri()]
    assert not [event for event in browser.events if event["method"] in ("Log.entryAdded", "Runtime.exceptionThrown")]
    assert len(pages[name].read_bytes()) < 1_000_000


@pytest.mark.parametrize("size", list(SIZES))
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["one-site", "three-sites", "plan"])
def test_it_can_be_read(browser: Chromium, pages: dict[str, Path], name: str, scheme: str, size: str) -> None:
    shown(browser, pages[name], scheme, size)
    browser.screenshot(SHOTS / f"{name}-{scheme}-{size}.png", whole=False)
    if name == "one-site":
        browser.evaluate("document.querySelectorAll('details').forEach(item => item.open = true)")
        browser.screenshot(SHOTS / f"{name}-{scheme}-{size}-whole.png")
    assert browser.evaluate(CONTRAST) == []
    assert browser.evaluate("document.documentElement.scrollWidth") <= SIZES[size][0]
    assert browser.evaluate(WIDER) == []


def test_every_key_stop_is_seen_and_named(browser: Chromium, pages: dict[str, Path]) -> None:
    shown(browser, pages["three-sites"])
    wanted = browser.evaluate("[...document.querySelectorAll('a[href], summary, [tabindex=\"0\"]')].filter(item => item.checkVisibility()).length")
    stops: list[dict[str, Any]] = []
    for _press in range(wanted):
        browser.key("Tab", 9)
        stops.append(browser.evaluate(FOCUS))
    assert stops[0]["text"] == "Skip to the content"
    assert {stop["tag"] for stop in stops} <= {"A", "SUMMARY", "DIV"}
    assert [stop for stop in stops if not stop["text"] or not stop["seen"] or stop["outline"].startswith("none")] == []
    browser.key("Tab", 9, shift=True)
    assert browser.evaluate("document.activeElement.tagName") in ("A", "SUMMARY", "DIV")


def test_the_skip_link_leads_to_the_content_and_a_line_opens_by_key(browser: Chromium, pages: dict[str, Path]) -> None:
    shown(browser, pages["one-site"])
    browser.key("Tab", 9)
    browser.screenshot(SHOTS / "one-site-skip-link.png", whole=False)
    browser.key("Enter", 13, "\r")
    assert browser.evaluate("location.hash") == "#main"
    browser.key("Tab", 9)
    assert browser.evaluate("document.activeElement.closest('main') !== null && document.activeElement.tagName") == "SUMMARY"
    browser.key("Enter", 13, "\r")
    assert browser.evaluate("document.activeElement.parentElement.open") is True


def test_a_screen_reader_is_told_everything(browser: Chromium, pages: dict[str, Path]) -> None:
    shown(browser, pages["three-sites"])
    tree = browser.tree()
    roles = [node["role"] for node in tree]
    assert roles.count("main") == 1 and roles.count("navigation") == 4
    for role in ("article", "navigation", "table", "image", "link", "heading", "columnheader", "rowheader"):
        named = [node for node in tree if node["role"] == role]
        assert named and all(str(node["name"]).strip() for node in named), role
    levels = [int(node["level"]) for node in tree if node["role"] == "heading"]
    assert levels[0] == 1 and all(after - before <= 1 for before, after in zip(levels, levels[1:]))
    assert browser.evaluate("document.documentElement.lang") == "en"


def test_paper_shows_what_the_screen_hides(browser: Chromium, pages: dict[str, Path]) -> None:
    browser.size(*SIZES["desktop"])
    browser.open(pages["one-site"])
    browser.looks("dark", "print")
    # Dark letters on white, whatever the screen has, and nothing behind a line that cannot be opened on paper.
    assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.evaluate(CONTRAST) == []
    hidden = "[...document.querySelectorAll('details > :not(summary)')].filter(item => !item.getClientRects().length || item.getBoundingClientRect().height < 1).length"
    assert browser.evaluate(hidden) == 0
    paper = browser.paper()
    (SHOTS / "one-site.pdf").write_bytes(paper)
    browser.screenshot(SHOTS / "one-site-print.png", whole=False)
    browser.looks("light")
    assert paper.startswith(b"%PDF-") and len(re.findall(rb"/Type /Page\b", paper)) >= 1

"""The page: whole in one file, inert whatever a history holds, and complete."""

import re
import shutil
import subprocess
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exequatur.audit.codes import CODES
from exequatur.audit.page import OPEN_FINDINGS, OPEN_RUNS, ROWS, render_html
from exequatur.audit.report import Report, finding
from tests.audit.reports import BUNDLE, HOSTILE, UNCHECKED, VERIFIED, VIOLATED, activity, decided, run

TEMPLATE = files("exequatur.audit").joinpath("report.html.jinja").read_text("utf-8")
VOID = {"meta", "br", "link", "img", "input", "hr"}


class Page(HTMLParser):
    """The elements of a page, its text, and whether every element was closed."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text.append(data)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


def filled_with(text: str) -> Report:
    """A report in which every string that is free is ``text``."""
    one = activity(
        activity_type=text,
        activity_id=text,
        outcome=text,
        worker=text,
        requested_by=text,
        decisions=(decided(policies=(text, text), reason=text, bundle=text),),
    )
    fields = ("workflow_id", "run_id", "workflow_type", "principal", "grant", "issuer", "mode", "outcome")
    found = finding("run-reset", text, event_id=5, activity_id=text)
    return Report(runs=(run(one, findings=(found,), **dict.fromkeys(fields, text)),) * 2, findings=(found,))


def shape(page: Page) -> list[tuple[str, list[tuple[str, str | None]]]]:
    return [(tag, sorted(attributes.items())) for tag, attributes in page.elements]


@pytest.mark.parametrize("report", [VERIFIED, VIOLATED, UNCHECKED, Report()])
def test_every_element_is_closed_and_the_verdict_is_the_first_heading(report):
    page = Page(render_html(report))
    assert page.open == []
    headings = [tag for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert headings[0] == "h1"
    assert headings.count("h1") == 1


def test_hostile_strings_add_no_element_and_no_attribute():
    assert shape(Page(render_html(filled_with(HOSTILE)))) == shape(Page(render_html(filled_with("x"))))


@settings(max_examples=40)
@given(st.text(min_size=1, max_size=60))
def test_no_string_changes_the_structure_or_leaves_a_control_character(text):
    html = render_html(filled_with(text))
    assert shape(Page(html)) == shape(Page(render_html(filled_with("x"))))
    assert all(character == "\n" or character.isprintable() for character in html)


def test_hostile_strings_are_read_as_they_were_written():
    words = Page(render_html(filled_with(HOSTILE))).words
    assert "<script>alert(1)</script>" in words
    assert r"\x1b[31m \u202egrant \x9b2J" in words
    assert "{{ 7*7 }}" in words


def test_the_page_loads_nothing_and_runs_nothing():
    page = Page(render_html(VIOLATED))
    policy = next(meta for meta in page.of("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert (policy["content"] or "").startswith("default-src 'none'; style-src 'unsafe-inline'")
    assert not {"script", "img", "link", "iframe", "object", "form", "base"} & {tag for tag, _ in page.elements}
    for _, attributes in page.elements:
        assert not {name for name in attributes if name.startswith("on") or name == "src"}
        assert (attributes.get("href") or "#").startswith("#")
    assert "url(" not in TEMPLATE
    assert "@import" not in TEMPLATE


def test_every_link_leads_to_a_place_on_the_page():
    page = Page(render_html(VIOLATED))
    places = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    links = {(attributes["href"] or "")[1:] for attributes in page.of("a")}
    assert {"run-1-event-11", "run-2", "words"} <= links
    assert links <= places


def test_who_what_why_and_proof_are_on_the_page():
    words = Page(render_html(VIOLATED)).words
    for expected in (
        'User::"alice@acme.example"',
        "https://authority.acme.example",
        "refund_payment",
        "spiffe://acme.example/payments/worker-7",
        "no-refund-over-500",
        "refunds over 500 need approval",
        BUNDLE,
        "recomputed: another answer",
        "signed denial",
        "no notary has signed this history",
        CODES["receipt-missing"].meaning,
        "The result of event 27 has no receipt.",
    ):
        assert expected in words


def test_tables_name_their_columns_and_rows():
    page = Page(render_html(VIOLATED))
    assert {attributes["scope"] for attributes in page.of("th")} == {"col", "row"}
    assert all("data-label" in attributes for attributes in page.of("td"))


def test_ten_thousand_activities_stand_in_folded_tables_and_none_is_lost():
    many = run(
        *(activity(number) for number in range(1, 10_001)),
        findings=tuple(finding("receipt-missing", f"no. {number}", event_id=5 + 6 * number) for number in range(500)),
    )
    html = render_html(Report(runs=(many,)))
    assert html.count('<tr role="row" id="run-1-event-') == 10_000
    assert html.count("<details>") == 10_000 // ROWS + 1
    assert f"and {500 - OPEN_FINDINGS} more" in html
    assert ", 500 with findings" in html


def test_of_many_runs_only_those_with_something_to_read_are_unfolded():
    bad = run(findings=(finding("run-ungoverned", "No grant."),), governed=False)
    page = Page(render_html(Report(runs=(*[run(activity())] * OPEN_RUNS, bad))))
    assert sum("open" in attributes for attributes in page.of("details")) == 1 + OPEN_RUNS  # its own, and the tables
    assert sum("open" not in attributes for attributes in page.of("details")) == OPEN_RUNS


@pytest.mark.parametrize("at", [float("inf"), float("nan"), -1e300])
def test_a_time_that_is_none_is_shown_as_such(at):
    one = activity(scheduled=at, closed=at)
    html = render_html(Report(runs=(run(one, started=at, closed=at),)))
    assert "no time of a calendar" in html
    assert "nan%" not in html
    assert "inf%" not in html


def test_colours_can_be_told_apart_in_light_and_in_dark():
    schemes = [dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block)) for block in TEMPLATE.split(":root")[1:3]]
    for colours in schemes:
        pairs = [(name, f"{name}-on") for name in ("violation", "unchecked", "unproven", "notice", "good")]
        pairs += [(name, back) for name in ("ink", "soft", "link") for back in ("page",)]
        pairs += [("ink", f"{name}-on") for name in ("violation", "unchecked", "good")]
        for front, back in pairs:
            assert contrast(colours[front], colours[back]) >= 4.5, (front, back)  # WCAG 2.2, 1.4.3


def contrast(one: str, other: str) -> float:
    """WCAG 2.2, definition of contrast ratio."""

    def luminance(colour: str) -> float:
        channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no Chromium; Debian's package chromium brings it")
def test_a_real_browser_lays_a_hostile_page_out_and_runs_nothing_in_it(tmp_path: Path):
    page = tmp_path / "report.html"
    page.write_text(render_html(filled_with("<img src=x onerror=\"document.title='run'\">" + HOSTILE)), "utf-8")
    browser = subprocess.run(
        [
            "chromium",
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--dump-dom",
            page.as_uri(),
        ],
        capture_output=True,
        timeout=60,
        check=True,
    )
    dom = browser.stdout.decode()
    assert "<title>Audit report: Verified</title>" in dom
    assert "<img" not in dom
    assert "<script" not in dom

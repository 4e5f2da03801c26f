"""What becomes of hostile texts on their way to a page, and what a form may be."""

from __future__ import annotations

import json

import pytest
from starlette.requests import Request

from exequatur.console.errors import ProblemError, ServerAwayError, answer
from exequatur.console.forms import form_of
from exequatur.console.redact import REDACTED
from exequatur.console.render import data, iso, json_bytes, link, templates, when
from exequatur.console.viewer import PUBLIC, Viewer
from exequatur.identity.principal import Principal

HOSTILE = "<script>x</script>\"'&\u202e\u0000"


@pytest.mark.rule("render.R1")
def test_a_text_is_escaped_and_its_control_characters_are_shown_as_such():
    made = (
        templates().from_string('<p title="{{ text }}">{{ text }}</p><pre>{{ text|lines }}</pre>').render(text=HOSTILE)
    )
    assert "<script>" not in made
    assert made.count('"') == 2
    assert "\u202e" not in made
    assert "\\u202e" in made
    assert "\x00" not in made


@pytest.mark.rule("render.R1")
def test_every_template_escapes():
    for name in templates().list_templates():
        assert "|safe" not in templates().loader.get_source(templates(), name)[0].replace(" ", ""), name


@pytest.mark.rule("render.R2")
def test_an_address_is_encoded_whatever_is_in_it():
    made = link("/lineage", workflow='a&run=b#c"><script>\u202e/../%00\n', run=None, n=7)
    assert str(made) == ("/lineage?workflow=a%26run%3Db%23c%22%3E%3Cscript%3E%E2%80%AE%2F..%2F%2500%0A&amp;n=7")
    assert link("/x", of="\ud800") == "/x?of=%3F"


@pytest.mark.rule("render.R3")
def test_a_script_of_a_public_viewer_gets_redacted_data():
    request = Request({"type": "http", "headers": [], "state": {"viewer": PUBLIC}})
    assert json.loads(data(request, {"principal": "kim", "action": "x"}).body) == {"principal": REDACTED, "action": "x"}


@pytest.mark.rule("errors.X3")
def test_what_went_wrong_in_here_is_not_told_to_the_public():
    told = []
    for viewer in (PUBLIC, Viewer(Principal("User", "kim"), "local", "x")):
        headers = [(b"accept", b"application/json")]
        request = Request({"type": "http", "path": "/x", "headers": headers, "state": {"viewer": viewer}})
        told.append(bytes(answer(request, ServerAwayError("10.1.2.3:7233", "refused")).body).decode())
    assert [("10.1.2.3" in each, "does not answer" in each) for each in told] == [(False, True), (True, True)]


def test_numbers_and_times_that_are_none_do_not_break_a_page():
    assert json_bytes({"a": float("nan"), "b": [float("inf"), "\ud800"]}) == b'{"a":null,"b":[null,"?"]}'
    assert [iso(each) for each in (None, float("nan"), 1e300, -1e300)] == ["", "", "", ""]
    assert when(1e300) == "<span>unknown</span>"


async def form(body: bytes, kind: str = "application/x-www-form-urlencoded") -> dict[str, str]:
    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": body, "more_body": False}

    headers = [(b"content-type", kind.encode())]
    return dict(await form_of(Request({"type": "http", "method": "POST", "headers": headers}, receive)))


async def test_a_form_is_read():
    assert await form(b"a=1+2&b=%C3%A9&c=&d=x%20") == {"a": "1 2", "b": "é", "c": "", "d": "x"}


@pytest.mark.rule("forms.F1")
async def test_a_field_that_comes_twice_counts_as_not_there():
    assert await form(b"a=1&b=2&a=3") == {"b": "2"}


@pytest.mark.rule("forms.F1")
@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'{"a":1}', "application/json"),
        (b"a=1", "text/plain"),
        (b"a=1", "multipart/form-data; boundary=x"),
        (b"a=1", ""),
        (b"a=%ff", "application/x-www-form-urlencoded"),
        (b"a=\xff", "application/x-www-form-urlencoded"),
        (b"&".join(b"a%d=1" % n for n in range(100)), "application/x-www-form-urlencoded"),
        (b"a=" + b"x" * 5000, "application/x-www-form-urlencoded"),
    ],
)
async def test_a_form_that_is_anything_else_is_refused(body, kind):
    with pytest.raises(ProblemError, match="Nothing was done"):
        await form(body, kind)

"""Formatting policies: Cedar's own format, nothing said differently, no comment lost."""

import json
from collections.abc import Callable
from pathlib import Path

import cedarpy
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exequatur.authoring.checks.format import format_text

ROOT = Path(__file__).parents[2]


def formatted(text: str, width: int = 100) -> str:
    result = format_text("p.cedar", text, width)
    assert result.findings == ()
    assert result.text is not None
    return result.text


def test_the_reference_policies_are_formatted() -> None:
    for path in (ROOT / "policies").glob("*.cedar"):
        assert formatted(path.read_text()) == path.read_text()


def test_policies_are_laid_out_and_a_blank_line_apart() -> None:
    assert (
        formatted('@id("a")permit(principal,action,resource);forbid(principal,action,resource)when{context.a==1};')
        == '@id("a")\npermit (principal, action, resource);\n\n'
        "forbid (principal, action, resource)\nwhen { context.a == 1 };\n"
    )


def test_comments_stay_where_they_are() -> None:
    text = (
        "// head of the file\n\n\n  // about a\npermit(principal, // who\n  action,resource); // behind a\n"
        "// above b\n\nforbid(principal,action,resource)when{\n// why\ntrue};\n\n// the end\n"
    )
    assert formatted(text) == (
        "// head of the file\n\n// about a\npermit (principal, // who\n  action, resource); // behind a\n\n"
        "// above b\n\nforbid (principal, action, resource)\nwhen\n{\n  // why\n  true\n};\n\n// the end\n"
    )


def test_texts_without_policies_are_left_with_their_comments() -> None:
    assert formatted("") == ""
    assert formatted("\n\n") == ""
    assert formatted("// a\r\n\r\n\r\n//   b\r\n") == "// a\n\n//   b\n"


def test_the_line_width_can_be_chosen() -> None:
    text = "permit(principal, action, resource) when { context.args.amount > 5 && context.args.amount < 9 };"
    assert formatted(text, 100).count("\n") < formatted(text, 40).count("\n")


def test_what_does_not_parse_is_left_alone_and_said_with_its_place() -> None:
    result = format_text("p.cedar", "permit(principal,action,resource);\npermit(principal action);")
    assert result.text is None
    assert [(each.file, each.line, each.column) for each in result.findings] == [("p.cedar", 2, 18)]


def test_what_would_end_the_process_is_not_given_to_the_formatter() -> None:
    result = format_text("p", "permit(principal,action,resource) when { " + "(" * 5000 + "true" + ")" * 5000 + " };")
    assert "nested too deeply" in result.findings[0].message


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda text: text.replace("permit", "forbid"), "would change what a policy says"),
        (lambda text: text.replace("// why", ""), "would lose a comment"),
        (lambda text: f"{text} // again", "does not come to an end"),
    ],
)
def test_a_formatter_that_does_harm_is_refused(
    harm: Callable[[str], str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Cedar's formatter is not known to do any of this; a later version might.
    monkeypatch.setattr(cedarpy, "format_policies", lambda text, *_: harm(text))
    result = format_text("p.cedar", "permit (principal, // why\n  action, resource);")
    assert result.text is None
    assert message in result.findings[0].message


_WORKING = "\n".join(path.read_text() for path in sorted((ROOT / "policies").glob("*.cedar")))
_PIECES = st.sampled_from(["", " ", "\n", "\n\n", "// c\n", '// a "b" ; }\n', "\t", "\r\n", "(", "true && ", ";", '"'])


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.integers(0, len(_WORKING)), _PIECES), max_size=6))
def test_whatever_parses_is_formatted_once_and_for_all_and_says_the_same(edits: list[tuple[int, str]]) -> None:
    text = _WORKING
    for at, piece in edits:
        text = text[:at] + piece + text[at:]
    result = format_text("p", text)
    if result.text is None:
        assert result.findings
        return
    assert json.loads(cedarpy.policies_to_json_str(result.text)) == json.loads(cedarpy.policies_to_json_str(text))
    assert formatted(result.text) == result.text

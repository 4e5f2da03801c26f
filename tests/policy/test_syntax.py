"""Words of Cedar texts and where an error stands: exact for whatever Cedar's own parser refuses."""

import pytest
from cedarpy import PolicySet, Schema
from hypothesis import given
from hypothesis import strategies as st

from exequatur.policy.syntax import (
    Place,
    find_words,
    parse_error_offset,
    place_of,
    quoted,
    statements,
    tokens,
    unquoted,
)

PERMIT = 'permit(principal, action == Action::"refund", resource) when { context.args.amount > 5 };'


def error_at(text: str) -> str | None:
    offset = parse_error_offset(text, PolicySet.from_str)
    return None if offset is None else str(place_of(text, offset))


def test_words_leave_out_white_space_and_comments() -> None:
    words = tokens('// permit;\npermit ( "a // b;" ) // end')
    assert [word.text for word in words] == ["permit", "(", '"a // b;"', ")"]


def test_statements_end_at_semicolons_that_are_neither_in_strings_nor_in_comments() -> None:
    text = '// one;\npermit(principal, action, resource) when { context.x == ";" }; // two;\n\nforbid(principal'
    first, second = statements(text)
    assert first.text.startswith("permit")
    assert first.text.endswith("};")
    assert str(place_of(text, second.start)) == "4:1"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("permit(principal action, resource);", "1:18"),
        (f"{PERMIT}\n  permit(principal, action, resource) when {{ context.x > }};", "2:58"),
        ("permit(principal, action,\n resource) when {", "2:18"),
        ("permit(principal, action, resource) when { context.x > } x", "1:59"),
        ("permit(principal, action, resource) when { 'x' };", "1:44"),
        ("", None),
        (PERMIT, None),
        ("permit(principal, action, resource) when { nosuch(3) };", None),
    ],
)
def test_a_syntax_error_has_line_and_column(text: str, place: str | None) -> None:
    assert error_at(text) == place


def test_an_error_in_a_schema_has_its_place_too() -> None:
    text = "entity User;\naction a appliesTo { principal: [User] resource: [User] };"
    offset = parse_error_offset(text, Schema.from_str)
    assert offset is not None
    assert place_of(text, offset) == Place(2, 40)


@given(st.text(max_size=60))
def test_whatever_is_broken_has_a_place_inside_of_the_text(garbage: str) -> None:
    text = f"{PERMIT}\n{garbage}"
    offset = parse_error_offset(text, PolicySet.from_str)
    assert offset is None or 0 <= offset <= len(text)


@given(st.text(alphabet=st.characters(exclude_categories=("Cs",)), max_size=40))
def test_a_quoted_text_is_what_cedar_reads(text: str) -> None:
    assert unquoted(quoted(text)) == text
    policy = PolicySet.from_str(f"@id({quoted(text)}) permit(principal, action, resource);")
    assert policy.to_pst().static_policies["policy0"].annotations["id"] == text


@given(st.text(max_size=60))
def test_words_and_their_blanks_are_the_whole_text(text: str) -> None:
    for word in tokens(text):
        assert text[word.start : word.end] == word.text


def test_a_run_of_words_is_found_where_it_begins() -> None:
    words = tokens("context.args.amount + context.args.total")
    found = find_words(words, ["args", ".", "total"])
    assert found is not None
    assert found.start == 30
    assert find_words(words, ["args", ".", "missing"]) is None

"""Principals: what may stand for whom."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exequatur.identity.principal import Principal


@pytest.mark.parametrize(
    ("text", "type_", "id_"),
    [
        ('Agent::"ops-bot"', "Agent", "ops-bot"),
        ('Acme::Staff::User::"a b"', "Acme::Staff::User", "a b"),
        ('User::"zoë@example.org"', "User", "zoë@example.org"),
    ],
)
def test_a_principal_is_read_as_cedar_writes_it(text: str, type_: str, id_: str) -> None:
    principal = Principal.parse(text)
    assert (principal.type, principal.id) == (type_, id_)
    assert str(principal) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Agent",
        'Agent::""',
        'Agent::"a"b"',
        'Agent::"a\\"',
        'Agent::"a\n"',
        'Agent::"a"\n',
        ' Agent::"a"',
        '::"a"',
        'Agent:"a"',
        '1Agent::"a"',
        'A-B::"a"',
        'Agent::"a" || true',
    ],
)
def test_what_cedar_does_not_write_is_no_principal(text: str) -> None:
    with pytest.raises(ValueError, match="is not a Cedar entity"):
        Principal.parse(text)


@given(st.text())
def test_no_text_crashes_or_is_read_as_another_principal(text: str) -> None:
    try:
        principal = Principal.parse(text)
    except ValueError:
        return
    assert str(principal) == text
    assert Principal(principal.type, principal.id) == principal


@given(st.text(), st.text())
def test_no_two_principals_are_written_alike(type_: str, id_: str) -> None:
    try:
        principal = Principal(type_, id_)
    except ValueError:
        return
    assert Principal.parse(str(principal)) == principal

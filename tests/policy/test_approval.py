"""``@approval``: what is written is read, and nothing else is accepted."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exequatur.policy.approval import MAX_QUORUM, MAX_TTL, Approval, parse_approval


def test_an_approval_names_a_group_a_number_of_people_and_a_time() -> None:
    assert parse_approval("finance, 2, 24h") == Approval("finance", 2, timedelta(hours=24))
    assert parse_approval("  head of ops ,1,  30m ") == Approval("head of ops", 1, timedelta(minutes=30))
    assert str(parse_approval("finance,2,7d")) == "2 people of finance, not longer ago than 7d"
    assert str(parse_approval("finance,1,90s")) == "1 person of finance, not longer ago than 90s"


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "1 parts instead of 3"),
        ("finance", "1 parts instead of 3"),
        ("finance, 2, 24h, x", "4 parts instead of 3"),
        (", 2, 24h", "names no group"),
        ('fin"ance, 2, 24h', "names no group"),
        ("finance, two, 24h", "asks for two people"),
        ("finance, 0, 24h", "asks for 0 people"),
        ("finance, -1, 24h", "asks for -1 people"),
        ("finance, 1001, 24h", "asks for 1001 people"),
        ("finance, ٢, 24h", "asks for"),
        ("finance, 2, 24", "where a time must stand"),
        ("finance, 2, 0h", "where a time must stand"),
        ("finance, 2, 1.5h", "where a time must stand"),
        ("finance, 2, 9999999d", "write at most 3650d"),
    ],
)
def test_another_form_is_refused_with_the_right_one(text: str, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        parse_approval(text)


@given(st.text() | st.from_regex(r"[a-z ]{0,4},\s?[0-9]{0,5},\s?[0-9]{0,8}[a-z]?", fullmatch=True))
def test_no_text_crashes_and_what_is_read_is_within_bounds(text: str) -> None:
    try:
        found = parse_approval(text)
    except ValueError:
        return
    assert found.group.strip() == found.group
    assert 1 <= found.quorum <= MAX_QUORUM
    assert timedelta(0) < found.ttl <= MAX_TTL

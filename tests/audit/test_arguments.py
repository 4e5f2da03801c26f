"""Recorded arguments against the recorded input, without the code that made one of the other."""

import json
from typing import Any

import pytest
from temporalio.api.common.v1 import Payload

from exequatur.audit.arguments import stand_in


def payload(value: Any) -> Payload:
    return Payload(metadata={"encoding": b"json/plain"}, data=json.dumps(value).encode())


ORDER = {
    "id": "o-1",
    "amount": 600.5,
    "lines": [{"sku": "a", "count": 3}],
    "urgent": True,
    "at": "2026-01-01T00:00:00Z",
}


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"order": {"id": "o-1", "urgent": True}},
        {"order": {"amount": {"__extn": {"fn": "decimal", "arg": "600.50"}}}},
        {"order": {"lines": [{"sku": "a", "count": 3}]}},
        {"order": {"at": {"__extn": {"fn": "datetime", "arg": "2026-01-01T01:00:00+01:00"}}}},
        {"note": "n"},
    ],
)
def test_what_stands_in_the_input_is_found(arguments: Any) -> None:
    assert stand_in(arguments, [payload(ORDER), payload("n")])


@pytest.mark.parametrize(
    "arguments",
    [
        {"order": {"amount": 10}},
        {"order": {"urgent": False}},
        {"order": {"id": "o-2"}},
        {"order": {"lines": [{"sku": "a", "count": 4}]}},
        {"order": {"id": "1" * 5000}},
        {"default": "of the code"},
    ],
)
def test_what_does_not_is_not(arguments: Any) -> None:
    assert not stand_in(arguments, [payload(ORDER), payload("n")])


@pytest.mark.parametrize("data", [b"", b"\xff", b"{", b"[" * 100_000, b"NaN", b'"\\ud800"'])
def test_an_input_that_is_no_json_holds_nothing(data: bytes) -> None:
    assert not stand_in({"order": "o-1"}, [Payload(data=data)])

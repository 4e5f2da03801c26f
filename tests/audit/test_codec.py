"""Encoded histories: with the converter everything is checked, without it nothing is called verified."""

from __future__ import annotations

import pytest

from exequatur.audit.codec import converter_of, decoded
from exequatur.audit.evidence import journals_in
from exequatur.audit.history import history_from_json
from exequatur.audit.report import Verdict
from exequatur.audit.trust import read_trust
from exequatur.audit.verify import audit_run
from exequatur.errors import ConfigurationError, EvidenceError
from tests.audit.runs import CONVERTER, Runs

ENCODED = ["turned", "turned-local"]


@pytest.mark.parametrize("name", ENCODED)
async def test_with_the_converter_an_encoded_run_is_verified(runs: Runs, name: str) -> None:
    history = await decoded(history_from_json(runs.histories[name].encode()), CONVERTER)
    report = audit_run(history, journals_in(runs.journal), read_trust(runs.trust))
    assert report.verdict is Verdict.VERIFIED, report.findings
    assert all(each.recomputed for activity in report.activities for each in activity.decisions)


@pytest.mark.parametrize("name", ENCODED)
async def test_without_the_converter_an_encoded_run_is_not_called_verified(runs: Runs, name: str) -> None:
    history = history_from_json(runs.histories[name].encode())
    report = audit_run(history, journals_in(runs.journal), read_trust(runs.trust))
    assert report.verdict is Verdict.UNCHECKED
    assert [each.code for each in report.findings] == ["payload-encoded"]
    assert {activity.proof for activity in report.activities} == {"none"}


async def test_a_converter_without_a_codec_changes_nothing(runs: Runs) -> None:
    history = history_from_json(runs.histories["denied"].encode())
    assert await decoded(history, CONVERTER) == history


async def test_a_payload_that_the_converter_refuses_is_named(runs: Runs) -> None:
    history = history_from_json(runs.histories["turned"].encode())
    for payload in history.started.header.fields.values():
        payload.data = b"\x00"
    with pytest.raises(EvidenceError, match="event 1: the data converter cannot decode"):
        await decoded(history, CONVERTER)


def test_a_converter_is_found_by_its_name() -> None:
    assert converter_of("tests.audit.runs:CONVERTER") is CONVERTER
    for wrong in ("", "tests.audit.runs", "tests.audit.runs:ACTIVITIES", "no.such:thing", ":", "tests.audit.runs:"):
        with pytest.raises(ConfigurationError):
            converter_of(wrong)

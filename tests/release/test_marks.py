"""What was adopted is remembered, or nothing is adopted."""

import json
import os
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exequatur.errors import PolicyError
from exequatur.release.marks import Marks
from exequatur.release.verify import Mark
from exequatur.statements.models import Release


def release(sequence: int, bundle: str = "A" * 43, name: str = "policies") -> Release:
    return Release(iss="i", iat=0.0, name=name, bundle=bundle, digest="D" * 43, sequence=sequence)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "policy-marks.json"


def test_nothing_was_adopted_before_the_first_start(path: Path):
    assert Marks(path).get("policies", "stable") is None


@pytest.mark.rule("J23")
def test_what_was_adopted_is_known_after_a_restart_by_name_and_channel(path: Path):
    Marks(path).raise_to(release(3), "stable")
    Marks(path).raise_to(release(5, name="other"), "stable")
    Marks(path).raise_to(release(9), "canary")
    again = Marks(path)
    assert again.get("policies", "stable") == Mark(3, "A" * 43)
    assert again.get("policies", "canary") == Mark(9, "A" * 43)
    assert again.get("other", "stable") == Mark(5, "A" * 43)
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.rule("J21")
def test_another_process_that_was_faster_is_not_taken_back(path: Path):
    slow = Marks(path)
    slow.raise_to(release(1), "stable")
    Marks(path).raise_to(release(7), "stable")
    with pytest.raises(PolicyError, match="older"):
        slow.raise_to(release(6), "stable")
    assert Marks(path).get("policies", "stable") == Mark(7, "A" * 43)


@pytest.mark.rule("J21")
def test_many_that_raise_at_once_end_at_the_highest(path: Path):
    def raise_to(sequence: int) -> None:
        try:
            Marks(path).raise_to(release(sequence), "stable")
        except PolicyError:
            refused.append(sequence)

    refused: list[int] = []
    threads = [threading.Thread(target=raise_to, args=(sequence,)) for sequence in range(1, 20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Marks(path).get("policies", "stable") == Mark(19, "A" * 43)
    assert 19 not in refused


@pytest.mark.rule("J22")
@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"policies": 1}',
        '{"policies": {"beta": {"sequence": 1, "bundle": "x"}}}',
        '{"policies": {"stable": {"sequence": "1", "bundle": "' + "A" * 43 + '"}}}',
        '{"policies": {"stable": {"sequence": 0, "bundle": "' + "A" * 43 + '"}}}',
        "[" * 100_000,
        "x" * 2_000_000,
    ],
)
def test_a_damaged_file_is_not_taken_for_a_first_start(path: Path, text: str):
    path.write_text(text)
    marks = Marks(path)
    with pytest.raises(PolicyError, match="is damaged"):
        marks.get("policies", "stable")
    with pytest.raises(PolicyError, match="is damaged"):
        marks.raise_to(release(1), "stable")
    assert path.read_text() == text


@given(st.binary(max_size=200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_bytes_crash(path: Path, data: bytes):
    path.write_bytes(data)
    try:
        assert Marks(path).get("policies", "stable") is None
        assert json.loads(data) == {} or "policies" not in json.loads(data)
    except PolicyError:
        pass


@pytest.mark.rule("J23")
def test_what_cannot_be_remembered_is_not_adopted(path: Path):
    path.mkdir()
    with pytest.raises(PolicyError, match="cannot be read"):
        Marks(path).raise_to(release(1), "stable")
    with pytest.raises(PolicyError, match="cannot be remembered"):
        Marks(path.parent / "missing" / "marks").raise_to(release(1), "stable")


@pytest.mark.rule("J24")
def test_a_mark_does_not_fall_when_its_file_is_lost(path: Path):
    marks = Marks(path)
    marks.raise_to(release(7), "stable")
    path.unlink()
    with pytest.raises(PolicyError, match="older"):
        marks.raise_to(release(6), "stable")
    marks.raise_to(release(7), "stable")
    assert Marks(path).get("policies", "stable") == Mark(7, "A" * 43)


@pytest.mark.rule("J24")
def test_a_mark_does_not_fall_when_an_older_file_is_put_back(path: Path):
    marks = Marks(path)
    marks.raise_to(release(1), "stable")
    older = path.read_bytes()
    marks.raise_to(release(7), "stable")
    path.write_bytes(older)
    os.utime(path)
    assert marks.get("policies", "stable") == Mark(7, "A" * 43)

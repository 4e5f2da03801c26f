"""What a worker goes on with: after a canary, after a refusal, and after a start on a bad day."""

import logging
import os
from pathlib import Path
from typing import Any

import pytest

from exequatur.errors import PolicyError
from exequatur.policy import folder as folder_module
from exequatur.release import source as source_module
from exequatur.release.marks import Marks
from exequatur.release.opening import MARKS_NAME
from exequatur.statements.trust import TrustStore
from tests.release.parties import PolicyTeam, Server, made, status
from tests.release.test_source import CANARY, PATH, policies, worker

__all__ = ["worker"]  # a fixture


class Panic(BaseException):
    """As Cedar's native code raises: not an Exception."""


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Policies with the word ``crash`` in them raise this when they are parsed."""
    real = source_module.PolicyBundle

    def parse(source: Any) -> Any:
        if "crash" in source.policy_text:
            raise error
        return real(source)

    monkeypatch.setattr(source_module, "PolicyBundle", parse)


@pytest.mark.rule("J31")
@pytest.mark.parametrize("error", [Panic("panicked"), MemoryError()], ids=repr)
def test_a_canary_that_crashes_the_parser_does_not_hold_up_the_stable_bundle(
    error: BaseException, worker, team: PolicyTeam, tmp_path: Path, monkeypatch, caplog
):
    path = tmp_path / "policies.bundle"
    path.write_bytes(team.released(policies("one"), 1))
    w = worker(path)
    w.start()
    stable, canary = team.released(policies("two"), 2), team.released(policies("crash"), 3, share=100)
    failing(monkeypatch, error)
    path.write_bytes(stable)
    (tmp_path / "policies.canary.bundle").write_bytes(canary)
    w.look()
    assert (w.in_force, w.refusals) == ("two", [])
    assert "left aside" in caplog.text
    assert worker(path).start().provenance.sequence == 2, "at a start, too"


@pytest.mark.rule("J34")
def test_an_older_stable_bundle_does_not_come_back_after_a_canary(worker, shelf: Server, team: PolicyTeam):
    bad = team.released(policies("bad"), 2)
    shelf.files = {PATH: team.released(policies("one"), 1), CANARY: team.released(policies("canary"), 10, share=100)}
    w = worker(shelf.url())
    w.start()
    for stable in (bad, team.released(policies("fixed"), 3)):
        shelf.files[PATH] = stable
        w.look()
    assert w.in_force == "canary"
    del shelf.files[CANARY]
    shelf.files[PATH] = bad
    w.look()
    assert w.in_force == "canary"
    assert "older than release 3" in w.refusals[0]
    shelf.bad = {PATH: status(503), CANARY: status(503)}
    assert worker(shelf.url()).start().provenance.sequence == 10, "the stable bundle beside it is kept with it"


@pytest.mark.rule("J34")
def test_a_canary_that_is_adopted_raises_the_mark_of_the_stable_bundle_beside_it(
    worker, team: PolicyTeam, tmp_path: Path
):
    path = tmp_path / "policies.bundle"
    path.write_bytes(team.released(policies("one"), 5))
    (tmp_path / "policies.canary.bundle").write_bytes(team.released(policies("two"), 10, share=100))
    w = worker(path)
    w.start()
    kept = Marks(w.state / MARKS_NAME)
    marks = [kept.get("policies", "stable"), kept.get("policies", "canary")]
    assert [mark and mark.sequence for mark in marks] == [5, 10]


@pytest.mark.rule("J33")
def test_a_canary_by_a_key_that_was_taken_out_of_the_file_makes_way_for_the_stable_bundle(
    worker, team: PolicyTeam, tmp_path: Path
):
    other = PolicyTeam(tmp_path, "other")
    both = tmp_path / "both.jwks"
    both.write_bytes(TrustStore([team.anchor(), other.anchor()]).to_jwks())
    path = tmp_path / "policies.bundle"
    path.write_bytes(team.released(policies("one"), 1))
    (tmp_path / "policies.canary.bundle").write_bytes(other.released(policies("evil"), 10, share=100))
    w = worker(path, policy_keys=str(both))
    w.start()
    assert w.in_force == "evil"
    both.write_bytes(team.trust().to_jwks())
    w.look()
    assert (w.in_force, w.refusals) == ("one", [])


@pytest.mark.rule("J32")
@pytest.mark.parametrize("error", [Panic("panicked"), MemoryError()], ids=repr)
def test_a_worker_starts_with_what_it_adopted_when_the_newest_crashes_the_parser(
    error: BaseException, worker, shelf: Server, team: PolicyTeam, monkeypatch
):
    shelf.files[PATH] = team.released(policies("one"), 1)
    worker(shelf.url()).start()
    shelf.files[PATH] = team.released(policies("crash"), 2)
    failing(monkeypatch, error)
    w = worker(shelf.url())
    w.start()
    assert w.in_force == "one"


@pytest.mark.rule("J32")
def test_what_does_not_fit_makes_way_for_what_was_adopted(worker, shelf: Server, team: PolicyTeam, caplog):
    shelf.files[PATH] = team.released(policies("one"), 1)
    w = worker(shelf.url())
    w.start()
    shelf.files |= {PATH: team.released(policies("two"), 2), CANARY: team.released(policies("two"), 3, share=100)}

    def fits(bundle: Any) -> None:
        if "two" in str(bundle.source.policies):
            raise PolicyError("They do not fit.")

    with caplog.at_level(logging.WARNING):
        again = worker(shelf.url())
        source = source_of(again)
        offer = source.offer(None, fits)
    assert offer.provenance.sequence == 1
    assert "They do not fit" in caplog.text
    shelf.bad = {PATH: status(503)}
    assert worker(shelf.url()).start().provenance.sequence == 1, "what was not adopted was not remembered"


def source_of(w: Any) -> Any:
    from exequatur.release.opening import open_policies

    return open_policies(w.where, w.settings, state_dir=w.state, worker=w.worker)


@pytest.mark.rule("folder.W2")
def test_what_could_not_be_remembered_is_looked_at_again(worker, team: PolicyTeam, tmp_path: Path, monkeypatch):
    path = tmp_path / "policies.bundle"
    path.write_bytes(team.released(policies("one"), 1))
    w = worker(path)
    w.start()
    marks = w.state / MARKS_NAME
    kept = marks.read_bytes()
    marks.unlink()
    marks.mkdir()  # as if the disk were full
    path.write_bytes(team.released(policies("two"), 2))
    w.look()
    marks.rmdir()
    marks.write_bytes(kept)
    w.look()
    assert (w.in_force, len(w.refusals)) == ("one", 1)
    monkeypatch.setattr(folder_module, "_RETRY", 0.0)
    w.look()
    assert (w.in_force, len(w.refusals)) == ("two", 1)


@pytest.mark.rule("J4")
def test_a_sequence_far_ahead_does_not_shut_out_the_releases_to_come(worker, team: PolicyTeam, tmp_path: Path):
    path = tmp_path / "policies.bundle"
    path.write_bytes(team.released(policies("one"), 1))
    w = worker(path)
    w.start()
    path.write_bytes(ahead(team, policies("evil"), 2**53 - 1))
    w.look()
    assert w.in_force == "one"
    assert "more than a day ahead" in w.refusals[0]
    path.write_bytes(team.release(made(policies("two"))).to_bytes())
    w.look()
    assert w.in_force == "two"


def ahead(team: PolicyTeam, text: str, sequence: int) -> bytes:
    """What our own tools refuse to sign."""
    from exequatur.release.file import BundleFile
    from exequatur.statements.jws import sign
    from exequatur.statements.models import Release

    file = made(text)
    digest = file.open("x").source.digest
    release = Release(
        iss=team.issuer, iat=1.7e9, name="policies", bundle=file.address, digest=digest, sequence=sequence
    )
    return BundleFile(file.content, (sign(release, team.key).text,)).to_bytes()


@pytest.mark.rule("J4")
def test_a_sequence_far_ahead_is_not_signed(team: PolicyTeam, now: float):
    day = 86_400
    assert team.release(made(), int(now) + day, now=now).releases
    with pytest.raises(PolicyError, match="Give a lower --sequence, or none"):
        team.release(made(), int(now) + day + 1, now=now)


@pytest.mark.rule("J12")
def test_what_stands_where_releases_should_is_not_searched_when_it_is_too_long():
    from exequatur.release.file import BundleFile

    long = b",".join([b'"' + b"a" * 4096 + b'"'] * 9)
    for tail in (long, os.urandom(1).hex().encode() * 100_000):
        with pytest.raises(PolicyError, match="not a whole bundle file"):
            BundleFile.read(made().to_bytes().replace(b'"releases":[]', b'"releases":[' + tail + b"]"), "x")

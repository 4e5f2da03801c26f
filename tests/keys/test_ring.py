"""Rules T11 to T14: which key signs now, and what a running process makes of a ring that changes under it."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from exequatur.authority.keyring import KEYS, KeyRole
from exequatur.authority.rotation import generate, retire, rotate
from exequatur.authority.state import State, open_state
from exequatur.errors import ConfigurationError, SigningError
from exequatur.failures import AuthorizationUnavailable
from exequatur.statements.jws import parse, sign
from exequatur.statements.keys import Signer, SigningKey
from exequatur.statements.models import Grant
from tests.simulator import Authority as Simulated


def looks(state: State) -> None:
    """What the plugin's thread does every second."""
    state.anchors._begun = -1e9
    state.anchors.refresh_if_due()


def at(state: State, moment: float) -> None:
    """Put the clock of the ring forward."""
    state.ring._clock = lambda: moment


def ring_of(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((path / "keys" / "ring.json").read_text())
    return document


def write(path: Path, document: object) -> None:
    file = path / "keys" / "ring.json"
    file.write_bytes(document if isinstance(document, bytes) else json.dumps(document).encode())
    file.chmod(0o600)


def parsed(text: str) -> Grant:
    return parse(text, Grant).claims


def content(path: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def test_a_folder_without_a_ring_keeps_working_and_is_not_rewritten(state: Path) -> None:
    before = content(state)
    opened = open_state(state)
    assert {opened.signer(role).kid for role in KEYS} == {anchor.kid for anchor in opened.trust}
    assert content(state) == before


@pytest.mark.rule("T12")
def test_a_key_signs_from_its_time_on_and_the_one_before_until_then(state: Path) -> None:
    opened = open_state(state)
    old = opened.signer("grant")
    done = rotate(state, "grant", 600)
    looks(opened)
    assert opened.trust.get(done.key.kid), "published before it signs"
    assert opened.signer("grant").kid == old.kid
    at(opened, done.at - 1)
    assert opened.signer("grant").kid == old.kid
    at(opened, done.at)
    assert opened.signer("grant").kid == done.key.kid
    assert open_state(state).signer("grant").kid == old.kid


@pytest.mark.rule("T12")
def test_of_several_keys_the_one_whose_time_came_last_signs(state: Path) -> None:
    first, second = rotate(state, "grant", 0).key, rotate(state, "grant", 0).key
    assert open_state(state).signer("grant").kid == second.kid
    rotate(state, "grant", 0, to=first.kid)
    assert open_state(state).signer("grant").kid == first.kid


@pytest.mark.rule("T12")
def test_a_key_that_waits_or_is_retired_does_not_sign(state: Path) -> None:
    opened = open_state(state)
    old = opened.signer("grant")
    waiting = generate(state, "grant")
    looks(opened)
    assert opened.signer("grant").kid == old.kid
    new = rotate(state, "grant", 0, to=waiting.kid)
    retire(state, old.kid)
    looks(opened)
    at(opened, new.at - 1)
    with pytest.raises(SigningError, match="run: exequatur keys rotate grant --overlap 0s"):
        opened.signer("grant")


async def test_where_no_key_can_sign_it_is_unavailable_and_not_denied(state: Path) -> None:
    opened = open_state(state)
    document = json.loads((state / "trust.jwks").read_text())
    for entry in document["keys"]:
        entry["exp"] = time.time() - 1
    (state / "trust.jwks").write_text(json.dumps(document))
    looks(opened)
    with pytest.raises(AuthorizationUnavailable, match="There is no key that may sign a grant"):
        await opened.sign("grant", parsed(Simulated().grant()))


@pytest.mark.rule("T13")
def test_a_key_whose_anchor_is_retired_or_not_published_signs_nothing(state: Path) -> None:
    opened = open_state(state)
    old = opened.signer("grant").kid
    new = rotate(state, "grant", 0).key.kid
    looks(opened)
    assert opened.signer("grant").kid == new
    document = json.loads((state / "trust.jwks").read_text())
    next(entry for entry in document["keys"] if entry["kid"] == new)["exp"] = time.time() - 1
    (state / "trust.jwks").write_text(json.dumps(document))
    looks(opened)
    assert opened.signer("grant").kid == old


@pytest.mark.rule("T13")
def test_a_ring_that_is_lost_brings_no_retired_key_back(state: Path) -> None:
    old = open_state(state).signer("grant").kid
    rotate(state, "grant", 0)
    ended = retire(state, old).retired or 0.0
    (state / "keys" / "ring.json").unlink()
    opened = open_state(state)
    at(opened, ended + 1)
    with pytest.raises(SigningError):
        opened.signer("grant")


# Rings that cannot be read.


def changed(**changes: object) -> Callable[[dict[str, Any]], object]:
    return lambda ring: ring | {"keys": [ring["keys"][0] | changes, *ring["keys"][1:]]}


RINGS: dict[str, Callable[[dict[str, Any]], object]] = {
    "empty": lambda _: b"",
    "truncated": lambda ring: json.dumps(ring).encode()[:-20],
    "not UTF-8": lambda _: b"\xff\xfe{}",
    "deep": lambda _: b"[" * 60_000,
    "a list": lambda ring: ring["keys"],
    "huge": lambda ring: json.dumps(ring).encode() + b" " * 70_000,
    "of another version": lambda ring: ring | {"version": 2},
    "with an unknown member": lambda ring: ring | {"more": 1},
    "with duplicate members": lambda ring: json.dumps(ring).encode().replace(b'"version"', b'"version": 1, "version"'),
    "with a key twice": lambda ring: ring | {"keys": ring["keys"] + ring["keys"][:1]},
    "with a key in two roles": lambda ring: ring | {"keys": ring["keys"] + [ring["keys"][0] | {"role": "permit"}]},
    "with an unknown role": changed(role="root"),
    "with a path for a source": changed(source="file:../../key.pem"),
    "with an ill-typed time": changed(made="today"),
    "with another key's name": changed(kid=SigningKey.generate().kid),
    "with a key that is not there": changed(source="file:gone.pem"),
    "with too many keys": lambda ring: ring | {"keys": ring["keys"] * 60},
}


@pytest.mark.rule("T11", "T14")
@pytest.mark.parametrize("how", RINGS)
def test_a_broken_ring_is_refused_at_start_and_not_taken_over_by_who_runs(
    state: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    rotate(state, "grant", 0)
    running = open_state(state)
    good, signing = ring_of(state), running.signer("grant").kid
    write(state, RINGS[how](good))
    for _ in range(3):
        looks(running)
    assert running.signer("grant").kid == signing
    assert running.problem is not None
    assert [record.levelname for record in caplog.records].count("ERROR") == 1, "said once"
    with pytest.raises(ConfigurationError) as raised:
        open_state(state)
    assert str(state / "keys") in str(raised.value)
    write(state, good)
    looks(running)
    assert running.problem is None
    assert open_state(state).signer("grant").kid == signing


@pytest.mark.rule("T8", "T14")
@pytest.mark.parametrize("kind", ["open to others", "a link", "a pipe", "a folder", "gone"])
def test_a_ring_that_is_no_file_of_its_owner_is_not_taken_over(state: Path, kind: str) -> None:
    rotate(state, "grant", 0)
    running = open_state(state)
    signing, file = running.signer("grant").kid, state / "keys" / "ring.json"
    if kind == "open to others":
        file.chmod(0o644)
        os.utime(file, ns=(1, 1))
    else:
        file.rename(state / "ring.elsewhere")
    if kind == "a link":
        file.symlink_to(state / "ring.elsewhere")
        os.utime(file, ns=(1, 1))
    elif kind == "a pipe":
        os.mkfifo(file, 0o600)
    elif kind == "a folder":
        file.mkdir(0o700)
    looks(running)
    assert running.signer("grant").kid == signing
    assert running.problem is not None


@pytest.mark.rule("T14")
def test_anchors_are_learned_also_while_the_ring_is_broken(state: Path) -> None:
    running = open_state(state)
    key = generate(state, "grant")
    write(state, b"{")
    looks(running)
    assert running.ring.problem is not None
    assert running.trust.get(key.kid) is not None
    write(state, b"{}")
    assert running.signer("grant"), "whoever signs looks at the ring, and is not stopped by it"


def test_a_trust_file_that_shrinks_changes_nothing_and_is_named(state: Path) -> None:
    running = open_state(state)
    known = list(running.trust)
    document = json.loads((state / "trust.jwks").read_text())
    (state / "trust.jwks").write_text(json.dumps({"keys": document["keys"][:2]}))
    for _ in range(2):
        looks(running)
        assert list(running.trust) == known
        assert "lacks key" in (running.problem or "")


@pytest.mark.parametrize("role", ["permit", "approval"])
def test_one_key_has_one_role(state: Path, role: KeyRole) -> None:
    (state / "keys" / f"{role}.pem").write_bytes((state / "keys" / "grant.pem").read_bytes())
    with pytest.raises(ConfigurationError, match="may sign exequatur-grant"):
        open_state(state)


def test_a_link_in_the_place_of_a_key_is_refused(state: Path) -> None:
    (state / "keys" / "grant.pem").rename(state / "grant.pem")
    (state / "keys" / "grant.pem").symlink_to(state / "grant.pem")
    with pytest.raises(ConfigurationError, match="is a symbolic link"):
        open_state(state)


def test_who_asks_for_a_key_that_he_knows_gets_an_older_one_that_may_still_sign(state: Path) -> None:
    opened = open_state(state)
    old = opened.signer("approval")
    new = rotate(state, "approval", 0).key
    looks(opened)
    assert opened.signer("approval").kid == new.kid
    known: Signer | None = opened.signer_among("approval", {old.kid})
    assert known is not None
    assert known.kid == old.kid
    assert opened.signer_among("approval", {"another"}) is None
    retire(state, old.kid)
    looks(opened)
    assert opened.signer_among("approval", {old.kid}) is None


def test_what_the_old_key_signed_verifies_after_it_was_retired(state: Path) -> None:
    opened = open_state(state)
    claims = parsed(Simulated().grant()).model_copy(update={"iss": opened.issuer, "iat": float(int(time.time()))})
    token = sign(claims, opened.signer("grant"))
    old = opened.signer("grant").kid
    rotate(state, "grant", 0)
    retire(state, old)
    for each in (opened, open_state(state)):
        looks(each)
        each.trust.verify(token)

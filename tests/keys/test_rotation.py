"""Rules T15 to T18: keys are made, taken, rotated, retired and revoked, and a change that fails changes nothing."""

import json
import threading
import time
from pathlib import Path

import pytest

from exequatur.authority.keyring import KEYS, RingKey
from exequatur.authority.rotation import generate, read_keys, retire, revoke, rotate, take
from exequatur.authority.state import open_state
from exequatur.errors import ConfigurationError, ExequaturError
from exequatur.revocation.entry import revocation
from exequatur.revocation.store import FolderStore
from exequatur.statements.keys import SigningKey
from exequatur.statements.trust import TrustStore
from tests.keys import kms
from tests.keys.test_ring import content, looks

SECRET = "correct horse battery staple"


def anchors(state: Path) -> dict[str, float | None]:
    """When the published anchors end, by key."""
    return {each.kid: each.exp for each in TrustStore.from_jwks((state / "trust.jwks").read_bytes())}


def in_feed(state: Path, reason: str = "it was stolen") -> "FeedOf":
    return FeedOf(state, reason)


class FeedOf:
    """Revokes in the folder's own feed, as the command does."""

    def __init__(self, state: Path, reason: str) -> None:
        self._store, self._reason = FolderStore(state), reason

    def __call__(self, key: RingKey) -> int:
        return self._store.add(revocation(key=key.kid, reason=self._reason))


def private(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    path.chmod(0o600)
    return path


@pytest.mark.rule("T15")
def test_a_new_key_is_published_at_once_and_waits(state: Path) -> None:
    before = open_state(state).signer("grant").kid
    key = generate(state, "grant")
    assert key.signs_from is None
    assert key.kid in anchors(state)
    assert open_state(state).signer("grant").kid == before


@pytest.mark.rule("T15")
def test_a_rotation_waits_for_its_overlap(state: Path) -> None:
    begun = time.time()
    done = rotate(state, "grant", 600)
    assert done.at >= begun + 599
    assert done.key.kid in anchors(state)
    assert done.before is not None
    assert done.before.kid == open_state(state).signer("grant").kid


def test_a_rotation_takes_the_key_that_waits(state: Path) -> None:
    generate(state, "grant")
    waiting = generate(state, "grant")
    assert rotate(state, "grant", 0).key.kid == waiting.kid


def test_a_second_rotation_waits_for_the_first_unless_it_names_a_key(state: Path) -> None:
    first = rotate(state, "grant", 600)
    with pytest.raises(ConfigurationError, match=f"Key {first.key.kid} is already to sign grants soon"):
        rotate(state, "grant", 0)
    assert rotate(state, "grant", 0, to=first.key.kid).key.kid == first.key.kid
    assert open_state(state).signer("grant").kid == first.key.kid


@pytest.mark.parametrize("overlap", [-1.0, float("nan"), float("inf"), 1e9])
def test_an_overlap_that_is_none_is_refused(state: Path, overlap: float) -> None:
    before = content(state)
    with pytest.raises(ConfigurationError, match="An overlap lasts between"):
        rotate(state, "grant", overlap)
    assert content(state) == before


def test_a_key_of_another_role_is_not_rotated_to(state: Path) -> None:
    key = generate(state, "permit")
    with pytest.raises(ConfigurationError, match="signs permits"):
        rotate(state, "grant", 0, to=key.kid)


def test_one_role_is_rotated_without_the_others(state: Path) -> None:
    before = {role: open_state(state).signer(role).kid for role in KEYS}
    rotate(state, "grant", 0)
    after = {role: open_state(state).signer(role).kid for role in KEYS}
    assert [role for role in KEYS if before[role] != after[role]] == ["grant"]


@pytest.mark.rule("T16")
def test_a_key_that_signs_is_not_retired(state: Path) -> None:
    signing = open_state(state).signer("grant").kid
    with pytest.raises(ConfigurationError, match="signs grants now; run: exequatur keys rotate grant"):
        retire(state, signing)
    rotate(state, "grant", 600)
    with pytest.raises(ConfigurationError, match="signs grants now; wait until the next one signs"):
        retire(state, signing)
    assert open_state(state).signer("grant").kid == signing


@pytest.mark.rule("T17")
def test_a_retired_anchor_outlives_what_a_process_signs_that_has_not_heard_of_it(state: Path) -> None:
    running = open_state(state)
    old = running.signer("grant")
    rotate(state, "grant", 0)
    retire(state, old.kid)
    ends = anchors(state)[old.kid]
    assert ends is not None
    assert ends >= time.time() + 10
    looks(running)
    assert running.trust.resolve(old.kid, typ=KEYS["grant"], iss=running.issuer, at=time.time() + 10)


def test_retiring_again_completes_what_was_interrupted(state: Path) -> None:
    old = open_state(state).signer("grant").kid
    rotate(state, "grant", 0)
    before = (state / "trust.jwks").read_bytes()
    ended = retire(state, old).retired
    (state / "trust.jwks").write_bytes(before)
    assert retire(state, old).retired == ended
    assert anchors(state)[old] == ended


def test_the_rotation_that_is_to_come_is_called_off_by_retiring_its_key(state: Path) -> None:
    signing = open_state(state).signer("grant").kid
    coming = rotate(state, "grant", 600).key
    retire(state, coming.kid)
    assert [key.kid for key in read_keys(state).ring.of("grant") if key.retired is None] == [signing]
    with pytest.raises(ConfigurationError, match="is retired"):
        rotate(state, "grant", 0, to=coming.kid)


@pytest.mark.rule("T18")
def test_a_revoked_key_is_in_the_feed_and_signs_no_more(state: Path) -> None:
    running = open_state(state)
    old = running.signer("grant").kid
    rotate(state, "grant", 0)
    key, version, after = revoke(state, old, in_feed(state))
    assert (key.kid, key.revoked, version) == (old, True, 1)
    assert after is not None
    assert [each.key for each in FolderStore(state).all_entries()] == [old]
    looks(running)
    assert running.signer("grant").kid == after.kid != old
    assert (anchors(state)[old] or 1e12) <= time.time() + 1


@pytest.mark.rule("T18")
def test_a_key_that_could_not_be_put_into_the_feed_goes_on_signing(state: Path) -> None:
    old = open_state(state).signer("grant").kid
    rotate(state, "grant", 600)

    def fails(key: RingKey) -> int:
        raise ExequaturError("the disk is full")

    before = content(state)
    with pytest.raises(ExequaturError, match="the disk is full"):
        revoke(state, old, fails, last=True)
    assert content(state) == before
    assert open_state(state).signer("grant").kid == old


@pytest.mark.rule("T16")
@pytest.mark.parametrize("role", KEYS)
def test_revoking_the_only_key_says_what_stops_and_needs_a_yes(state: Path, role: str) -> None:
    [key] = [each for each in read_keys(state).ring.keys if each.role == role]
    with pytest.raises(ConfigurationError, match=rf"the only one that signs {role}s; without it .* give --yes"):
        revoke(state, key.kid, in_feed(state))
    assert not FolderStore(state).all_entries()
    _, _, after = revoke(state, key.kid, in_feed(state), last=True)
    assert after is None
    fresh = rotate(state, key.role, 0)
    assert open_state(state).signer(key.role).kid == fresh.key.kid


def test_the_key_before_signs_again_when_the_newest_is_revoked(state: Path) -> None:
    old = open_state(state).signer("grant").kid
    new = rotate(state, "grant", 0).key
    _, _, after = revoke(state, new.kid, in_feed(state))
    assert after is not None
    assert after.kid == old == open_state(state).signer("grant").kid


@pytest.mark.parametrize("kid", ["", "abc", "x" * 43, "é" * 10, "A" * 100_000])
def test_a_key_that_is_not_there_is_not_guessed(state: Path, kid: str) -> None:
    for change in (lambda: retire(state, kid), lambda: revoke(state, kid, in_feed(state))):
        with pytest.raises(ConfigurationError, match="no key begins with"):
            change()
    assert not FolderStore(state).all_entries()


# Keys from elsewhere.


def test_a_pem_is_copied_and_an_encrypted_one_stays_encrypted(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEY_PASSPHRASE", SECRET)
    key = SigningKey.generate()
    file = private(tmp_path / "mine.pem", key.to_pem(SECRET.encode()))
    taken = take(state, "grant", pem=file, passphrase="env:KEY_PASSPHRASE")
    assert taken.kid == key.kid
    copy = state / "keys" / taken.source.removeprefix("file:")
    assert copy.read_bytes() == file.read_bytes()
    assert copy.stat().st_mode & 0o777 == 0o600
    assert b"ENCRYPTED" in copy.read_bytes()
    rotate(state, "grant", 0)
    assert open_state(state).signer("grant").kid == key.kid
    assert SECRET.encode() not in b"".join(content(state).values())


def test_a_generated_key_is_encrypted_where_a_passphrase_is_named(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY_PASSPHRASE", SECRET)
    key = rotate(state, "grant", 0, passphrase="env:KEY_PASSPHRASE").key
    assert b"ENCRYPTED" in (state / "keys" / key.source.removeprefix("file:")).read_bytes()
    assert open_state(state).signer("grant").kid == key.kid
    monkeypatch.delenv("KEY_PASSPHRASE")
    with pytest.raises(ConfigurationError, match="KEY_PASSPHRASE is not set"):
        open_state(state)


def test_a_key_in_the_environment_is_never_written(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = SigningKey.generate()
    monkeypatch.setenv("GRANT_KEY", key.to_pem().decode())
    take(state, "grant", source="env:GRANT_KEY")
    rotate(state, "grant", 0)
    assert open_state(state).signer("grant").kid == key.kid
    secret = key.to_pem().splitlines()[1]
    assert all(secret not in data for data in content(state).values())


def test_a_key_in_another_process_signs_for_the_authority(state: Path) -> None:
    service = kms.signer("first")
    try:
        taken = take(state, "grant", source="signer:tests.keys.kms:signer", argument="first")
        assert taken.kid == service.kid
        rotate(state, "grant", 0)
        key = open_state(state).signer("grant")
        asked = service.asked
        key.sign(b"a grant")
        assert (key.kid, service.asked) == (service.kid, asked + 1)
    finally:
        service.close()
        kms.signer.cache_clear()


def test_the_first_key_of_a_role_signs_at_once_so_that_none_is_ever_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, state = SigningKey.generate(), tmp_path / "fresh"
    monkeypatch.setenv("GRANT_KEY", key.to_pem().decode())
    take(state, "grant", source="env:GRANT_KEY")
    assert open_state(state).signer("grant").kid == key.kid
    assert not (state / "keys" / "grant.pem").exists()


@pytest.mark.rule("T11")
def test_a_key_is_imported_once_and_for_one_role(state: Path, tmp_path: Path) -> None:
    file = private(tmp_path / "mine.pem", SigningKey.generate().to_pem())
    take(state, "grant", pem=file)
    before = content(state)
    for role in ("grant", "permit"):
        with pytest.raises(ConfigurationError, match="is there already; a key has one role"):
            take(state, role, pem=file)
    with pytest.raises(ConfigurationError, match="is there already"):
        take(state, "permit", pem=state / "keys" / "credential.pem")
    assert content(state) == before


@pytest.mark.rule("T8")
@pytest.mark.parametrize("flaw", ["open to others", "a link", "no key", "gone"])
def test_a_file_that_is_no_key_of_its_owner_is_not_imported(state: Path, tmp_path: Path, flaw: str) -> None:
    file = private(tmp_path / "mine.pem", b"no key" if flaw == "no key" else SigningKey.generate().to_pem())
    if flaw == "open to others":
        file.chmod(0o644)
    elif flaw == "gone":
        file.unlink()
    elif flaw == "a link":
        (tmp_path / "link.pem").symlink_to(file)
        file = tmp_path / "link.pem"
    before = content(state)
    with pytest.raises(ConfigurationError, match=str(file)):
        take(state, "grant", pem=file)
    assert content(state) == before


@pytest.mark.parametrize("role", ["revocation", "grant"])
def test_a_passphrase_that_is_not_there_makes_no_key(state: Path, role: str) -> None:
    before = content(state)
    with pytest.raises(ConfigurationError, match="NOT_THERE is not set"):
        generate(state, role, passphrase="env:NOT_THERE")
    assert content(state) == before


# The folder.


@pytest.mark.parametrize(
    "change",
    [
        lambda path: rotate(path, "grant", 0),
        lambda path: retire(path, "A" * 43),
        lambda path: revoke(path, "A" * 43, lambda _: 1),
        read_keys,
    ],
)
def test_a_folder_of_no_authority_is_named_and_not_made(tmp_path: Path, change) -> None:
    with pytest.raises(ConfigurationError, match="not the state folder of an authority; name it with --state"):
        change(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_looking_changes_nothing(state: Path) -> None:
    before = content(state)
    known = read_keys(state)
    assert {key.role for key in known.ring.keys} == set(KEYS)
    assert content(state) == before


def test_changes_that_are_made_at_once_are_all_made(state: Path) -> None:
    threads = [threading.Thread(target=generate, args=(state, role)) for role in KEYS for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read_keys(state).ring.keys) == 3 * len(KEYS)
    assert len(anchors(state)) == 3 * len(KEYS)


def test_a_ring_that_would_become_too_large_to_read_is_not_written(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate(state, "grant")
    ring = json.loads((state / "keys" / "ring.json").read_text())
    template = ring["keys"][0]
    for _ in range(120 - len(ring["keys"])):
        key = SigningKey.generate()
        ring["keys"].append(template | {"kid": key.kid, "x": key.x, "signs_from": None})
    private(state / "keys" / "ring.json", json.dumps(ring, separators=(",", ":")).encode())
    before = content(state)
    with pytest.raises(ConfigurationError, match="is full; take retired keys out of it by hand"):
        generate(state, "grant")
    assert content(state) == before
    assert len(read_keys(state).ring.keys) == 120

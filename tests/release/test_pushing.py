"""What may take the place of what, in a folder, on a server and in the store."""

import fcntl
import os
import threading
from pathlib import Path

import pytest

from exequatur.errors import EvidenceError, PolicyError
from exequatur.lineage.store import EvidenceStore
from exequatur.lineage.store_releases import ReleaseStore, Stored
from exequatur.policy.offer import Channel
from exequatur.release.file import BundleFile
from exequatur.release.places import Place, place_of
from exequatur.release.pushing import check_push, newest_release
from tests.lineage.conftest import postgres, store, url
from tests.release.parties import PERMIT, PolicyTeam, Server, made

__all__ = ["postgres", "store", "url"]  # fixtures: a new store on either database

OTHER = '@id("other") permit(principal, action, resource);\n'


@pytest.fixture(params=["file", "http", "sqlite"])
def place(request: pytest.FixtureRequest, tmp_path: Path):
    if request.param == "http":
        yield place_of(request.getfixturevalue("shelf").url("/"), "policies")
        return
    opened = place_of(
        str(tmp_path) if request.param == "file" else f"store:{tmp_path / 'e.db'}", "policies", create=True
    )
    yield opened
    opened.close()


def push(place: Place, file: BundleFile, channel: Channel = "stable") -> None:
    place.write(channel, file.to_bytes(), lambda there: check_push(file, there, channel, str(place)) and None)


def held(place: Place, channel: Channel = "stable") -> bytes | None:
    place.look()
    return place.read(channel)


def test_a_release_takes_the_place_of_an_older_one(place: Place, team: PolicyTeam):
    assert held(place) is None
    for sequence, policies in ((1, PERMIT), (2, OTHER), (3, PERMIT)):
        file = team.release(made(policies), sequence)
        push(place, file)
        assert held(place) == file.to_bytes()
    assert held(place, "canary") is None


@pytest.mark.rule("J51")
def test_a_release_does_not_take_the_place_of_a_newer_one(place: Place, team: PolicyTeam):
    newer = team.release(made(), 5)
    push(place, newer)
    for file in (team.release(made(OTHER), 4), team.release(made(OTHER), 5)):
        with pytest.raises(PolicyError, match="already"):
            push(place, file)
    push(place, newer)
    assert held(place) == newer.to_bytes()


@pytest.mark.rule("J52")
def test_what_is_not_signed_does_not_take_the_place_of_a_release(place: Place, team: PolicyTeam):
    push(place, team.release(made(), 5))
    with pytest.raises(PolicyError, match="not signed"):
        push(place, made(OTHER))


@pytest.mark.rule("J53")
def test_a_file_of_somebody_else_is_not_overwritten(tmp_path: Path, shelf: Server, team: PolicyTeam):
    (tmp_path / "policies.bundle").write_bytes(b"a thesis")
    shelf.files["/policies.bundle"] = b"a thesis"
    for where in (str(tmp_path), shelf.url()):
        with pytest.raises(PolicyError, match="not overwritten"):
            push(place_of(where, "policies"), team.release(made()))
    assert (tmp_path / "policies.bundle").read_bytes() == shelf.files["/policies.bundle"] == b"a thesis"


def test_channels_do_not_get_in_each_others_way(place: Place, team: PolicyTeam):
    stable, canary = team.release(made(), 5), team.release(made(OTHER), 4, share=10)
    push(place, stable)
    push(place, canary, "canary")
    assert (held(place), held(place, "canary")) == (stable.to_bytes(), canary.to_bytes())
    assert place.withdraw("canary")
    assert not place.withdraw("canary")
    assert (held(place), held(place, "canary")) == (stable.to_bytes(), None)


def test_the_newest_release_is_told_by_the_channel(team: PolicyTeam):
    file = team.release(team.release(made(), 5), 6, share=10)
    assert (newest_release(file).sequence, newest_release(file, "stable").sequence) == (6, 5)
    assert newest_release(made()) is None
    assert newest_release(BundleFile(made(OTHER).content, file.releases)) is None, "they are about another content"


def test_many_that_push_at_once_end_at_the_newest(tmp_path: Path, team: PolicyTeam):
    files = [team.release(made(version=str(number)), number) for number in range(1, 12)]

    def one(file: BundleFile) -> None:
        try:
            push(place_of(str(tmp_path), "policies"), file)
        except PolicyError as error:
            refused.append(error)

    refused: list[PolicyError] = []
    threads = [threading.Thread(target=one, args=(file,)) for file in files]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "policies.bundle").read_bytes() == files[-1].to_bytes()
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".bundle"] == ["policies.bundle"]


def test_only_releases_are_kept_in_the_store(tmp_path: Path):
    with pytest.raises(PolicyError, match="keeps only releases"):
        push(place_of(f"store:{tmp_path / 'e.db'}", "policies", create=True), made())


def test_a_folder_that_another_process_keeps_locked_is_not_waited_for_without_end(
    tmp_path: Path, team: PolicyTeam, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("exequatur.release.directory._PATIENCE", 0.1)
    locked = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(locked, fcntl.LOCK_EX)
        with pytest.raises(PolicyError, match="locked by another process"):
            push(place_of(str(tmp_path), "policies"), team.release(made(), 1))
    finally:
        os.close(locked)
    assert list(tmp_path.glob("*.bundle")) == []


def test_a_folder_that_cannot_be_written_is_said_to_be_one(tmp_path: Path, team: PolicyTeam):
    with pytest.raises(PolicyError, match="cannot be written"):
        push(place_of(str(tmp_path / "missing" / "x.bundle"), "policies"), team.release(made()))
    (tmp_path / "policies.bundle").mkdir()
    with pytest.raises(PolicyError):
        push(place_of(str(tmp_path), "policies"), team.release(made()))


@pytest.mark.parametrize(
    "where", ["store:missing.db", "sqlite:///missing.db", "postgresql://127.0.0.1:1/none", "postgresql://h:x/d"]
)
def test_a_store_that_cannot_be_opened_is_a_sentence(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    opened = place_of(where, "policies")
    assert isinstance(opened.look(), str)
    with pytest.raises(PolicyError):
        opened.read("stable")
    assert list(tmp_path.iterdir()) == []


# The table, on both databases


def test_the_newest_release_of_a_name_and_channel_is_read(url: str):
    payments, people = (ReleaseStore.open(url, name, create=True) for name in ("payments", "people"))
    for sequence in (2, 9, 4):
        payments.add("stable", Stored(sequence, "a", b"file %d" % sequence), lambda _: None, max_bytes=100)
    people.add("canary", Stored(1, "b", b"other"), lambda _: None, max_bytes=100)
    assert payments.newest("stable") == (9, "a")
    assert payments.read("stable", max_bytes=100) == Stored(9, "a", b"file 9")
    assert (payments.newest("canary"), payments.read("canary", max_bytes=100)) == (None, None)
    assert people.read("canary", max_bytes=100) == Stored(1, "b", b"other")
    with pytest.raises(EvidenceError, match="has 6 bytes"):
        payments.read("stable", max_bytes=5)
    assert people.clear("canary")
    assert not people.clear("canary")
    for each in (payments, people):
        each.close()


def test_a_release_that_was_added_meanwhile_is_looked_at(url: str):
    store, other = (ReleaseStore.open(url, "payments", create=True) for _ in range(2))
    seen: list[Stored | None] = []
    store.add("stable", Stored(1, "a", b"1"), seen.append, max_bytes=100)
    other.add("stable", Stored(1, "b", b"2"), seen.append, max_bytes=100)
    assert seen[0] is None
    assert all(each == Stored(1, "a", b"1") for each in seen[1:])
    assert store.read("stable", max_bytes=100) == Stored(1, "a", b"1")
    store.close()
    other.close()


def test_releases_and_evidence_share_a_store(store: EvidenceStore, url: str):
    releases = ReleaseStore.open(url, "payments")
    releases.add("stable", Stored(1, "a", b"1"), lambda _: None, max_bytes=100)
    assert list(store.logs()) == []
    releases.close()

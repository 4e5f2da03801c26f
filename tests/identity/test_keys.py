"""The keys of an issuer: fetched, kept, rotated, gone, and withheld."""

import json
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from exequatur.errors import ConfigurationError, IdentityError, IdentityUnavailableError
from exequatur.identity import documents
from exequatur.identity.credential import Credential
from exequatur.identity.documents import FileSource, Kept, WebSource
from exequatur.identity.jwks import DiscoveredSource, IssuerKeys, keys_in
from exequatur.identity.oidc import OidcVerifier
from tests.identity.issuer import ISSUER, NOW, Site, Steady, claims, jwks, new_key, signed, site

FIRST, SECOND = new_key("first"), new_key("second")


@pytest.fixture
def web() -> Iterator[Site]:
    with site() as found:
        found.publish("/keys", jwks(FIRST))
        yield found


def verifier(source: Any, clock: Steady, **bounds: float) -> OidcVerifier:
    kept = Kept(source, keys_in, clock=clock, **{"lifetime": 300.0, "stale": 600.0, "cooldown": 5.0} | bounds)
    return OidcVerifier("corp", ISSUER, ("exequatur",), IssuerKeys(kept))


def verify(by: OidcVerifier, key: Any) -> str:
    return by.verify(Credential(signed(key, claims())), NOW).subject


def test_keys_are_fetched_once_and_kept(web: Site) -> None:
    by = verifier(WebSource(f"{web.url}/keys", loopback=True), Steady())
    assert {verify(by, FIRST) for _ in range(5)} == {"dana"}
    assert web.asked == ["/keys"]


@pytest.mark.rule("jwks.W1")
@pytest.mark.rule("documents.D5")
def test_a_key_that_was_just_rotated_in_is_found_and_forged_names_do_not_flood_the_issuer(web: Site) -> None:
    clock = Steady()
    by = verifier(WebSource(f"{web.url}/keys", loopback=True), clock)
    verify(by, FIRST)
    clock.now += 6
    web.publish("/keys", jwks(FIRST, SECOND))
    assert verify(by, SECOND) == "dana"
    assert len(web.asked) == 2
    clock.now += 6
    with pytest.raises(IdentityError, match=r"\[K4\]"):
        verify(by, new_key("forged"))
    for number in range(50):
        with pytest.raises(IdentityUnavailableError, match="may be a new one"):
            verify(by, new_key(f"forged-{number}"))
    assert len(web.asked) == 3


@pytest.mark.rule("documents.D7")
def test_forged_names_do_not_have_a_genuine_key_refused_that_was_just_rotated_in(web: Site) -> None:
    clock = Steady()
    by = verifier(WebSource(f"{web.url}/keys", loopback=True), clock)
    verify(by, FIRST)
    clock.now += 6
    with pytest.raises(IdentityError, match=r"\[K4\]"):
        verify(by, new_key("forged"))  # fetched for this one
    web.publish("/keys", jwks(FIRST, SECOND))
    with pytest.raises(IdentityUnavailableError, match="may be a new one"):
        verify(by, SECOND)  # it is not known, and nobody says that it is wrong
    clock.now += 5
    assert verify(by, SECOND) == "dana"
    # Neither while the issuer is away.
    web.publish("/keys", b"", 500)
    clock.now += 5
    with pytest.raises(IdentityUnavailableError, match="may be a new one"):
        verify(by, new_key("third"))
    assert verify(by, FIRST) == "dana"


class Hanging:
    """Keys that take their time, and then do not come."""

    def __init__(self, clock: Steady) -> None:
        self.clock, self.asked, self.begun, self.go_on = clock, 0, threading.Event(), threading.Event()
        self.go_on.set()

    def changed(self) -> None:
        return None

    def read(self) -> bytes:
        self.asked += 1
        self.begun.set()
        assert self.go_on.wait(30)
        self.clock.now += documents.DEADLINE
        raise IdentityUnavailableError("it hangs")


@pytest.mark.rule("documents.D5")
def test_an_issuer_that_hangs_is_left_alone_for_a_while_after_it_hung() -> None:
    clock = Steady()
    source = Hanging(clock)
    by = verifier(source, clock)
    for _ in range(10):
        with pytest.raises(IdentityUnavailableError, match="it hangs"):
            verify(by, FIRST)
    assert source.asked == 1


@pytest.mark.rule("documents.D8")
def test_an_issuer_that_hangs_holds_up_one_thread_and_not_all() -> None:
    clock = Steady()
    source = Hanging(clock)
    by = verifier(source, clock)
    with pytest.raises(IdentityUnavailableError):
        verify(by, FIRST)
    clock.now += 5
    source.begun.clear()
    source.go_on.clear()
    with ThreadPoolExecutor(2) as threads:
        fetching = threads.submit(verify, by, FIRST)
        try:
            assert source.begun.wait(30)
            with pytest.raises(IdentityUnavailableError, match="it hangs"):
                threads.submit(verify, by, FIRST).result(10)
            assert not fetching.done()
        finally:
            source.go_on.set()


@pytest.mark.rule("documents.D2")
def test_names_that_are_looked_up_without_end_are_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    found = threading.Event()

    def forever(*_: Any, **__: Any) -> Any:
        assert found.wait(30)
        raise OSError

    monkeypatch.setattr("socket.getaddrinfo", forever)
    monkeypatch.setattr(documents, "DEADLINE", 0.1)
    with ThreadPoolExecutor(1) as thread:
        fetching = thread.submit(WebSource("https://login.example.com/keys").read)
        try:
            with pytest.raises(IdentityUnavailableError, match=r"does not answer|cannot be reached"):
                fetching.result(10)
        finally:
            found.set()


@pytest.mark.rule("documents.D4")
@pytest.mark.rule("documents.D3")
def test_a_key_that_vanished_is_no_longer_accepted(web: Site) -> None:
    clock = Steady()
    by = verifier(WebSource(f"{web.url}/keys", loopback=True), clock)
    verify(by, FIRST)
    web.publish("/keys", jwks(SECOND))
    assert verify(by, FIRST) == "dana"  # until the set is fetched again
    clock.now += 300
    with pytest.raises(IdentityError, match=r"\[K4\]"):
        verify(by, FIRST)
    assert verify(by, SECOND) == "dana"


@pytest.mark.rule("documents.D3")
@pytest.mark.parametrize(
    "answer", [(500, jwks(SECOND)), (302, jwks(SECOND)), (200, b"<html>"), (200, b'{"keys":[]}'), (200, b"\xff")]
)
@pytest.mark.rule("jwks.W3")
@pytest.mark.rule("documents.D1")
def test_while_the_issuer_is_away_its_keys_are_kept_and_not_for_ever(web: Site, answer: tuple[int, bytes]) -> None:
    clock = Steady()
    by = verifier(WebSource(f"{web.url}/keys", loopback=True), clock)
    verify(by, FIRST)
    web.publish("/elsewhere", jwks(FIRST))
    web.publish("/keys", answer[1], answer[0], Location=f"{web.url}/elsewhere")
    clock.now += 899
    assert verify(by, FIRST) == "dana"
    clock.now += 1
    with pytest.raises(IdentityUnavailableError, match="/keys"):
        verify(by, FIRST)
    assert "/elsewhere" not in web.asked
    # When it is back, so are we.
    web.publish("/keys", jwks(FIRST))
    clock.now += 5
    assert verify(by, FIRST) == "dana"


@pytest.mark.rule("documents.D5")
def test_an_issuer_that_fails_is_not_asked_for_every_token(web: Site) -> None:
    clock = Steady()
    by = verifier(WebSource(f"{web.url}/missing", loopback=True), clock)
    for _ in range(20):
        with pytest.raises(IdentityUnavailableError, match="answers 404"):
            verify(by, FIRST)
    assert len(web.asked) == 1


@pytest.mark.rule("documents.D2")
def test_an_answer_that_is_too_large_compressed_or_never_ends_is_no_key_set(
    web: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = WebSource(f"{web.url}/keys", loopback=True)
    web.publish("/keys", b" " * (documents.MAX_BYTES + 1))
    with pytest.raises(IdentityUnavailableError, match="larger than"):
        source.read()
    web.publish("/keys", b"{}", Content_Encoding="gzip")
    with pytest.raises(IdentityUnavailableError, match="compressed"):
        source.read()
    monkeypatch.setattr(documents, "DEADLINE", 0.1)
    web.publish("/keys", jwks(FIRST))
    web.delay = 1.0
    with pytest.raises(IdentityUnavailableError, match=r"does not answer|cannot be reached"):
        source.read()


def test_a_server_that_is_not_there_is_uncertainty() -> None:
    with site() as gone:
        url = gone.url
    with pytest.raises(IdentityUnavailableError, match="cannot be reached"):
        WebSource(f"{url}/keys", loopback=True).read()


def test_keys_can_be_fetched_from_a_thread_that_runs_an_event_loop(web: Site) -> None:
    import asyncio

    async def inside() -> bytes:
        return WebSource(f"{web.url}/keys", loopback=True).read()

    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(asyncio.run, inside()).result() == jwks(FIRST)


@pytest.mark.rule("documents.D1")
@pytest.mark.parametrize(
    "url",
    [
        "http://login.example.com/keys", "http://127.0.0.1.example.com/keys", "ftp://127.0.0.1/keys", "https://",
        "//x/y",
        "https://user:secret@login.example.com/keys", "https://login.example.com/keys#x", "https://[::1/keys", "",
        "file:///etc/passwd",
    ],
)  # fmt: skip
def test_only_https_is_asked(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        WebSource(url, loopback=True)
    assert "secret" not in str(caught.value)
    with pytest.raises(ConfigurationError):
        WebSource("http://127.0.0.1/keys")


@pytest.mark.rule("jwks.W2")
def test_keys_are_discovered_only_from_a_document_of_the_very_issuer(web: Site) -> None:
    source = DiscoveredSource(web.url, loopback=True)
    path = "/.well-known/openid-configuration"
    web.publish(path, json.dumps({"issuer": web.url, "jwks_uri": f"{web.url}/keys"}).encode())
    assert source.read() == jwks(FIRST)
    for document in (
        {"issuer": "https://other.example.com", "jwks_uri": f"{web.url}/keys"},
        {"issuer": web.url, "jwks_uri": "http://evil.example.com/keys"},
        {"issuer": web.url, "jwks_uri": 5},
        {"issuer": web.url},
        [],
    ):
        web.publish(path, json.dumps(document).encode())
        with pytest.raises(ValueError, match="the discovery document"):
            source.read()
    # What cannot be discovered leaves no keys.
    with pytest.raises(IdentityUnavailableError, match="discovery"):
        verify(verifier(source, Steady()), FIRST)


@pytest.mark.rule("documents.D6")
def test_a_file_of_keys_is_read_again_when_it_changed(tmp_path: Path) -> None:
    path, clock = tmp_path / "keys", Steady()
    path.write_bytes(jwks(FIRST))
    by = verifier(FileSource(path), clock)
    assert verify(by, FIRST) == "dana"
    other = tmp_path / "new"
    other.write_bytes(jwks(SECOND))
    other.replace(path)
    assert verify(by, SECOND) == "dana"
    with pytest.raises(IdentityError, match=r"\[K4\]"):
        verify(by, FIRST)
    # A broken or missing file leaves what there was, for a while.
    path.write_bytes(b"{")
    assert verify(by, SECOND) == "dana"
    path.unlink()
    assert verify(by, SECOND) == "dana"
    clock.now += 900
    with pytest.raises(IdentityUnavailableError, match="keys"):
        verify(by, SECOND)


@pytest.mark.rule("documents.D6")
@pytest.mark.rule("documents.D2")
def test_only_a_regular_file_that_is_not_too_large_is_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(b" " * (documents.MAX_BYTES + 1))
    for name in ("pipe", "large", "missing", "."):
        with pytest.raises(IdentityUnavailableError, match=name.replace(".", "directory")):
            FileSource(tmp_path / name).read()
    (tmp_path / "keys").write_bytes(jwks(FIRST))
    (tmp_path / "link").symlink_to(tmp_path / "keys")
    assert FileSource(tmp_path / "link").read() == jwks(FIRST)


def test_whoever_can_be_answered_does_not_wait_for_a_slow_issuer(web: Site) -> None:
    clock = Steady()
    by = verifier(WebSource(f"{web.url}/keys", loopback=True), clock)
    verify(by, FIRST)
    clock.now += 300
    begun, go_on = threading.Event(), threading.Event()
    kept = by.keys.kept  # type: ignore[attr-defined]
    read = kept._source.read

    def slow() -> bytes:
        begun.set()
        assert go_on.wait(30)
        return bytes(read())

    kept._source.read = slow
    with ThreadPoolExecutor(1) as thread:
        fetching = thread.submit(verify, by, FIRST)
        assert begun.wait(30)
        assert verify(by, FIRST) == "dana"  # while the other one still fetches
        assert not fetching.done()
        go_on.set()
        assert fetching.result() == "dana"


def test_many_threads_that_miss_one_key_fetch_it_once(web: Site) -> None:
    clock = Steady()
    by = verifier(WebSource(f"{web.url}/keys", loopback=True), clock)
    verify(by, FIRST)
    clock.now += 6
    web.publish("/keys", jwks(FIRST, SECOND))
    web.delay = 0.05
    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(lambda _: verify(by, SECOND), range(16))) == {"dana"}
    assert len(web.asked) == 2

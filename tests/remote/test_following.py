"""Trust anchors are learned from the authority, kept, and never taken away again."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from exequatur import AuthorizationPlugin, Principal, Settings
from exequatur.authority.connection import Connection
from exequatur.authority.following import FollowedAnchors
from exequatur.errors import ConfigurationError, UnknownKeyError
from exequatur.statements.keys import SigningKey
from exequatur.statements.models import Grant, Permit
from exequatur.statements.trust import Anchor, TrustStore
from tests.release.parties import Server, sending, serving, status

JWKS = {"content-type": "application/jwk-set+json"}


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture
def server(running: Server) -> Server:
    running.files, running.bad, running.asked = {}, {}, []
    return running


def anchor(typ: str = Grant.typ, **changes: Any) -> Anchor:
    key = SigningKey.generate()
    return Anchor(**{"kid": key.kid, "x": key.x, "typ": (typ,), "iss": "dev:one", "nbf": 0.0} | changes)


GRANTS, PERMITS = anchor(), anchor(Permit.typ)


def publishing(server: Server, *anchors: Anchor) -> None:
    server.bad["/v1/trust"] = sending(TrustStore(anchors).to_jwks(), **JWKS)


def followed(server: Server, folder: Path, clock: Callable[[], float] = time.monotonic) -> FollowedAnchors:
    folder.mkdir(exist_ok=True)
    made = FollowedAnchors(Connection(f"http://127.0.0.1:{server.port}", timeout=5), folder, every=30)
    made._clock = clock
    return made


def look(anchors: FollowedAnchors) -> None:
    """As if the interval were over."""
    anchors._begun = -1e9
    anchors.refresh_if_due()


def kids(anchors: FollowedAnchors) -> set[str]:
    return {each.kid for each in anchors.trust}


def test_anchors_are_learned_and_kept_for_a_start_without_the_authority(server: Server, folder: Path) -> None:
    publishing(server, GRANTS)
    first = followed(server, folder)
    assert kids(first) == set()
    first.refresh_if_due()
    assert kids(first) == {GRANTS.kid}
    assert (folder / "trust.jwks").stat().st_mode & 0o777 == 0o600
    server.bad["/v1/trust"] = status(503)
    assert kids(followed(server, folder)) == {GRANTS.kid}


def test_a_new_anchor_and_a_retirement_are_learned(server: Server, folder: Path) -> None:
    publishing(server, GRANTS)
    anchors = followed(server, folder)
    look(anchors)
    publishing(server, GRANTS.model_copy(update={"exp": 2e9}), PERMITS)
    look(anchors)
    assert {each.kid: each.exp for each in followed(server, folder).trust} == {GRANTS.kid: 2e9, PERMITS.kid: None}


BAD_SETS: dict[str, Callable[[], bytes]] = {
    "an anchor is missing": lambda: TrustStore([PERMITS]).to_jwks(),
    "none is left": lambda: b'{"keys": []}',
    "another issuer": lambda: TrustStore([GRANTS.model_copy(update={"iss": "dev:two"}), PERMITS]).to_jwks(),
    "another role": lambda: TrustStore([GRANTS.model_copy(update={"typ": (Permit.typ,)}), PERMITS]).to_jwks(),
    "an earlier begin": lambda: TrustStore([GRANTS.model_copy(update={"nbf": 1.0}), PERMITS]).to_jwks(),
    "garbage": lambda: b"\xff",
    "a page": lambda: b"<html>",
    "a list": lambda: b"[]",
    "a key that is none": lambda: json.dumps({"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}).encode(),
    "deep nesting": lambda: b'{"keys":' + b"[" * 50_000,
}


@pytest.mark.rule("following.N6")
@pytest.mark.parametrize("bad", BAD_SETS.values(), ids=BAD_SETS.keys())
def test_a_set_that_shrinks_or_changes_is_refused_also_after_a_restart(
    server: Server, folder: Path, bad: Callable[[], bytes]
) -> None:
    publishing(server, GRANTS, PERMITS)
    first = followed(server, folder)
    look(first)
    server.bad["/v1/trust"] = sending(bad(), **JWKS)
    for anchors in (first, followed(server, folder)):
        look(anchors)
        assert {each.identity for each in anchors.trust} == {GRANTS.identity, PERMITS.identity}
        assert anchors.problem


@pytest.mark.rule("following.N6")
def test_a_retired_anchor_does_not_come_back(server: Server, folder: Path) -> None:
    publishing(server, GRANTS.model_copy(update={"exp": 2e9}))
    look(followed(server, folder))
    publishing(server, GRANTS)
    again = followed(server, folder)
    look(again)
    assert [each.exp for each in again.trust] == [2e9]


@pytest.mark.rule("following.N6")
@pytest.mark.parametrize("content", [b"", b"nonsense", b"\xff", b"[]", b'{"keys": [{}]}', b" " * 2_000_000])
def test_a_damaged_file_is_not_taken_for_nothing_learned(server: Server, folder: Path, content: bytes) -> None:
    publishing(server, GRANTS)
    look(followed(server, folder))
    (folder / "trust.jwks").write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"trust\.jwks"):
        followed(server, folder)
    assert (folder / "trust.jwks").read_bytes() == content


@pytest.mark.rule("following.N7")
@pytest.mark.parametrize(
    "answer",
    [
        sending(TrustStore([PERMITS]).to_jwks(), **{"content-type": "text/html"}),
        lambda _: __import__("starlette.responses").responses.Response(
            TrustStore([GRANTS, PERMITS]).to_jwks(), 500, headers=JWKS
        ),
        status(404),
    ],
)
def test_what_is_no_answer_changes_nothing(server: Server, folder: Path, answer: Any) -> None:
    publishing(server, GRANTS)
    anchors = followed(server, folder)
    look(anchors)
    server.bad["/v1/trust"] = answer
    look(anchors)
    assert kids(anchors) == {GRANTS.kid}
    assert "no trust anchors" in (anchors.problem or "")


def test_an_unknown_key_is_asked_for_once_and_then_known(server: Server, folder: Path) -> None:
    publishing(server, GRANTS)
    anchors = followed(server, folder)
    look(anchors)
    publishing(server, GRANTS, PERMITS)
    with pytest.raises(UnknownKeyError) as unknown:
        anchors.trust.resolve(PERMITS.kid, typ=Permit.typ, iss="dev:one", at=1.0)
    assert unknown.value.pending
    anchors._begun -= 1
    anchors.refresh_if_due()
    assert anchors.trust.resolve(PERMITS.kid, typ=Permit.typ, iss="dev:one", at=1.0) == PERMITS


def test_two_processes_of_one_folder_keep_what_either_has_learned(server: Server, folder: Path) -> None:
    one, two = followed(server, folder), followed(server, folder)
    publishing(server, GRANTS)
    look(one)
    publishing(server, GRANTS.model_copy(update={"exp": 2e9}), PERMITS)
    look(two)
    publishing(server, GRANTS)  # an answer that was on its way for long
    threads = [threading.Thread(target=look, args=(each,)) for each in (one, two)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {each.kid: each.exp for each in followed(server, folder).trust} == {GRANTS.kid: 2e9, PERMITS.kid: None}


def test_anchors_that_cannot_be_kept_are_used_and_that_is_said(
    server: Server, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    publishing(server, GRANTS)
    anchors = followed(server, folder)
    (folder / "trust.jwks").mkdir()  # in its place
    look(anchors)
    assert kids(anchors) == {GRANTS.kid}
    assert "not kept for a restart" in caplog.text


# The folder.


def made(folder: Path) -> AuthorizationPlugin:
    return AuthorizationPlugin(
        "https://authority.example", principal=Principal("Service", "shop"), state_dir=folder, settings=Settings()
    )


def test_a_folder_that_others_can_open_is_refused(folder: Path) -> None:
    folder.mkdir(mode=0o755)
    folder.chmod(0o755)
    with pytest.raises(ConfigurationError, match=r"open to others .* chmod go-rwx"):
        made(folder)


def test_the_folder_of_an_authority_is_not_a_workers(folder: Path) -> None:
    from exequatur.authority.state import open_state

    open_state(folder)
    with pytest.raises(ConfigurationError, match="holds the keys of an authority"):
        made(folder)


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="state_dir"):
        made(tmp_path / "file" / "state")

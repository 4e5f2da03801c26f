"""The state folder of an embedded authority: kept, shared, and refused when others could read it."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from exequatur import AuthorizationPlugin, Principal
from exequatur.authority.state import KEYS, open_state
from exequatur.errors import ConfigurationError, StatementError
from exequatur.gate.issuing import GrantOrder
from exequatur.lineage.record import read
from exequatur.statements.keys import SigningKey
from exequatur.statements.models import Grant
from exequatur.statements.trust import TrustStore
from tests.gate.conftest import PERMIT_ALL


@pytest.fixture
def state(tmp_path: Path) -> Path:
    path = tmp_path / "state"
    open_state(path)
    return path


def test_a_state_folder_is_made_for_its_owner_only(state: Path) -> None:
    modes = {path.name: path.stat().st_mode & 0o777 for path in [state, *state.rglob("*")]}
    assert modes == {
        "state": 0o700,
        "keys": 0o700,
        "grant.pem": 0o600,
        "credential.pem": 0o600,
        "permit.pem": 0o600,
        "approval.pem": 0o600,
        "revocation.pem": 0o600,
        "issuer": 0o600,
        "trust.jwks": 0o600,
        ".lock": 0o600,
    }


def test_keys_and_issuer_are_kept_across_restarts(state: Path) -> None:
    first, second = open_state(state), open_state(state)
    assert first.issuer == second.issuer
    assert first.issuer.startswith("dev:")
    assert first.signer("grant").kid == second.signer("grant").kid
    assert first.signer("credential").kid == second.signer("credential").kid
    keys = {first.signer(role).kid for role in KEYS}
    assert len(keys) == 5
    assert {anchor.kid for anchor in second.trust} == keys


@pytest.mark.parametrize("name", ["keys/grant.pem", "keys/credential.pem", "issuer", "trust.jwks", "keys", ""])
@pytest.mark.parametrize("mode", [0o040, 0o004, 0o020], ids=["group reads", "others read", "group writes"])
def test_what_others_can_open_is_refused_with_the_command_that_closes_it(state: Path, name: str, mode: int) -> None:
    path = state / name
    path.chmod(path.stat().st_mode | mode)
    with pytest.raises(ConfigurationError) as raised:
        open_state(state)
    assert f"{path} is open to others" in str(raised.value)
    command = str(raised.value).partition("Run: ")[2]
    assert command == f"chmod go-rwx {path}"
    subprocess.run(command.split(), check=True)
    open_state(state)


@pytest.mark.parametrize(
    "content", [b"", b"-----BEGIN PRIVATE KEY-----\nnonsense\n-----END PRIVATE KEY-----\n", b"\xff"]
)
def test_a_damaged_key_is_named_and_not_replaced(state: Path, content: bytes) -> None:
    path = state / "keys" / "grant.pem"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError) as raised:
        open_state(state)
    assert f"{path} is not an unencrypted PEM private key; put the right file back" in str(raised.value)
    assert path.read_bytes() == content


@pytest.mark.parametrize("content", ["", "{", "[]", '{"keys": 1}', '{"keys": [{"kid": "x"}]}'])
def test_a_damaged_trust_file_is_named_and_not_replaced(state: Path, content: str) -> None:
    path = state / "trust.jwks"
    path.write_text(content)
    with pytest.raises(ConfigurationError) as raised:
        open_state(state)
    assert str(path) in str(raised.value)
    assert path.read_text() == content


def test_a_trust_file_that_cannot_be_read_is_named(state: Path) -> None:
    path = state / "trust.jwks"
    path.unlink()
    path.mkdir(mode=0o700)
    with pytest.raises(ConfigurationError, match=r"trust\.jwks.*Name another with state_dir"):
        open_state(state)


def test_a_folder_that_cannot_be_made_is_named_with_the_next_step(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError) as raised:
        open_state(tmp_path / "file" / "state")
    assert f"The state folder {tmp_path / 'file' / 'state'} cannot be used" in str(raised.value)
    assert "Name another with state_dir" in str(raised.value)


def test_the_plugin_says_the_same(state: Path, tmp_path: Path) -> None:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "main.cedar").write_text(PERMIT_ALL)
    (state / "keys" / "grant.pem").chmod(0o644)
    with pytest.raises(ConfigurationError, match=r"grant\.pem is open to others \(mode 644\)"):
        AuthorizationPlugin.embedded(tmp_path / "policies", state_dir=state)


def test_a_key_that_is_replaced_keeps_the_anchor_of_the_old_one(state: Path) -> None:
    before = open_state(state)
    (state / "keys" / "grant.pem").rename(state / "keys" / "grant.pem.old")
    after = open_state(state)
    assert after.signer("grant").kid != before.signer("grant").kid
    for key in (before.signer("grant"), after.signer("grant")):
        anchor = next(anchor for anchor in after.trust if anchor.kid == key.kid)
        assert after.trust.resolve(key.kid, typ=Grant.typ, iss=after.issuer, at=anchor.nbf + 3600) == anchor


def test_a_key_that_is_retired_verifies_what_it_signed_before_and_nothing_after(state: Path) -> None:
    key = open_state(state).signer("grant")
    document = json.loads((state / "trust.jwks").read_text())
    entry = next(entry for entry in document["keys"] if entry["kid"] == key.kid)
    entry["exp"] = entry["nbf"] + 7200
    (state / "trust.jwks").write_text(json.dumps(document))
    opened = open_state(state)
    resolve: Callable[[float], object] = lambda at: opened.trust.resolve(  # noqa: E731
        key.kid, typ=Grant.typ, iss=opened.issuer, at=at
    )
    assert resolve(entry["exp"] - 1)
    with pytest.raises(StatementError, match="T3"):
        resolve(entry["exp"] + 1)


def test_a_key_of_another_kind_is_refused(state: Path) -> None:
    pem = subprocess.run(
        [
            sys.executable,
            "-c",
            "from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey as K\n"
            "from cryptography.hazmat.primitives.serialization import Encoding as E, PrivateFormat as F, NoEncryption\n"
            "print(K.generate().private_bytes(E.PEM, F.PKCS8, NoEncryption()).decode())",
        ],
        check=True,
        capture_output=True,
    ).stdout
    (state / "keys" / "grant.pem").write_bytes(pem)
    with pytest.raises(ConfigurationError, match="is not an Ed25519 key"):
        open_state(state)


OPEN = """
import sys, pathlib
from exequatur.authority.state import open_state
state = open_state(pathlib.Path(sys.argv[1]))
kids = [state.signer("grant").kid, state.signer("credential").kid]
print(state.issuer, *kids, *sorted(anchor.kid for anchor in state.trust))
"""


def test_processes_that_make_the_folder_at_once_agree(tmp_path: Path) -> None:
    command = [sys.executable, "-c", OPEN, str(tmp_path / "state")]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = {process.communicate()[0] for process in processes}
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert len(said) == 1
    assert len(said.pop().split()) == 8
    assert len(list(TrustStore.from_jwks((tmp_path / "state" / "trust.jwks").read_bytes()))) == len(KEYS)
    assert SigningKey.from_pem((tmp_path / "state" / "keys" / "grant.pem").read_bytes())


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_records_what_it_grants_in_a_journal_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "all.cedar").write_text(PERMIT_ALL)
    plugin = AuthorizationPlugin.embedded(tmp_path / "policies", state_dir=tmp_path / "state")
    order = GrantOrder(Principal("Agent", "bot"), "default", "One", "one-1", "queue", "A" * 43, "once", 0.0)

    def grant() -> str:
        return asyncio.run(plugin._authority.issue_grant(order))

    grant()
    child = os.fork()
    if child == 0:
        try:
            grant()
        except BaseException:
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    grant()
    journals = sorted((tmp_path / "state" / "journal").glob("*.db"))
    assert [[record.kind for record in read(file)].count("authority") for file in journals] == [2, 1]

"""``exequatur keys``: what a person reads, what a machine reads, and what is never printed."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from exequatur.authority.feed import own_revocations
from exequatur.authority.state import open_state
from exequatur.cli.main import commands
from exequatur.revocation.entry import revocation
from exequatur.revocation.store import FolderStore
from exequatur.settings import Settings
from exequatur.statements.keys import SigningKey

SECRET = "correct horse battery staple"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    path = tmp_path / "state"
    open_state(path)
    return path


def exequatur(state: Path, *words: str) -> Result:
    result = CliRunner().invoke(commands, ["keys", words[0], "--state", str(state), *words[1:]])
    assert "Traceback" not in result.output
    assert "PRIVATE KEY" not in result.output
    assert SECRET not in result.output
    return result


def done(state: Path, *words: str) -> str:
    result = exequatur(state, *words)
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(state: Path, *words: str) -> str:
    """The one line that says why it was not done."""
    result = exequatur(state, *words)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    return result.stderr


def listed(state: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(done(state, "list", "--json"))
    return rows


def standings(state: Path, role: str) -> list[str]:
    return [row["standing"] for row in listed(state) if row["role"] == role]


def key(state: Path, role: str) -> str:
    """The key that signs in a role."""
    return next(row["kid"] for row in listed(state) if row["role"] == role and row["standing"] == "signs since")


def test_the_life_of_a_key(state: Path) -> None:
    old = key(state, "grant")
    made = json.loads(done(state, "generate", "grant", "--json"))
    assert standings(state, "grant") == ["signs since", "waits"]
    coming = json.loads(done(state, "rotate", "grant", "--json"))
    assert (coming["kid"], coming["before"]) == (made["kid"], old)
    assert standings(state, "grant") == ["signs since", "signs from"]
    done(state, "rotate", "grant", "--overlap", "0s", f"--to={made['kid']}")
    assert standings(state, "grant") == ["verifies", "signs since"]
    assert "delete it" in done(state, "retire", "--", old)
    assert standings(state, "grant") == ["retired", "signs since"]
    done(state, "rotate", "grant", "--overlap", "0s")
    told = json.loads(done(state, "revoke", "--reason", "it was stolen", "--json", "--", made["kid"]))
    assert (told["kid"], told["version"], told["signs"]) == (made["kid"], 1, key(state, "grant"))
    assert standings(state, "grant") == ["retired", "revoked", "signs since"]
    assert [(each.key, each.reason) for each in FolderStore(state).all_entries()] == [(made["kid"], "it was stolen")]


def test_people_read_which_key_signs_and_what_to_do_next(state: Path) -> None:
    old = key(state, "permit")
    said = done(state, "rotate", "permit", "--overlap", "90s")
    assert "signs permits from 20" in said
    assert f"Key {old} signs until then, and verifies what it signed." in said
    assert "exequatur keys retire" in said
    lines = done(state, "list").splitlines()
    assert [line.split()[0] for line in lines] == ["grant", "credential", "permit", "permit", "approval", "revocation"]
    assert f"{old[:12]}  file:permit.pem" in lines[2]


def test_a_short_overlap_is_warned_of(state: Path) -> None:
    assert "refuse messages that stand on it" in exequatur(state, "rotate", "grant", "--overlap", "5s").stderr
    assert exequatur(state, "rotate", "permit", "--overlap", "2m").stderr == ""


def test_an_anchor_whose_key_is_elsewhere_is_listed(state: Path) -> None:
    old = key(state, "grant")
    (state / "keys" / "grant.pem").unlink()
    open_state(state)
    assert [(row["kid"] == old, row["standing"]) for row in listed(state) if row["role"] == "grant"] == [
        (True, "verifies"),
        (False, "signs since"),
    ]


def test_a_key_is_imported_from_a_file_the_environment_or_a_function(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = SigningKey.generate(), SigningKey.generate()
    file = tmp_path / "mine.pem"
    file.write_bytes(here.to_pem(SECRET.encode()))
    file.chmod(0o600)
    monkeypatch.setenv("KEY_PASSPHRASE", SECRET)
    monkeypatch.setenv("PERMIT_KEY", there.to_pem().decode())
    (tmp_path / "pretendedkms.py").write_text(
        "from exequatur.statements.keys import SigningKey\n\n\ndef signer(name):\n    return SigningKey.generate()\n"
    )
    monkeypatch.chdir(tmp_path)
    assert here.kid in done(state, "import", "grant", "--pem", str(file), "--passphrase-env", "KEY_PASSPHRASE")
    assert there.kid in done(state, "import", "permit", "--env", "PERMIT_KEY")
    done(state, "import", "approval", "--signer", "pretendedkms:signer", "--argument", "approvals")
    sources = {row["role"]: row["source"] for row in listed(state) if row["standing"] == "waits"}
    assert sources["grant"].startswith("file:grant-")
    assert (sources["permit"], sources["approval"]) == ("env:PERMIT_KEY", "signer:pretendedkms:signer")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["import", "grant"], "Give one of --pem, --env and --signer"),
        (["import", "grant", "--env", "A", "--pem", "b"], "Give one of --pem, --env and --signer"),
        (["import", "grant", "--env", "A", "--argument", "x"], "--argument goes with --signer"),
        (["import", "grant", "--signer", "a:b", "--passphrase-env", "P"], "A passphrase goes with --pem or --env"),
        (["import", "grant", "--env", "NOT_THERE"], "NOT_THERE is not set"),
        (["import", "grant", "--signer", "no.such:thing"], "gave no signer: ModuleNotFoundError"),
        (["import", "grant", "--signer", "nonsense"], "names no key"),
        (["import", "grant", "--pem", "/nowhere/key.pem"], "/nowhere/key.pem: No such file"),
        (["generate", "grant", "--passphrase-env", "A", "--passphrase-file", "b"], "Give one of --passphrase-env"),
        (["generate", "root"], "'root' is not one of"),
        (["rotate", "grant", "--overlap", "soon"], "--overlap: not a duration"),
        (["rotate", "grant", "--overlap", "900d"], "An overlap lasts between"),
        (["rotate", "grant", "--to", "nobody"], "no key begins with 'nobody'"),
        (["retire", "nobody"], "no key begins with 'nobody'"),
        (["retire", "\udcff\udcfe"], "no key begins with"),
        (["revoke", "nobody", "--reason", "x"], "no key begins with 'nobody'"),
        (["revoke", "nobody"], "Missing option '--reason'"),
    ],
    ids=lambda value: " ".join(map(repr, value)) if isinstance(value, list) else "",
)
def test_what_cannot_be_done_is_said_in_one_line_and_changes_nothing(state: Path, words: list[str], why: str) -> None:
    before = {file: file.read_bytes() for file in state.rglob("*") if file.is_file()}
    assert why in refused(state, *words)
    assert {file: file.read_bytes() for file in state.rglob("*") if file.is_file()} == before


def test_revoking_the_only_key_is_refused_until_it_is_confirmed(state: Path) -> None:
    only = key(state, "grant")
    said = refused(state, "revoke", "--reason", "it was stolen", "--", only)
    assert "no workflow can be started and no grant renewed" in said
    assert "give --yes" in said
    result = exequatur(state, "revoke", "--reason", "it was stolen", "--yes", "--", only)
    assert result.exit_code == 0
    assert "Nothing signs grants now; run: exequatur keys rotate grant --overlap 0s" in result.stderr
    done(state, "rotate", "grant", "--overlap", "0s")
    assert standings(state, "grant") == ["revoked", "signs since"]


def test_a_key_is_not_revoked_in_a_feed_that_was_rolled_back(state: Path) -> None:
    """Another entry in the place of a lost one would be another feed, which no worker believes."""
    own = own_revocations(open_state(state), Settings())
    own.add(revocation(workflow="w", reason="stop"))
    own.tend()
    (state / "revocations").write_bytes(b"")
    done(state, "rotate", "grant", "--overlap", "0s")
    [before, _] = [row["kid"] for row in listed(state) if row["role"] == "grant"]
    assert "rolled back" in refused(state, "revoke", "--reason", "it was stolen", "--", before)
    assert (state / "revocations").read_bytes() == b""
    assert "revoked" not in standings(state, "grant")


def test_a_reason_that_is_empty_revokes_nothing(state: Path) -> None:
    old = key(state, "grant")
    done(state, "rotate", "grant", "--overlap", "0s")
    assert "say for what reason" in refused(state, "revoke", "--reason", " ", "--", old)
    assert not FolderStore(state).all_entries()
    assert standings(state, "grant") == ["verifies", "signs since"]


@pytest.mark.parametrize("command", [["list"], ["rotate", "grant"], ["retire", "abcdefgh"]])
def test_a_folder_of_no_authority_is_not_made(tmp_path: Path, command: list[str]) -> None:
    assert "not the state folder of an authority" in refused(tmp_path / "none", *command)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("flaw", ["ring", "trust", "open", "unwritable"])
def test_a_folder_that_cannot_be_used_is_named(state: Path, flaw: str) -> None:
    done(state, "generate", "grant")
    if flaw == "ring":
        (state / "keys" / "ring.json").write_bytes(b"{\xff")
    elif flaw == "trust":
        (state / "trust.jwks").write_text("{}")
    elif flaw == "open":
        (state / "keys" / "ring.json").chmod(0o666)
    else:
        (state / "keys" / "ring.json").unlink()
        (state / "keys" / "ring.json").mkdir(0o700)
    assert str(state) in refused(state, "rotate", "grant")


@pytest.mark.parametrize("command", ["", "list", "generate", "import", "rotate", "retire", "revoke"])
def test_each_command_says_what_it_is_for(command: str) -> None:
    result = CliRunner().invoke(commands, ["keys", *filter(None, [command]), "--help"])
    assert result.exit_code == 0
    assert len(result.output) > 300

"""A notary on the command line: its key, its signatures over runs of a real server, and proofs that verify offline."""

import json
import re
from pathlib import Path

import pytest

from tests.cli.conftest import COMPLETED, edited

NAME = "notary.example/one"
SITE = "exequatur.local/default"


@pytest.fixture
def notary(recorded, exequatur, tmp_path):
    """The key file, and a trust file that names its public part."""
    key = tmp_path / "notary.pem"
    public = exequatur("checkpoint", "key", str(key), "--name", NAME).out.strip()
    trust = tmp_path / "trust.jwks"
    trust.write_text(json.dumps(json.loads(Path(recorded.trust).read_text()) | {"notaries": [public]}))
    return key, str(trust)


def seal(recorded, exequatur, key, store, *args):
    return exequatur(
        *("checkpoint", "seal", *args, "--key", str(key), "--name", NAME, "--site", SITE),
        *("--store", str(store), "--address", recorded.target),
    )


def test_a_key_is_made_once_and_for_its_owner_only(exequatur, tmp_path):
    key = tmp_path / "notary.pem"
    first = exequatur("checkpoint", "key", str(key), "--name", NAME)
    assert first.code == 0
    assert re.fullmatch(rf"{NAME}\+[0-9a-f]{{8}}\+[A-Za-z0-9+/]+=*\n", first.out)
    assert key.stat().st_mode & 0o777 == 0o600
    assert exequatur("checkpoint", "key", str(key), "--name", NAME).out == first.out


def test_a_key_that_others_can_read_is_refused(exequatur, tmp_path):
    key = tmp_path / "notary.pem"
    exequatur("checkpoint", "key", str(key), "--name", NAME)
    key.chmod(0o640)
    ended = exequatur("checkpoint", "key", str(key), "--name", NAME)
    assert ended.code == 2
    assert "open to others" in ended.err


def test_a_file_that_is_no_key_and_a_name_that_is_none_are_refused(exequatur, tmp_path):
    other = tmp_path / "other.pem"
    other.write_text("hello")
    other.chmod(0o600)
    assert "PEM private key" in exequatur("checkpoint", "key", str(other), "--name", NAME).err
    ended = exequatur("checkpoint", "key", str(tmp_path / "new.pem"), "--name", "a b")
    assert ended.code == 2
    assert not (tmp_path / "new.pem").exists()


def test_a_sealed_run_verifies_and_an_edited_one_is_not_what_was_signed(recorded, exequatur, notary, tmp_path):
    key, trust = notary
    sealed = seal(recorded, exequatur, key, tmp_path / "store.db", "cli-sequential")
    assert (sealed.code, sealed.err) == (0, "")
    note = tmp_path / "note"
    note.write_text(sealed.out)
    history = recorded.history("sequential")
    verified = exequatur("checkpoint", "verify", str(note), "--trust", trust, "--history", history)
    assert verified.code == 0
    assert f"23 events signed by {NAME}" in verified.out
    wrong = exequatur("checkpoint", "verify", str(note), "--trust", trust, "--history", edited(history, tmp_path))
    assert wrong.code == 1
    assert "is not what was signed" in wrong.err


def test_a_proof_of_an_event_verifies_offline_and_an_edited_one_does_not(recorded, exequatur, notary, tmp_path):
    key, trust = notary
    note, proof = tmp_path / "note", tmp_path / "proof.json"
    note.write_text(seal(recorded, exequatur, key, tmp_path / "store.db", "cli-sequential").out)
    made = exequatur("checkpoint", "prove", recorded.history("sequential"), str(note), "--event", "5")
    assert made.code == 0
    proof.write_text(made.out)
    verified = exequatur("checkpoint", "verify", str(proof), "--trust", trust)
    assert verified.code == 0
    assert "EVENT_TYPE_ACTIVITY_TASK_SCHEDULED" in verified.out
    proof.write_text(made.out.replace("ACTIVITY_TASK_SCHEDULED", "ACTIVITY_TASK_COMPLETED"))
    assert exequatur("checkpoint", "verify", str(proof), "--trust", trust).code == 2
    beyond = exequatur("checkpoint", "prove", recorded.history("sequential"), str(note), "--event", "24")
    assert beyond.code == 2
    assert "event 24 is not one of them" in beyond.err


@pytest.mark.parametrize("content", [b"", b"{}", b"{", b"\xff\xfe", b"a\nb\n\n", b"x" * 100_000, b'{"version": 1e999}'])
def test_what_is_no_checkpoint_is_one_line_and_exit_code_2(exequatur, notary, tmp_path, content):
    file = tmp_path / "file"
    file.write_bytes(content)
    ended = exequatur("checkpoint", "verify", str(file), "--trust", notary[1])
    assert ended.code == 2
    assert ended.err.count("\n") == 1
    assert "unexpected" not in ended.err


def test_a_notary_that_the_trust_file_does_not_name_verifies_nothing(recorded, exequatur, notary, tmp_path):
    note = tmp_path / "note"
    note.write_text(seal(recorded, exequatur, notary[0], tmp_path / "store.db", "cli-sequential").out)
    ended = exequatur("checkpoint", "verify", str(note), "--trust", recorded.trust)
    assert ended.code == 2
    assert "names no notary" in ended.err


def test_checkpoints_of_a_store_count_in_an_audit(recorded, exequatur, notary, tmp_path):
    key, trust = notary
    store, evidence = tmp_path / "store.db", tmp_path / "evidence.json"
    sealed = seal(recorded, exequatur, key, store, "--query", COMPLETED)
    assert sealed.code == 0
    assert sealed.out == "6 runs sealed\n"
    exequatur("evidence", "export", str(store), str(evidence))
    ended = exequatur(
        *("audit", "file", recorded.history("sequential"), "--trust", trust, "--json"),
        *("--evidence", recorded.journal, "--evidence", str(evidence)),
    )
    assert ended.code == 0
    [run] = ended.report["runs"]
    assert (run["checkpoints"], run["checkpointed_events"]) == (1, 23)


def test_a_checkpoint_shows_what_the_statements_cannot(recorded, exequatur, notary, tmp_path):
    # The time of an event is signed by nobody but the notary.
    key, trust = notary
    store, evidence = tmp_path / "store.db", tmp_path / "evidence.json"
    seal(recorded, exequatur, key, store, "cli-sequential")
    exequatur("evidence", "export", str(store), str(evidence))
    document = json.loads(Path(recorded.history("sequential")).read_text())
    document["events"][-1]["eventTime"] = document["events"][0]["eventTime"]
    later = tmp_path / "later.json"
    later.write_text(json.dumps(document))
    believing = ("--trust", trust, "--evidence", recorded.journal)
    assert exequatur("audit", "file", str(later), *believing).code == 0
    ended = exequatur("audit", "file", str(later), *believing, "--evidence", str(evidence))
    assert ended.code == 1
    assert "violation checkpoint-invalid" in ended.out


@pytest.mark.parametrize("args", [[], ["w", "--follow"], ["--query", "x", "--run-id", "r"], ["w", "--query", "x"]])
def test_it_must_be_clear_what_is_to_be_sealed(recorded, exequatur, notary, tmp_path, args):
    assert seal(recorded, exequatur, notary[0], tmp_path / "store.db", *args).code == 2
    assert not (tmp_path / "store.db").exists()


def test_a_query_that_finds_nothing_seals_nothing(recorded, exequatur, notary, tmp_path):
    ended = seal(recorded, exequatur, notary[0], tmp_path / "store.db", "--query", 'WorkflowId = "nowhere"')
    assert ended.code == 2
    assert "no run was sealed" in ended.err

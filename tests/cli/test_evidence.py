"""Evidence on its way from journals to a store, to a file, to another store, and an audit by each of them."""

import json
import shutil
import signal
import sqlite3
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import command, environment
from tests.cli.test_checkpoint import notary, seal

__all__ = ["notary"]  # a fixture


@pytest.fixture
def store(recorded, exequatur, tmp_path) -> str:
    path = str(tmp_path / "store.db")
    assert exequatur("evidence", "ship", recorded.journal, "--to", path).code == 0
    return path


def audited(recorded, exequatur, evidence: str) -> int:
    history = recorded.history("sequential")
    return exequatur("audit", "file", history, "--trust", recorded.trust, "--evidence", evidence).code


def test_what_was_shipped_is_not_shipped_again(recorded, exequatur, tmp_path):
    path = str(tmp_path / "store.db")
    first = exequatur("evidence", "ship", recorded.journal, "--to", path)
    assert first.code == 0
    assert int(first.out.split()[0].replace(",", "")) > 10
    assert exequatur("evidence", "ship", recorded.journal, "--to", path).out == "0 records shipped\n"


def test_a_store_stands_in_for_the_journals(recorded, exequatur, store):
    assert audited(recorded, exequatur, store) == 0
    assert audited(recorded, exequatur, f"sqlite:///{store}") == 0


def test_the_logs_and_runs_of_a_store_are_listed(recorded, exequatur, store):
    lines = [line.split("\t") for line in exequatur("evidence", "list", store).out.splitlines()]
    assert {line[0] for line in lines} == {"log", "run"}
    assert ["run", "cli-sequential", recorded.runs["cli-sequential"]] in lines
    only = exequatur("evidence", "list", store, "--workflow-id", "cli-denied").out
    assert only == f"run\tcli-denied\t{recorded.runs['cli-denied']}\n"


def test_an_exported_file_stands_in_for_the_store(recorded, exequatur, store, tmp_path):
    path = tmp_path / "evidence.json"
    ended = exequatur(
        "evidence", "export", store, str(path), "--workflow-id", "cli-sequential", "--trust", recorded.trust
    )
    assert ended.code == 0
    assert "cli-denied" not in path.read_text()
    assert json.loads(path.read_text())["trust"]["keys"]
    assert audited(recorded, exequatur, str(path)) == 0


def test_an_exported_file_is_imported_into_another_store(recorded, exequatur, store, tmp_path):
    path, other = str(tmp_path / "evidence.json"), str(tmp_path / "other.db")
    assert exequatur("evidence", "export", store, path).code == 0
    ended = exequatur("evidence", "import", other, path)
    assert ended.code == 0
    assert "new records" in ended.out
    assert ": 0 new records" in exequatur("evidence", "import", other, path).out
    assert audited(recorded, exequatur, other) == 0


def test_an_edited_file_is_not_imported(exequatur, store, tmp_path):
    path, other = tmp_path / "evidence.json", tmp_path / "other.db"
    exequatur("evidence", "export", store, str(path))
    document = json.loads(path.read_text())
    document["logs"][0]["records"][0]["at"] += 1
    path.write_text(json.dumps(document))
    ended = exequatur("evidence", "import", str(other), str(path))
    assert ended.code == 2
    assert str(path) in ended.err
    assert exequatur("evidence", "list", str(other)).out == ""


def test_stores_are_merged(recorded, exequatur, store, tmp_path):
    other = str(tmp_path / "other.db")
    assert exequatur("evidence", "merge", other, store).code == 0
    assert "0 new records" in exequatur("evidence", "merge", other, store).out
    assert audited(recorded, exequatur, other) == 0


def test_a_store_that_does_not_exist_is_not_made_by_mistake(exequatur, store, tmp_path):
    missing = tmp_path / "mistyped.db"
    for args in (
        ["list", str(missing)],
        ["export", str(missing), str(tmp_path / "out.json")],
        ["merge", store, str(missing)],
        ["prune", str(missing), "--before", "2026-01-01"],
    ):
        ended = exequatur("evidence", *args)
        assert ended.code == 2
        assert "mistyped.db" in ended.err
        assert not missing.exists()


def test_old_records_are_pruned_and_then_missed(recorded, exequatur, store):
    assert exequatur("evidence", "prune", store, "--before", "2001-01-01").out == "0 records deleted\n"
    assert exequatur("evidence", "prune", store, "--before", "2999-01-01T00:00:00Z").code == 0
    assert audited(recorded, exequatur, store) == 2


def test_a_folder_without_journals_is_said_to_be_one(exequatur, tmp_path):
    ended = exequatur("evidence", "ship", str(tmp_path), "--to", str(tmp_path / "store.db"))
    assert ended.code == 2
    assert "holds no journal" in ended.err


def test_an_edited_journal_is_refused(recorded, exequatur, store, tmp_path):
    copy = tmp_path / "journal"
    shutil.copytree(recorded.journal, copy)
    for path in copy.glob("*.db"):
        with sqlite3.connect(path) as db:
            db.execute("UPDATE records SET head = zeroblob(32) WHERE idx = (SELECT max(idx) FROM records)")
        db.close()
    ended = exequatur("evidence", "ship", str(copy), "--to", store)
    assert ended.code == 2
    assert "edited, cut or replaced" in ended.err


def test_following_ships_until_it_is_interrupted(recorded, exequatur, tmp_path):
    path = tmp_path / "store.db"
    process = subprocess.Popen(
        command("evidence", "ship", recorded.journal, "--to", str(path), "--follow", "--interval", "0.1"),
        stderr=subprocess.PIPE,
        env=environment(),
    )
    assert process.stderr is not None
    try:
        assert process.stderr.readline().startswith(b"shipping ")
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.stderr.close()
        process.wait()
    assert audited(recorded, exequatur, str(Path(path))) == 0


def test_a_file_with_statements_and_proofs_verifies_offline(recorded, exequatur, store, notary, tmp_path):
    key, trust = notary
    path = tmp_path / "evidence.json"
    history = recorded.history("sequential")
    assert seal(recorded, exequatur, key, store, "cli-sequential").code == 0
    made = exequatur("evidence", "export", store, str(path), "--history", history, "--event", "5", "--event", "7")
    assert (made.code, made.err) == (0, "")
    verified = exequatur("evidence", "verify", str(path), "--trust", trust)
    assert (verified.code, verified.err) == (0, "")
    assert "checkpoints at 23 events\nproven events: 5, 7\n" in verified.out
    # It is evidence like any other, too.
    assert exequatur("audit", "file", history, "--trust", trust, "--evidence", str(path)).code == 0

    changed = json.loads(path.read_text())
    changed["proofs"]["inclusion"][0]["index"] += 1
    path.write_text(json.dumps(changed))
    refused = exequatur("evidence", "verify", str(path), "--trust", trust)
    assert refused.code == 2
    assert refused.out == ""


def test_the_viewer_is_one_file_with_or_without_evidence(exequatur, tmp_path):
    (tmp_path / "refund.json").write_text('{"version":"<script>"}')
    for file in ((), (str(tmp_path / "refund.json"),)):
        ended = exequatur("evidence", "viewer", *file, "-o", str(tmp_path / "viewer.html"))
        assert ended.code == 0, ended.err
        made = (tmp_path / "viewer.html").read_text()
        assert "script-src &#39;sha256-" in made
        assert ("\\u003cscript\\u003e" in made) == bool(file)
    (tmp_path / "refund.json").write_bytes(b"\xff")
    ended = exequatur("evidence", "viewer", str(tmp_path / "refund.json"), "-o", str(tmp_path / "viewer.html"))
    assert ended.code == 2
    assert "no UTF-8 text" in ended.err
    assert exequatur("evidence", "viewer", str(tmp_path / "none.json"), "-o", str(tmp_path / "x.html")).code == 2


def test_the_viewer_does_not_take_the_place_of_the_evidence_and_does_not_read_without_end(exequatur, tmp_path):
    evidence, link = tmp_path / "refund.json", tmp_path / "link.html"
    evidence.write_text("{}")
    link.symlink_to(evidence)
    for out in (evidence, link):
        ended = exequatur("evidence", "viewer", str(evidence), "-o", str(out))
        assert (ended.code, evidence.read_text()) == (2, "{}")
        assert "is the evidence itself" in ended.err
    ended = exequatur("evidence", "viewer", "/dev/zero", "-o", str(tmp_path / "x.html"))
    assert ended.code == 2
    assert "more than" in ended.err


def test_a_file_without_proofs_or_trusted_keys_does_not_verify(recorded, exequatur, store, notary, tmp_path):
    _, trust = notary
    path = str(tmp_path / "evidence.json")
    assert exequatur("evidence", "export", store, path).code == 0
    assert "--history" in exequatur("evidence", "verify", path, "--trust", trust).err
    assert exequatur("evidence", "export", store, path, "--event", "1").code == 2
    history = recorded.history("sequential")
    assert exequatur("evidence", "export", store, path, "--history", history, "--workflow-id", "other").code == 2
    assert exequatur("evidence", "export", store, path, "--history", history).code == 0
    nobody = tmp_path / "nobody.jwks"
    nobody.write_text('{"keys": []}')
    assert exequatur("evidence", "verify", path, "--trust", str(nobody)).code == 2


def test_what_was_revoked_goes_along_with_a_workflows_evidence(recorded, exequatur, store, tmp_path):
    path = tmp_path / "evidence.json"
    assert exequatur("evidence", "export", store, str(path), "--workflow-id", "cli-sequential").code == 0
    kinds = {record["kind"] for log in json.loads(path.read_text())["logs"] for record in log["records"]}
    assert {"bundle", "decision", "receipt", "seal", "revocation"} <= kinds

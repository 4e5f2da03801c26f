"""``exequatur policy diff`` as a user meets it: real runs, folders, files, digests, a server, and bad input."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import record
from tests.cli.conftest import COMPLETED, Ended, Recorded

Run = Callable[..., Ended]

SCHEMA = """
entity Agent; entity Workflow;
type Facts = { namespace: String, workflow_id: String, workflow_type: String, run_id: String, governed: Bool };
@parameters("number")
action step, delete appliesTo { principal: Agent, resource: Workflow, context: { args: { number: Long }, run: Facts } };
action "workflow.start" appliesTo { principal: Agent, resource: Workflow, context: { args: {} } };
"""
LOW = '@id("low") forbid(principal, action == Action::"step", resource) when { context.args.number > 2 };\n'


def folder(path: Path, policies: str, schema: str | None = None) -> str:
    path.mkdir()
    (path / "main.cedar").write_text(policies)
    if schema is not None:
        (path / "schema.cedarschema").write_text(schema)
    return str(path)


@pytest.fixture
def old(tmp_path: Path) -> str:
    return folder(tmp_path / "old", record.POLICIES)


@pytest.fixture
def new(tmp_path: Path) -> str:
    return folder(tmp_path / "new", record.POLICIES + LOW, SCHEMA)


def report(ended: Ended) -> dict[str, Any]:
    assert ended.out.startswith("{"), ended.err
    found: dict[str, Any] = json.loads(ended.out)
    return found


def test_nothing_flips_when_nothing_changes(exequatur: Run, recorded: Recorded, old: str) -> None:
    ended = exequatur("policy", "diff", old, old, "--against", recorded.journal, "--json")
    found = report(ended)
    assert (ended.code, found["flips"], found["undecidable"]) == (0, 0, 0)
    assert found["asked"] == found["same"] > 5
    assert found["not_reproduced"] == 0


def test_histories_show_what_a_new_limit_flips(exequatur: Run, recorded: Recorded, old: str, new: str) -> None:
    ended = exequatur(
        "policy",
        "diff",
        old,
        new,
        "--against",
        recorded.history("sequential"),
        "--converter",
        "tests.cli.conftest:MIRRORED",
    )
    # The converter does not fit this history, which is said, and nothing was compared.
    assert ended.code == 2
    ended = exequatur("policy", "diff", old, new, "--against", recorded.history("sequential"))
    assert ended.code == 1
    assert "4 recorded decisions compared: 1 decision flips" in ended.out
    assert "1 step: low forbids" in ended.out
    assert "cli-sequential, activity 3" in ended.out
    assert 'Agent::"clerk": args.number = 3' in ended.out
    assert "exequatur audit" in ended.out


def test_a_payload_codec_is_undone_first(exequatur: Run, recorded: Recorded, old: str, new: str) -> None:
    arguments = ("policy", "diff", old, new, "--against", recorded.history("mirrored"), "--json")
    encoded = exequatur(*arguments)
    assert encoded.code == 2
    assert report(encoded)["asked"] == 0
    decoded = exequatur(*arguments, "--converter", "tests.cli.conftest:MIRRORED")
    assert decoded.code == 1
    assert report(decoded)["allow_to_deny"] == 1


def test_a_journal_does_not_hold_what_its_policies_did_not_read(
    exequatur: Run, recorded: Recorded, old: str, new: str
) -> None:
    arguments = ("policy", "diff", old, new, "--against", str(recorded.state), "--json")
    ended = exequatur(*arguments)
    found = report(ended)
    assert (ended.code, found["flips"]) == (0, 0)
    causes = {group["cause"] for group in found["groups"]}
    assert "the record does not hold args.number (new policies)" in causes
    strict = exequatur(*arguments, "--strict")
    assert strict.code == 2
    assert "--strict" in strict.err


def test_a_server_is_asked_by_a_visibility_query(exequatur: Run, recorded: Recorded, old: str, new: str) -> None:
    ended = exequatur(
        "policy", "diff", old, new, "--against", f"query:{COMPLETED}", "--address", recorded.target, "--json"
    )
    found = report(ended)
    assert ended.code == 1
    assert found["allow_to_deny"] >= 2
    assert any("no grant" in reason for reason in found["skipped"])
    wrong = exequatur("policy", "diff", old, new, "--against", "query:Nonsense = 1", "--address", recorded.target)
    assert (wrong.code, "the server refuses the query" in wrong.err) == (2, True)
    away = exequatur("policy", "diff", old, new, "--against", "query:", "--address", "127.0.0.1:1")
    assert (away.code, "127.0.0.1:1: cannot connect: connection refused; " in away.err) == (2, True)


def test_a_decision_that_two_sources_hold_counts_once(exequatur: Run, recorded: Recorded, old: str, new: str) -> None:
    history, journal = recorded.history("sequential"), str(recorded.state)
    both = report(exequatur("policy", "diff", old, new, "--against", journal, "--against", history, "--json"))
    alone = [report(exequatur("policy", "diff", old, new, "--against", each, "--json")) for each in (journal, history)]
    assert both["repeated"] == 3
    assert both["asked"] == sum(each["asked"] for each in alone) - 3
    # The journal does not hold what the old policies did not read; the history does, so it is the one that counts.
    assert (both["flips"], both["undecidable"]) == (1, alone[0]["undecidable"] - 3)
    ended = exequatur("policy", "diff", old, new, "--against", journal, "--against", history)
    assert "3 decisions stood in more than one source and count once" in ended.out


def test_arguments_that_a_history_has_in_code_are_taken_from_the_journal(
    exequatur: Run, recorded: Recorded, old: str
) -> None:
    history, journal = recorded.history("mirrored"), str(recorded.state)
    both = report(exequatur("policy", "diff", old, old, "--against", history, "--against", journal, "--json"))
    alone = report(exequatur("policy", "diff", old, old, "--against", journal, "--json"))
    assert (both["asked"], both["undecidable"]) == (alone["asked"], 0)


def test_ungoverned_histories_are_asked_on_behalf_of_whom_is_said(
    exequatur: Run, recorded: Recorded, old: str, new: str
) -> None:
    arguments = ("policy", "diff", old, new, "--against", recorded.history("ungoverned"), "--json")
    assert exequatur(*arguments).code == 2
    found = exequatur(*arguments, "--principal", 'Agent::"somebody"')
    assert (found.code, report(found)["flips"]) == (1, 1)
    for wrong in (["--principal", "somebody"], ["--parent", 'Role::"x"'], ["--principal", 'A::"b"', "--parent", "x"]):
        ended = exequatur(*arguments, *wrong)
        assert (ended.code, ended.err.count("\n")) == (2, 1)


def test_activities_and_times_are_chosen(exequatur: Run, recorded: Recorded, old: str, new: str) -> None:
    arguments = ("policy", "diff", old, new, "--against", str(recorded.histories), "--json")
    found = report(exequatur(*arguments, "--activity", "del*"))
    assert (found["asked"], found["flips"]) == (1, 0)
    assert report(exequatur(*arguments, "--since", "7d"))["asked"] == report(exequatur(*arguments))["asked"]
    assert exequatur(*arguments, "--since", "2999-01-01").code == 2
    wrong = exequatur(*arguments, "--since", "yesterday")
    assert (wrong.code, "not a time" in wrong.err) == (2, True)


def test_a_digest_names_a_bundle_that_the_evidence_archives(exequatur: Run, recorded: Recorded, old: str) -> None:
    with_old = report(exequatur("policy", "diff", old, old, "--against", recorded.journal, "--json"))
    digest = with_old["old"]["digest"]
    ended = exequatur("policy", "diff", digest, old, "--against", recorded.journal, "--json")
    assert (ended.code, report(ended)["old"]["digest"]) == (0, digest)
    unknown = exequatur("policy", "diff", "A" * 43, old, "--against", recorded.journal)
    assert (unknown.code, "is archived" in unknown.err) == (2, True)


def test_bundle_files_are_compared_like_folders(exequatur: Run, old: str, new: str, tmp_path: Path) -> None:
    file = str(tmp_path / "new.bundle")
    assert exequatur("policy", "build", new, "--version", "1", "--author", "me", "-o", file).code == 0
    assert exequatur("policy", "diff", new, file).code == 0
    assert exequatur("policy", "diff", old, file).code == 1


def test_without_decisions_the_texts_are_compared(exequatur: Run, old: str, new: str) -> None:
    ended = exequatur("policy", "diff", old, new)
    assert ended.code == 1
    assert "+ policy low" in ended.out
    assert "+ schema schema" in ended.out
    found = report(exequatur("policy", "diff", old, new, "--json"))
    assert {each["name"] for each in found["differences"]} == {"low", "schema"}
    same = exequatur("policy", "diff", new, new)
    assert (same.code, same.out) == (0, "No difference\n")


@pytest.mark.parametrize("content", [b"", b"permit", b"\xff\xfe", b"permit(principal, action, resource) when { x };"])
def test_policies_that_cannot_be_read_are_named(exequatur: Run, old: str, tmp_path: Path, content: bytes) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "bad.cedar").write_bytes(content)
    ended = exequatur("policy", "diff", old, str(broken), "--against", str(tmp_path))
    if content:
        assert (ended.code, "bad.cedar" in ended.err) == (2, True)
    else:
        assert ended.code == 2
    assert "Traceback" not in ended.err


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[" * 100_000, b"\x00\xff", b'{"events": [{}]}', b"SQLite format 3\x00"]
)
def test_what_is_no_record_is_one_line_and_nothing_is_compared(
    exequatur: Run, old: str, tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / "history.json"
    file.write_bytes(content)
    ended = exequatur("policy", "diff", old, old, "--against", str(file))
    assert ended.code == 2
    assert "history.json" in ended.err
    assert "Traceback" not in ended.err


def test_an_unreadable_history_does_not_hide_the_others(
    exequatur: Run, recorded: Recorded, old: str, tmp_path: Path
) -> None:
    for name in ("sequential", "denied"):
        (tmp_path / f"{name}.json").write_bytes(Path(recorded.history(name)).read_bytes())
    (tmp_path / "broken.json").write_text("{")
    ended = exequatur("policy", "diff", old, old, "--against", str(tmp_path), "--json")
    assert (ended.code, report(ended)["unreadable"]) == (0, 1)
    assert "broken.json" in ended.err
    assert exequatur("policy", "diff", old, old, "--against", str(tmp_path), "--strict").code == 2


def test_the_command_ends_a_process_with_its_verdict(process: Run, recorded: Recorded, old: str, new: str) -> None:
    ended = process("policy", "diff", old, new, "--against", recorded.history("sequential"))
    assert (ended.code, ended.err) == (1, "")
    assert process("policy", "diff", old).code == 2

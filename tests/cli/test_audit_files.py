"""Histories from files: the verdict, the forms of the report, the replay and the user's converter."""

import json
from pathlib import Path

from tests.cli.conftest import edited

MIRRORED = ["--converter", "tests.cli.conftest:MIRRORED"]


def test_a_run_with_its_evidence_is_verified(recorded, process):
    ended = process("audit", "file", recorded.history("sequential"), recorded.history("denied"), *recorded.believing)
    assert (ended.code, ended.err) == (0, "")
    assert 'on behalf of Agent::"clerk"' in ended.out
    assert "\nVerified. In 2 runs" in ended.out


def test_the_development_authority_is_unproven_and_strict_says_so(recorded, exequatur):
    ended = exequatur("audit", "file", recorded.history("sequential"), *recorded.believing, "--strict")
    assert ended.code == 2
    assert "self-notarised" in ended.out
    assert ended.err == "With --strict, what is unproven counts as not checked\n"


def test_an_edited_history_is_a_violation(recorded, exequatur, tmp_path):
    ended = exequatur("audit", "file", edited(recorded.history("sequential"), tmp_path), *recorded.believing)
    assert ended.code == 1
    assert "violation receipt-invalid" in ended.out


def test_a_violation_outweighs_a_file_that_cannot_be_read(recorded, exequatur, tmp_path):
    wrong = edited(recorded.history("sequential"), tmp_path)
    ended = exequatur("audit", "file", "nowhere.json", wrong, *recorded.believing)
    assert ended.code == 1
    assert "nowhere.json: No such file" in ended.out


def test_without_the_evidence_nothing_is_called_verified(recorded, exequatur):
    ended = exequatur("audit", "file", recorded.history("sequential"), "--trust", recorded.trust)
    assert ended.code == 2
    assert "Could not be checked" in ended.out
    assert "Verified" not in ended.out


def test_a_run_without_a_grant_is_a_violation_unless_the_trust_file_exempts_it(recorded, exequatur, tmp_path):
    history = recorded.history("ungoverned")
    assert exequatur("audit", "file", history, *recorded.believing).code == 1
    exempting = tmp_path / "trust.jwks"
    document = json.loads(Path(recorded.trust).read_text())
    exempting.write_text(json.dumps(document | {"ungoverned": ["Sequential"]}))
    ended = exequatur("audit", "file", history, "--trust", str(exempting), "--evidence", recorded.journal)
    assert "run-exempt" in ended.out
    assert "run-ungoverned" not in ended.out
    assert ended.code == 0


def test_json_is_the_report_and_html_a_page_besides(recorded, exequatur, tmp_path):
    page = tmp_path / "report.html"
    ended = exequatur("audit", "file", recorded.history("denied"), *recorded.believing, "--json", "--html", str(page))
    assert ended.code == 0
    assert ended.report["verdict"] == "verified"
    [run] = ended.report["runs"]
    assert run["principal"] == 'Agent::"clerk"'
    assert [activity["outcome"] for activity in run["activities"]] == ["denied", "completed"]
    html = page.read_text("utf-8")
    assert "<h1>Verified</h1>" in html
    assert "records are kept" in html
    assert "no-deletion" in html


def test_code_that_makes_the_same_choices_replays(recorded, process):
    histories = [recorded.history(name) for name in ("sequential", "denied")]
    ended = process(
        "audit",
        "replay",
        *histories,
        *recorded.believing,
        "--json",
        "--workflows",
        "tests.record:Sequential,tests.record",
    )
    assert (ended.code, ended.err) == (0, "")
    assert [run["replay"] for run in ended.report["runs"]] == ["deterministic", "deterministic"]


def test_code_that_makes_other_choices_is_a_violation(recorded, exequatur):
    ended = exequatur(
        "audit", "replay", recorded.history("sequential"), *recorded.believing, "--workflows", "tests.cli.rewritten"
    )
    assert ended.code == 1
    assert "violation replay-nondeterministic" in ended.out


def test_a_result_without_a_valid_receipt_replays_as_the_workers_saw_it(recorded, exequatur, tmp_path):
    # Without the plugin the edited result would be taken, and the code would seem to make the same choices.
    ended = exequatur(
        "audit",
        "replay",
        edited(recorded.history("sequential"), tmp_path),
        *recorded.believing,
        "--json",
        "--workflows",
        "tests.record",
    )
    assert ended.code == 1
    assert ended.report["runs"][0]["replay"] == "nondeterministic"


def test_a_workflow_that_the_code_lacks_could_not_be_replayed(recorded, exequatur):
    ended = exequatur(
        "audit", "replay", recorded.history("denied"), *recorded.believing, "--workflows", "tests.cli.rewritten"
    )
    assert ended.code == 2
    assert "--workflows names no Denied, only Sequential" in ended.out


def test_encoded_payloads_are_checked_with_the_converter_and_not_called_verified_without(recorded, exequatur):
    history = recorded.history("mirrored")
    without = exequatur("audit", "file", history, *recorded.believing)
    assert without.code == 2
    assert "payload-encoded" in without.out
    assert exequatur("audit", "file", history, *recorded.believing, *MIRRORED).code == 0


def test_encoded_payloads_replay_with_the_converter(recorded, exequatur):
    ended = exequatur(
        "audit",
        "replay",
        recorded.history("mirrored"),
        *recorded.believing,
        *MIRRORED,
        "--json",
        "--workflows",
        "tests.record",
    )
    assert ended.code == 0
    assert ended.report["runs"][0]["replay"] == "deterministic"


def test_a_converter_that_does_not_fit_is_named_in_the_report(recorded, exequatur):
    ended = exequatur("audit", "file", recorded.history("sequential"), *recorded.believing, *MIRRORED)
    assert ended.code == 2
    assert "the data converter cannot decode it" in ended.out


def test_a_hundred_histories_are_audited_in_one_go(recorded, exequatur):
    ended = exequatur("audit", "file", *[recorded.history("sequential")] * 100, *recorded.believing)
    assert ended.code == 0
    assert "Verified. In 100 runs" in ended.out


def test_a_run_that_belongs_to_an_audited_one_and_is_left_out_is_named(recorded, exequatur):
    alone = exequatur("audit", "file", recorded.history("continued"), *recorded.believing, "--json").report
    [linked] = [each for each in alone["runs"][0]["findings"] if each["code"] == "run-linked"]
    assert linked["severity"] == "unproven"
    assert "cli-continued" in linked["sentence"]


def test_runs_that_are_audited_together_are_not_missing(recorded, exequatur):
    ended = exequatur("audit", "run", "cli-child", *recorded.at_server, "--json")
    assert ended.out, ended.err
    assert len(ended.report["runs"]) == 2
    assert not [each for run in ended.report["runs"] for each in run["findings"] if each["code"] == "run-linked"]
    alone = exequatur("audit", "run", "cli-child", "--no-follow", *recorded.at_server, "--json").report
    assert "run-linked" in {each["code"] for each in alone["runs"][0]["findings"]}

"""Histories from a real server: one run with those that belong to it, and all that a query finds."""

import json
import os
import pty
import subprocess

from tests.cli.conftest import COMPLETED, command, environment


def names(report):
    return [(run["workflow_id"], run["workflow_type"], run["verdict"]) for run in report["runs"]]


def test_a_run_is_audited_from_the_server(recorded, process):
    ended = process("audit", "run", "cli-sequential", *recorded.at_server, "--json")
    assert (ended.code, ended.err) == (0, "")
    assert names(ended.report) == [("cli-sequential", "Sequential", "verified")]
    assert ended.report["runs"][0]["run_id"] == recorded.runs["cli-sequential"]


def test_the_options_of_the_server_may_stand_in_the_environment(recorded, exequatur):
    ended = exequatur(
        "audit",
        "run",
        "cli-sequential",
        *recorded.believing,
        TEMPORAL_ADDRESS=recorded.target,
        TEMPORAL_NAMESPACE="default",
    )
    assert ended.code == 0


def test_runs_that_continue_one_another_are_followed_from_any_of_them(recorded, exequatur):
    last = exequatur("audit", "run", "cli-continued", *recorded.at_server, "--json")
    first = exequatur(
        "audit", "run", "cli-continued", "--run-id", recorded.runs["cli-continued"], *recorded.at_server, "--json"
    )
    for ended in (last, first):
        assert ended.code == 0
        assert names(ended.report) == [("cli-continued", "Continued", "verified")] * 2
    assert {run["run_id"] for run in last.report["runs"]} == {run["run_id"] for run in first.report["runs"]}


def test_children_and_parents_are_followed(recorded, exequatur):
    family = {("cli-child", "WithChild", "verified"), ("cli-child-child", "Sequential", "verified")}
    for one in ("cli-child", "cli-child-child"):
        ended = exequatur("audit", "run", one, *recorded.at_server, "--json")
        assert ended.code == 0
        assert set(names(ended.report)) == family


def test_only_one_run_is_audited_when_nothing_is_to_be_followed(recorded, exequatur):
    ended = exequatur("audit", "run", "cli-child", "--no-follow", *recorded.at_server, "--json")
    assert names(ended.report) == [("cli-child", "WithChild", "verified")]


def test_a_run_that_the_server_does_not_have_is_exit_code_2(recorded, exequatur):
    for args in (["cli-nowhere"], ["cli-sequential", "--run-id", "0198c1c2-7d7a-7c3e-9d56-a7b2f5ad0c11"]):
        ended = exequatur("audit", "run", *args, *recorded.at_server)
        assert ended.code == 2
        assert ended.out == ""
        assert args[0] in ended.err
        assert ended.err.count("\n") == 1


def test_all_runs_of_a_query_are_audited(recorded, exequatur):
    ended = exequatur("audit", "query", COMPLETED, *recorded.at_server, "--json", "--parallel", "3")
    assert ended.code == 1
    found = set(names(ended.report))
    assert ("cli-ungoverned", "Sequential", "violated") in found
    assert {name for name, _, verdict in found if verdict == "verified"} == {
        "cli-sequential",
        "cli-denied",
        "cli-continued",
        "cli-child",
        "cli-child-child",
    }
    alone = exequatur("audit", "query", COMPLETED, *recorded.at_server, "--json", "--parallel", "1")
    assert names(alone.report) == names(ended.report)


def test_progress_is_shown_on_a_terminal_and_only_there(recorded, process):
    args = ("audit", "query", 'WorkflowId = "cli-sequential"', *recorded.at_server, "--json")
    assert process(*args).err == ""
    ours, theirs = pty.openpty()
    try:
        ended = subprocess.run(
            command(*args), stdout=subprocess.PIPE, stderr=theirs, env=environment(TERM="xterm"), timeout=60, check=True
        )
        assert b"auditing" in os.read(ours, 10_000)
    finally:
        os.close(ours)
        os.close(theirs)
    assert json.loads(ended.stdout)["verdict"] == "verified"


def test_a_query_that_finds_nothing_verifies_nothing(recorded, exequatur):
    ended = exequatur("audit", "query", 'WorkflowId = "cli-nowhere"', *recorded.at_server)
    assert ended.code == 2
    assert "Nothing was audited" in ended.out


def test_a_query_that_the_server_refuses_is_exit_code_2(recorded, exequatur):
    ended = exequatur("audit", "query", "this is no query", *recorded.at_server)
    assert ended.code == 2
    assert ended.out == ""
    assert "the server refuses the query" in ended.err
    assert ended.err.count("\n") == 1

"""Rule W1 for headers that anybody can write: the run exists, and may schedule nothing."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from temporalio import workflow

from exequatur import AuthorizationPlugin
from exequatur.gate.gate import Gate
from exequatur.gate.run import GovernedRun
from exequatur.gate.wire import START_HEADER, start_header
from tests.simulator import Scene, forge, header_of


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Gate:
    folder: Path = tmp_path_factory.mktemp("authority")
    (folder / "policies").mkdir()
    (folder / "policies" / "all.cedar").write_text('@id("all") permit(principal, action, resource);')
    return AuthorizationPlugin.embedded(folder / "policies", state_dir=folder / "state").gate


def started_with(gate: Gate, *tokens: str) -> GovernedRun:
    told: dict[str, Any] = {
        "headers": {START_HEADER: start_header(tokens)},
        "workflow_id": "refund-1",
        "workflow_type": "Refund",
        "original_execution_run_id": "run-1",
    }
    info = workflow.Info(**{each.name: told.get(each.name) for each in fields(workflow.Info) if each.init})
    run = GovernedRun.of(gate, info)
    assert run is not None
    return run


@pytest.mark.rule("W1")
@pytest.mark.parametrize("claims", ["\ud800", "é", "A", "=", "AA", "AQ"], ids=repr)
def test_a_start_header_of_tokens_that_no_request_can_carry_is_unreadable(
    scene: Scene, gate: Gate, claims: str
) -> None:
    header, _, signature = scene.grant.split(".")
    run = started_with(gate, f"{header}.{claims}.{signature}")
    assert run.unreadable


@pytest.mark.rule("W1")
def test_a_start_header_without_a_grant_is_unreadable(scene: Scene, gate: Gate) -> None:
    for tokens in ([scene.workflows.credential], [scene.grant, scene.request], [""], ["a.b.c"]):
        assert started_with(gate, *tokens).unreadable


def test_a_start_header_whose_grant_says_nothing_is_readable_and_not_believed(scene: Scene, gate: Gate) -> None:
    run = started_with(gate, forge(header_of(scene.grant), {}, scene.attacker))
    assert run.unreadable is None
    assert run.fault
    assert run.enforced

"""Recorded histories replay with the plugin and without it, and a tampered one does not."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer

from exequatur.gate.wire import PREFIX
from exequatur.statements.trust import TrustStore
from tests import record
from tests.gate.conftest import PERMIT_ALL, Stage, sandbox

NAMES = sorted(file.stem for file in record.HISTORIES.glob("*.json"))
GOVERNED = [name for name in NAMES if name != "ungoverned"]


def text_of(name: str) -> str:
    return (record.HISTORIES / f"{name}.json").read_text()


def history(name: str, change: Callable[[str], str] = lambda text: text) -> WorkflowHistory:
    # A replay is told the workflow id; with another one no receipt would be for this workflow.
    return WorkflowHistory.from_json(name.partition(".")[0], change(text_of(name)))


def replayer(*plugins: Any, **options: Any) -> Replayer:
    return Replayer(workflows=record.WORKFLOWS, plugins=plugins, workflow_runner=sandbox(), **options)


async def knowing_the_recorder(stage: Callable[..., Any], **settings: Any) -> Stage:
    """A stage of its own that has only the recorder's public keys."""
    s: Stage = await stage(PERMIT_ALL, **settings)
    for anchor in TrustStore.from_jwks(record.TRUST.read_bytes()):
        s.plugin.gate.trust.add(anchor)
    return s


def test_there_is_a_history_of_every_kind():
    assert {"sequential", "fan-out", "local", "child", "continued", "denied", "revoked", "ungoverned"} <= set(NAMES)
    assert all(PREFIX in text_of(name) for name in GOVERNED)
    assert PREFIX not in text_of("ungoverned")


@pytest.mark.parametrize("name", NAMES)
async def test_a_recorded_history_replays_with_the_plugin(stage, name):
    # A replayer has a placeholder for a namespace, so this also shows that receipts verify without one.
    s = await knowing_the_recorder(stage)
    await replayer(s.plugin).replay_workflow(history(name))


@pytest.mark.parametrize("name", NAMES)
async def test_a_recorded_history_replays_without_the_plugin(name):
    await replayer().replay_workflow(history(name))


@pytest.mark.parametrize("name", NAMES)
async def test_a_recorded_history_replays_whatever_mode_the_worker_is_in_now(stage, name):
    s = await knowing_the_recorder(stage, mode="observe")
    await replayer(s.plugin).replay_workflow(history(name))


@pytest.mark.parametrize("name", GOVERNED)
async def test_a_governed_history_does_not_replay_as_if_nothing_were_wrong_when_the_authority_is_not_known(stage, name):
    s = await stage()
    with pytest.raises(Exception, match="trust store has no key"):
        await replayer(s.plugin).replay_workflow(history(name))


def another_first_result(text: str) -> str:
    """The same history, but the first activity has answered 7."""
    document = json.loads(text)
    for event in document["events"]:
        completed = event.get("activityTaskCompletedEventAttributes")
        if completed:
            completed["result"]["payloads"][0]["data"] = base64.b64encode(b"7").decode()
            return json.dumps(document)
    raise AssertionError("no activity has completed")


async def test_a_history_whose_result_was_edited_replays_without_the_plugin_and_not_with_it(stage):
    s = await knowing_the_recorder(stage)
    await replayer().replay_workflow(history("fan-out", another_first_result), raise_on_replay_failure=False)
    with pytest.raises(Exception, match=r"(?i)nondeterminism|non-?determin"):
        await replayer(s.plugin).replay_workflow(history("sequential", another_first_result))


async def test_the_plugin_given_to_a_replayer_twice_is_harmless(stage):
    s = await knowing_the_recorder(stage)
    await replayer(s.plugin, s.plugin).replay_workflow(history("sequential"))


def test_the_recorded_keys_are_public_only():
    for key in json.loads(record.TRUST.read_bytes())["keys"]:
        assert "d" not in key
    assert not list(Path(record.HISTORIES).glob("*.pem"))

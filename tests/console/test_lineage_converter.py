"""Runs of workers that encode their payloads: with their converter, without it, and with one that is broken."""

from __future__ import annotations

import asyncio
import io
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import pytest_asyncio
from temporalio.client import Client
from temporalio.worker import Worker

from exequatur import AuthorizationPlugin
from exequatur.approvals import list_challenges
from exequatur.audit.bundle import verify_proofs
from exequatur.audit.trust import read_trust
from exequatur.console import decoding
from exequatur.console.config import read_config
from exequatur.console.decoding import Decoder
from exequatur.console.serve import build
from exequatur.errors import ConfigurationError, EvidenceError
from exequatur.lineage import document
from exequatur.settings import Settings
from tests.console import turned
from tests.console.lineage_runs import ACTIVITIES, BOT, POLICIES, Long, Refunds
from tests.console.running import Running, running
from tests.console.test_lineage import text_of


@dataclass
class Encoded:
    """Two runs with encoded payloads: one has ended, one waits for people."""

    folder: Path
    ended: str
    waiting: str


@pytest_asyncio.fixture(scope="module")
async def encoded(target: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Encoded]:
    folder = tmp_path_factory.mktemp("encoded")
    (folder / "policies").mkdir()
    (folder / "policies" / "main.cedar").write_text(POLICIES)
    plugin = AuthorizationPlugin.embedded(folder / "policies", state_dir=folder / "state", principal=BOT)
    client = await Client.connect(target, plugins=[plugin], data_converter=turned.TURNED)
    queue = f"encoded-{uuid.uuid4().hex[:8]}"
    async with Worker(client, task_queue=queue, workflows=[Long, Refunds], activities=ACTIVITIES):
        ended = await client.start_workflow(Long.run, 2, id=f"{queue}-ended", task_queue=queue)
        waiting = await client.start_workflow(Refunds.run, 40, id=f"{queue}-waiting", task_queue=queue)
        await ended.result()
        for _ in range(1_000):
            if (await list_challenges(client, plugin, workflow_id=waiting.id)).challenges:
                break
            await asyncio.sleep(0.05)
        yield Encoded(folder, ended.id, waiting.id)
        await waiting.terminate("seen enough")


@pytest.fixture(autouse=True)
def release() -> Iterator[None]:
    turned.released.clear()
    yield
    turned.released.set()


def console_with(encoded: Encoded, target: str, converter: str | None) -> Any:
    config = {} if converter is None else {"converter": f"tests.console.turned:{converter}"}
    return running(encoded.folder, policies=encoded.folder / "policies", target=target, config=config)


def at(workflow_id: str, path: str = "/lineage/run", **more: Any) -> str:
    return f"{path}?{urlencode({'workflow': workflow_id, **more})}"


async def audited(console: Running, workflow_id: str, **more: Any) -> str:
    """What the page of a run says once it was audited."""
    async with console.browser() as viewer:
        for _ in range(200):
            page = await viewer.client.get(at(workflow_id, **more), follow_redirects=True)
            if page.status_code != 202:
                break
            await asyncio.sleep(0.05)
        return await text_of(viewer, at(workflow_id, **more))


async def test_with_the_workers_converter_everything_is_read(encoded: Encoded, target: str) -> None:
    async with console_with(encoded, target, "TURNED") as console, console.browser() as viewer:
        page = await audited(console, encoded.ended)
        assert "Verified" in page
        assert page.count("signed receipt") == 2
        why = await text_of(viewer, at(encoded.ended, "/lineage/why", activity="1"))
        assert "look_up: allowed" in why
        answer = await viewer.get(at(encoded.ended, "/lineage/evidence.json"))
        content = document.read(io.BytesIO(answer.content))
        seals = [each.record.body.decode() for each in content.links if each.record.kind == "seal"]
        trust = read_trust(encoded.folder / "state" / "trust.jwks")
        assert verify_proofs(content.proofs, content.checkpoints, seals, trust).principal == 'Agent::"ops-bot"'
        assert encoded.waiting in await text_of(viewer, "/governance/approvals")


async def test_the_history_explains_what_was_encoded(encoded: Encoded, target: str, monkeypatch: Any) -> None:
    monkeypatch.setattr("exequatur.console.why.from_evidence", lambda *_: None)
    async with console_with(encoded, target, "TURNED") as console, console.browser() as viewer:
        why = await text_of(viewer, at(encoded.ended, "/lineage/why", activity="1"))
        assert "Found in: the history" in why
        assert "look_up: allowed" in why


async def test_without_a_converter_the_page_says_which_option_is_missing(encoded: Encoded, target: str) -> None:
    async with console_with(encoded, target, None) as console:
        page = await audited(console, encoded.ended)
    assert "Could not be checked" in page
    assert "Start it with --converter" in page


@pytest.mark.rule("runs.U5", "decoding.C2")
async def test_a_converter_that_raises_makes_the_run_unchecked_and_tells_no_secret(
    encoded: Encoded, target: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with console_with(encoded, target, "RAISING") as console, console.browser() as viewer:
        page = await audited(console, encoded.ended)
        assert "Could not be checked" in page
        assert "The console's converter does not decode these payloads" in page
        findings = await text_of(viewer, at(encoded.ended, tab="findings"))
        assert "tests.console.turned:RAISING cannot decode the payloads (SystemExit)" in findings
        export = await viewer.get(at(encoded.ended, "/lineage/evidence.json"))
        assert export.status_code == 503
        assert "cannot decode the payloads" in export.text
        assert turned.SECRET not in page + findings + export.text
        assert turned.SECRET in caplog.text


@pytest.mark.rule("decoding.C1", "runs.U5")
async def test_a_converter_that_hangs_holds_up_nobody(
    encoded: Encoded, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "WITHIN", 0.2)
    async with console_with(encoded, target, "HANGING") as console, console.browser() as viewer:
        page = await audited(console, encoded.ended)
        assert "Could not be checked" in page
        assert "did not answer within" in await text_of(viewer, at(encoded.ended, tab="findings"))
        approvals = await viewer.get("/governance/approvals")
        assert approvals.status_code == 200


@pytest.mark.rule("decoding.C3")
async def test_a_converter_that_hung_too_often_is_called_no_more() -> None:
    decoder = Decoder(turned.HANGING, "app:converter")
    codec = turned.HANGING.payload_codec
    assert codec is not None
    for _ in range(decoding.LEFT):
        with pytest.raises(EvidenceError, match="did not answer"):
            await decoder.called(lambda: codec.decode([]), 0.01)
    with pytest.raises(EvidenceError, match="start the console again"):
        await decoder.called(lambda: codec.decode([]), 5)
    turned.released.set()
    for _ in range(200):  # those that have ended count no more
        await asyncio.sleep(0.02)
        try:
            assert await decoder.called(lambda: codec.decode([]), 5) == []
            break
        except EvidenceError:
            continue
    else:
        pytest.fail("it was never called again")


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("tests.console.turned:NOTHING", "has no NOTHING"),
        ("tests.console.turned:NONE", "not a temporalio DataConverter"),
        ("no.such.module:CONVERTER", "cannot be imported"),
        ("turned", "converter"),
        ("../turned.py:TURNED", "converter"),
    ],
)
def test_a_converter_that_is_missing_is_said_before_anything_is_served(
    encoded: Encoded, reference: str, words: str
) -> None:
    async def connect(namespace: str) -> Client:
        raise AssertionError(namespace)

    with pytest.raises(ConfigurationError, match=words):
        build(
            read_config(
                None,
                {
                    "state": encoded.folder / "state",
                    "policies": str(encoded.folder / "policies"),
                    "converter": reference,
                },
            ),
            connect,
            Settings(),
        )

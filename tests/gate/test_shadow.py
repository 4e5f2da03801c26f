"""Candidate policies beside those in force: compared, counted and journaled, and never obeyed."""

import json
import logging
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from temporalio import activity
from temporalio.runtime import MetricBuffer, Runtime, TelemetryConfig

from exequatur.cli.main import commands
from exequatur.gate.activity import ActivityInbound, _rejected
from exequatur.gate.attempt import Attempt, Judgement
from exequatur.gate.metrics import Metrics
from exequatur.gate.shadow import WAITING, Shadow
from exequatur.lineage.journal import Journal
from exequatur.lineage.shipper import Shipper
from exequatur.lineage.store import EvidenceStore
from exequatur.lineage.subject import subject_of
from exequatur.policy.action import ActionMark
from exequatur.policy.arguments import ActivitySignature
from exequatur.policy.bundle import PolicyBundle
from exequatur.policy.engine import Verdict
from exequatur.statements.encoding import digest
from tests.gate.conftest import PERMIT_ALL, Stage, deeds, failure_of, happened
from tests.gate.single import OneActivity, eventually, start_one
from tests.gate.test_metrics import Meter

LARGE = '@id("large") forbid(principal, action == Action::"pay", resource) when { context.args.amount > 5 };\n'
FROZEN = PERMIT_ALL + '@id("frozen") forbid(principal, action == Action::"pay", resource);\n'


@activity.defn
async def pay(amount: int) -> str:
    happened(amount)
    return "paid"


@pytest.fixture
def meter() -> tuple[Meter, dict[str, Any]]:
    buffer = MetricBuffer(10_000)
    return Meter(buffer), {"runtime": Runtime(telemetry=TelemetryConfig(metrics=buffer))}


def candidate_of(path: Path, policies: str) -> Path:
    folder = path / "candidate"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "main.cedar").write_text(policies)
    return folder


async def compared(stage: Stage, policies: str | None = None) -> None:
    """Wait until the candidate is known to the worker."""
    shadow: Any = stage.plugin.gate.shadow
    wanted = policies and PolicyBundle.from_parts(policies).digest
    await eventually(lambda: shadow._candidate and wanted in (None, shadow._candidate.digest))


def disagreements(stage: Stage) -> list[dict[str, Any]]:
    return [json.loads(record.body) for record in stage.records("shadow")]


@pytest.mark.rule("shadow.C4")
async def test_a_disagreement_is_journaled_and_counted_and_changes_nothing(
    stage: Callable[..., Any], tmp_path: Path, meter: tuple[Meter, Any], caplog: pytest.LogCaptureFixture
) -> None:
    measured, options = meter
    s = await stage(shadow_policies=str(candidate_of(tmp_path, PERMIT_ALL + LARGE)), client_options=options)
    with caplog.at_level(logging.INFO, logger="exequatur"):
        async with s.worker([OneActivity], [pay]):
            await compared(s)
            for amount in (1, 9, 10):
                handle = await start_one(s, pay, amount)
                assert await handle.result() == "paid"
                assert deeds(handle.id) == [amount]
    first, second = disagreements(s)
    candidate = PolicyBundle.from_parts(PERMIT_ALL + LARGE)
    assert (first["decision"], first["policies"], first["bundle"]) == ("deny", ["large"], candidate.digest)
    assert first["enforced"] == {
        "bundle": s.plugin.gate.policy.bundle.digest,
        "decision": "allow",
        "policies": ["all"],
    }
    assert (first["activity_type"], second["workflow_id"]) == ("pay", handle.id)
    assert "9" not in json.dumps([first["policies"], first["errors"]])
    assert [digest(record.body) for record in s.records("candidate")] == [candidate.digest]
    assert measured.of("exequatur_shadow_decisions", outcome="would_deny", activity_type="pay") == 2
    assert measured.of("exequatur_shadow_decisions", outcome="same", activity_type="pay") == 1
    assert measured.of("exequatur_decisions", outcome="allowed") == 3
    said = [each.getMessage() for each in caplog.records if "would deny" in each.getMessage()]
    assert len(said) == 1, "the log is bounded"


@pytest.mark.rule("shadow.C1")
async def test_what_the_candidate_would_allow_is_denied_all_the_same(stage: Callable[..., Any], tmp_path: Path) -> None:
    s = await stage(FROZEN, shadow_policies=str(candidate_of(tmp_path, PERMIT_ALL)))
    async with s.worker([OneActivity], [pay]):
        await compared(s)
        handle = await start_one(s, pay, 1)
        assert (await failure_of(handle)).type == "AuthorizationDenied"
    assert deeds(handle.id) == []
    [found] = disagreements(s)
    assert (found["decision"], found["enforced"]["policies"]) == ("allow", ["frozen"])


async def test_what_is_rejected_before_the_policies_are_asked_is_not_compared(
    stage: Callable[..., Any], tmp_path: Path
) -> None:
    s = await stage(FROZEN, shadow_policies=str(candidate_of(tmp_path, PERMIT_ALL)))
    async with s.worker([OneActivity], [pay]):
        await compared(s)
        await failure_of(await start_one(s, pay, 1, client=s.plain))
    assert disagreements(s) == []


async def test_what_is_rejected_after_the_policies_were_asked_is_not_compared(
    stage: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = ActivityInbound._record

    async def record(self: ActivityInbound, attempt: Attempt, judgement: Judgement, *, again: bool) -> Any:
        _, entry = await real(self, attempt, judgement, again=again)
        return _rejected(judgement, "The grant was already used by another execution"), entry

    monkeypatch.setattr(ActivityInbound, "_record", record)
    s = await stage(shadow_policies=str(candidate_of(tmp_path, FROZEN)))
    async with s.worker([OneActivity], [pay]):
        await compared(s)
        assert (await failure_of(await start_one(s, pay, 1))).type == "GrantRejected"
    assert disagreements(s) == []


@pytest.mark.rule("shadow.C4")
async def test_nothing_is_added_to_a_journal_that_is_not_well(
    stage: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s = await stage(shadow_policies=str(candidate_of(tmp_path, FROZEN)))
    hold, real = threading.Event(), Shadow._compare

    def compare(self: Shadow, *item: Any) -> None:
        hold.wait(30)
        real(self, *item)
        hold.clear()

    monkeypatch.setattr(Shadow, "_compare", compare)
    async with s.worker([OneActivity], [pay]):
        await compared(s)
        assert await (await start_one(s, pay, 1)).result() == "paid"
        journal = s.plugin.gate.journal
        assert journal is not None
        journal.path.chmod(0o644)
        await eventually(lambda: not journal.healthy)
        hold.set()
        await eventually(lambda: not hold.is_set())
        journal.path.chmod(0o600)
        await eventually(lambda: journal.healthy)
        hold.set()
    assert disagreements(s) == []


@pytest.mark.rule("shadow.C2")
async def test_an_edit_of_the_candidate_is_followed_and_a_broken_one_is_refused(
    stage: Callable[..., Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = candidate_of(tmp_path, "this is no policy")
    s = await stage(shadow_policies=str(folder))
    async with s.worker([OneActivity], [pay]):
        await eventually(lambda: any("candidate policies were refused" in each.getMessage() for each in caplog.records))
        handle = await start_one(s, pay, 9)
        assert await handle.result() == "paid"
        candidate_of(tmp_path, FROZEN)
        await compared(s, FROZEN)
        assert await (await start_one(s, pay, 9)).result() == "paid"
        (folder / "main.cedar").unlink()
        await eventually(lambda: sum("were refused" in each.getMessage() for each in caplog.records) == 2)
        assert await (await start_one(s, pay, 9)).result() == "paid"
    assert deeds(handle.id) == [9]
    assert len(disagreements(s)) == 2


@pytest.mark.rule("shadow.C2")
async def test_a_candidate_that_panics_changes_nothing(
    stage: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Panic(BaseException):
        """What PyO3 raises when native code panics."""

    s = await stage(shadow_policies=str(candidate_of(tmp_path, FROZEN)))
    real = Attempt.verdict
    asked = Counter[str]()

    def verdict(self: Attempt, bundle: PolicyBundle, *rest: Any) -> Verdict:
        thread = threading.current_thread().name
        asked[thread] += 1
        if thread == "exequatur-shadow-policies":
            raise Panic
        return real(self, bundle, *rest)

    monkeypatch.setattr(Attempt, "verdict", verdict)
    async with s.worker([OneActivity], [pay]):
        await compared(s)
        for amount in (1, 2):
            handle = await start_one(s, pay, amount)
            assert await handle.result() == "paid"
            assert deeds(handle.id) == [amount]
        await eventually(lambda: asked["exequatur-shadow-policies"] == 2)
    assert sum("could not be asked" in each.getMessage() for each in caplog.records) == 2
    assert disagreements(s) == []


@pytest.mark.rule("shadow.C2")
async def test_a_decision_that_cannot_be_handed_over_stands(
    stage: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("broken")

    s = await stage(shadow_policies=str(candidate_of(tmp_path, FROZEN)))
    async with s.worker([OneActivity], [pay]):
        await compared(s)
        shadow: Any = s.plugin.gate.shadow
        monkeypatch.setattr(shadow._waiting, "put_nowait", broken)
        handle = await start_one(s, pay, 1)
        assert await handle.result() == "paid"
    assert deeds(handle.id) == [1]
    assert any("was not compared" in each.getMessage() for each in caplog.records)


@pytest.mark.rule("shadow.C3")
async def test_the_candidate_is_asked_in_a_thread_of_its_own_and_never_waited_for(
    stage: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, meter: tuple[Meter, Any]
) -> None:
    measured, options = meter
    s = await stage(shadow_policies=str(candidate_of(tmp_path, FROZEN)), client_options=options)
    hold = threading.Event()
    real = Shadow._compare

    def compare(self: Shadow, *item: Any) -> None:
        hold.wait(30)
        real(self, *item)

    monkeypatch.setattr(Shadow, "_compare", compare)
    async with s.worker([OneActivity], [pay]):
        await compared(s)
        shadow: Any = s.plugin.gate.shadow
        handle = await start_one(s, pay, 1)
        assert await handle.result() == "paid"
        await eventually(shadow._waiting.empty)
        waiting = 0
        while not shadow._waiting.full():
            shadow._waiting.put_nowait(("not", "compared"))
            waiting += 1
        assert waiting == WAITING
        handle = await start_one(s, pay, 2)
        assert await handle.result() == "paid"
        assert deeds(handle.id) == [2]
        assert measured.of("exequatur_shadow_decisions", outcome="dropped", activity_type="pay") == 1
        hold.set()
    assert [each["attempt"] for each in disagreements(s)] == [1]


async def test_without_the_setting_nothing_is_compared(stage: Callable[..., Any]) -> None:
    s = await stage()
    assert s.plugin.gate.shadow is None


async def test_a_bundle_file_can_be_the_candidate(stage: Callable[..., Any], tmp_path: Path) -> None:
    file = tmp_path / "next.bundle"
    built = [
        "policy",
        "build",
        str(candidate_of(tmp_path, FROZEN)),
        "--version",
        "2",
        "--author",
        "me",
        "-o",
        str(file),
    ]
    assert CliRunner().invoke(commands, built).exit_code == 0
    s = await stage(shadow_policies=str(file))
    async with s.worker([OneActivity], [pay]):
        await compared(s)
        assert await (await start_one(s, pay, 1)).result() == "paid"
    assert len(disagreements(s)) == 1


async def test_disagreements_are_evidence_like_any_other_and_can_be_counted(
    stage: Callable[..., Any], tmp_path: Path
) -> None:
    s = await stage(shadow_policies=str(candidate_of(tmp_path, FROZEN)))
    async with s.worker([OneActivity], [pay]):
        await compared(s)
        handle = await start_one(s, pay, 1)
        await handle.result()
    [record] = s.records("shadow")
    about = subject_of("shadow", record.body)
    candidate = PolicyBundle.from_parts(FROZEN).digest
    assert (about.workflow_id, about.run_id, about.bundle) == (handle.id, handle.result_run_id, candidate)
    (tmp_path / "history.json").write_text((await handle.fetch_history()).to_json())
    audited = ["audit", "file", str(tmp_path / "history.json"), "--trust", str(s.state / "trust.jwks")]
    store = str(tmp_path / "evidence.db")
    shipper = Shipper(s.state / "journal", store, 1.0)
    shipper.ship_once()
    shipper.stop()
    for evidence in (str(s.state / "journal"), store):
        audit = CliRunner().invoke(commands, [*audited, "--evidence", evidence])
        assert audit.exit_code == 0, audit.output
        counted = CliRunner().invoke(commands, ["policy", "shadow", "--evidence", evidence])
        assert counted.exit_code == 1
        assert f"1\twould deny\tpay\tfrozen\t{candidate}" in counted.stdout
    none = CliRunner().invoke(commands, ["policy", "shadow", "--evidence", store, "--candidate", "A" * 43, "--json"])
    assert (none.exit_code, json.loads(none.stdout)) == (0, {"disagreements": []})
    wrong = CliRunner().invoke(commands, ["policy", "shadow", "--evidence", store, "--candidate", "nonsense"])
    assert (wrong.exit_code, wrong.stdout, candidate in wrong.stderr) == (2, "", True)


async def test_a_candidate_never_pushes_the_bundle_in_force_out_of_a_pruned_store(
    stage: Callable[..., Any], tmp_path: Path
) -> None:
    s = await stage(shadow_policies=str(candidate_of(tmp_path, FROZEN)))
    async with s.worker([OneActivity], [pay]):
        await compared(s)
        await (await start_one(s, pay, 1)).result()
    store = str(tmp_path / "evidence.db")
    shipper = Shipper(s.state / "journal", store, 1.0)
    shipper.ship_once()
    shipper.stop()
    with EvidenceStore.open(store) as opened:
        opened.prune(4_000_000_000.0)
        assert opened.bundle(s.plugin.gate.policy.bundle.digest) is not None


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"decision": 1}', b"\xff", b'{"decision": "deny", "policies": 1}']
)
def test_a_record_that_was_edited_is_one_line(tmp_path: Path, body: bytes) -> None:
    with Journal.open(tmp_path / "journal") as log:
        log.enqueue("shadow", body)
    ended = CliRunner().invoke(commands, ["policy", "shadow", "--evidence", str(tmp_path / "journal")])
    assert (ended.exit_code, ended.stderr.count("\n")) == (2, 1)


@pytest.mark.rule("shadow.C3")
async def test_a_candidate_that_takes_too_long_for_a_decision_is_given_up(
    stage: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    s = await stage(shadow_policies=str(candidate_of(tmp_path, FROZEN)))
    async with s.worker([OneActivity], [pay]):
        await compared(s)
        monkeypatch.setattr("exequatur.gate.shadow._TOO_SLOW", -1.0)
        assert await (await start_one(s, pay, 1)).result() == "paid"
        shadow: Any = s.plugin.gate.shadow
        await eventually(lambda: shadow._candidate is None)
        assert await (await start_one(s, pay, 2)).result() == "paid"
    assert disagreements(s) == []
    assert "is not compared any more" in caplog.text


@pytest.mark.rule("shadow.C1")
def test_the_candidate_does_not_run_code_that_the_gate_did_not_run() -> None:
    """A reset that was denied: the activity's resolver was never asked, and is not on the candidate's word."""
    asked: list[str] = []

    def act(order: str) -> None: ...

    mark = ActionMark((), lambda order: asked.append(order) or "o-1", "Order")  # type: ignore[func-returns-value]
    info: Any = SimpleNamespace(workflow_id="w", activity_type="act")
    gate: Any = SimpleNamespace(metrics=Metrics(), journal=None)
    attempt = Attempt(gate, info, {}, [], [], ActivitySignature.of(act), ["x"], mark)
    attempt.authorized = SimpleNamespace(after_reset=True)  # type: ignore[assignment]
    entity = {"uid": {"type": "User", "id": "u"}, "attrs": {}, "parents": []}
    shadow = Shadow(gate, "candidate")
    shadow._candidate = PolicyBundle.from_parts(PERMIT_ALL)
    shadow._compare(attempt, Judgement("deny", None, None, "in force", 1, 1, 0.0, entity=entity))
    assert asked == []

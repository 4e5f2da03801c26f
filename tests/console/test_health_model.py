"""What reports, probes and evidence make of the one model of health: states, problems, their order and their words."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from exequatur.console.condition import Health, health_of
from exequatur.console.latency import latency_of
from exequatur.console.probes import Probe, Service
from exequatur.console.problems import Authority
from exequatur.console.repeated import Repeated
from exequatur.console.workers import Reports
from exequatur.doctor.finding import problem
from exequatur.gate.metrics import Metrics
from exequatur.gate.tally import Tally
from exequatur.integrity.guard import ALTERED
from exequatur.release.report import InForceReport, read_all_reports, read_reports
from exequatur.release.traffic import BOUNDS, MINUTES
from exequatur.statements.encoding import digest
from tests.console.reporting import HOST, report, reported, traffic

CALM = Authority(None, None, None, 0, digest("bundle"), 15.0)


def health(*running: InForceReport, ended: tuple[InForceReport, ...] = (), **more: Any) -> Health:
    return health_of(
        Reports(running, ended, more.get("files", ())),
        more.get("services", ()),
        more.get("authority", CALM),
        more.get("evidence", {}),
        more.get("minutes", ()),
        time.time(),
    )


def kinds(found: Health) -> list[str]:
    return [each.kind for each in found.problems]


def test_a_worker_that_can_authorize_is_well() -> None:
    found = health(report())
    assert (found.state, found.problems, found.workers[0].state) == ("ok", (), "ready")


def test_without_workers_nobody_authorizes_and_it_says_how_to_start_one() -> None:
    found = health()
    assert (found.state, kinds(found)) == ("idle", ["no-workers"])
    assert "Start one" in found.problems[0].advice


@pytest.mark.parametrize(
    ("why", "state", "advice"),
    [
        ("the evidence journal cannot be written", "unavailable", "Make room"),
        ("it is not known what is revoked: the feed was not read in time", "unavailable", "revocation feed"),
        (f"{ALTERED}: a.py was changed", "violated", "Find out who changed it"),
        ("this worker has been revoked: stolen", "revoked", "lift the revocation"),
        ("the release of policy bundle abc ended 5 s ago; release it again", "unavailable", "policy sign"),
        ("this worker has no credential: it is about to be renewed", "unavailable", "reaches its authority"),
        ("the clock shows 12 seconds since 1970; set it", "unavailable", "NTP"),
        ("something new", "unavailable", "Remove the cause"),
    ],
)
def test_what_a_worker_fails_closed_for_is_told_with_the_next_step(why: str, state: str, advice: str) -> None:
    found = health(report(unavailable=why, state_since=1000.0))
    first = found.problems[0]
    assert (found.state, found.workers[0].state) == ("failing", state)
    assert first.text.lower().startswith(why.lower()[:40])
    assert advice in first.advice
    assert first.since == 1000.0
    assert "queue-unserved" in kinds(found)


def test_a_queue_that_another_worker_serves_is_not_missed() -> None:
    found = health(report(1, unavailable="the evidence journal cannot be written"), report(2))
    assert kinds(found) == ["worker-unavailable"]


def test_workers_with_the_same_cause_are_told_together() -> None:
    alike = [report(each, unavailable="the evidence journal cannot be written") for each in range(1, 6)]
    found = health(*alike)
    assert kinds(found) == ["worker-unavailable", "queue-unserved"]
    assert found.problems[0].headline == "5 workers can authorize nothing"
    assert len(found.problems[0].about) == 5


@pytest.mark.rule("workers.W1")
def test_a_worker_of_which_nothing_is_heard_is_silent() -> None:
    found = health(report(at=time.time() - 60))
    assert kinds(found) == ["queue-unserved", "worker-silent"]
    assert found.workers[0].state == "silent"


def test_what_a_killed_worker_left_behind_is_missed_until_others_serve_its_queues() -> None:
    alone = health(ended=(report(1),))
    assert kinds(alone) == ["queue-unserved", "worker-ended"]
    replaced = health(report(2), ended=(report(1),))
    assert (kinds(replaced), replaced.state) == (["worker-replaced"], "ok")
    assert kinds(health(report(2), ended=(report(1, at=time.time() - 90_000),))) == []


def test_what_will_soon_fail_is_told_before_it_does() -> None:
    now = time.time()
    found = health(report(credential_expires=now + 5, expires=now + 3600, refused="main.cedar:1: unexpected token"))
    assert kinds(found) == ["credential-ending", "release-ending", "bundle-refused"]
    assert (found.state, found.workers[0].state) == ("warning", "ready")


def test_a_worker_that_lacks_a_revocation_is_named() -> None:
    ahead = Authority(None, None, None, 3, "", 15.0)
    assert kinds(health(report(revocations=2), authority=ahead)) == ["feed-behind"]
    assert kinds(health(report(revocations=3), authority=ahead)) == []


def test_the_authority_that_cannot_decide_comes_first() -> None:
    stopped = Authority("there are no policies yet: none", "it is damaged", (5.0, 2, "incident"), 2, "", 15.0)
    found = health(report(unavailable="x", revocations=2), authority=stopped)
    assert kinds(found)[:3] == ["everything-revoked", "policies", "feed"]
    assert "--lift 2" in found.problems[0].advice


def test_a_service_that_is_down_fails_and_one_to_look_at_does_not() -> None:
    down = Service(
        "store", "postgresql://db/evidence", "down", "no answer within 5 s", "See whether it runs.", 5.0, 6.0
    )
    look = Service("temporal", "localhost:7233", "warning", "histories are kept for 1 h", "Keep them.", 5.0, 6.0)
    found = health(report(), services=(look, down))
    assert [(each.kind, each.severity) for each in found.problems] == [
        ("store-down", "violation"),
        ("temporal-warning", "notice"),
    ]


def test_evidence_that_cannot_be_followed_and_files_that_are_no_report_are_told() -> None:
    found = health(
        report(unshipped="the store is full"), evidence={"problems": {"a.db": "a.db: damaged"}}, files=("x",)
    )
    assert kinds(found) == ["evidence", "unshipped", "reports"]


def test_how_many_workers_and_problems_are_listed_is_bounded() -> None:
    many = [report(each, task_queues=("q",), unavailable=f"cause {each}") for each in range(1, 1001)]
    found = health(*many)
    assert (len(found.workers), found.unlisted, len(found.problems)) == (200, 800, 100)
    assert found.states["unavailable"] == 1000


# Latency and minutes.


def test_percentiles_lie_between_the_bounds_of_their_bucket() -> None:
    buckets = [0] * (len(BOUNDS) + 1)
    buckets[2], buckets[5] = 98, 2
    told = latency_of(buckets)
    assert told.count == 100
    assert told.p50 is not None
    assert told.p99 is not None
    assert 0.5 <= told.p50 <= 1.0
    assert 3.0 <= told.p99 <= 5.0
    assert latency_of([0] * len(buckets)).p50 is None
    slowest = latency_of([0] * len(BOUNDS) + [7])
    assert slowest.p50 == BOUNDS[-1] * 1000


def test_minutes_of_all_workers_are_one_row() -> None:
    now = time.time()
    found = health(
        report(1, traffic=traffic(now, 0.002, 0.002, allowed=1, denied=1)),
        report(2, traffic=traffic(now, 0.004, allowed=1, unavailable=1)),
    )
    last = found.minutes[-1]
    assert (len(found.minutes), last.source, last.latency.count) == (MINUTES, "workers", 3)
    assert {kind: number for kind, number in last.kinds.items() if number} == {
        "allowed": 2,
        "denied": 1,
        "unavailable": 1,
    }
    assert found.minutes[0].latency.p50 is None


def test_where_no_worker_tells_the_minutes_are_those_of_the_evidence() -> None:
    at = int(time.time() // 60) * 60
    found = health(minutes=((at, {"allow": 5, "deny": 2, "none": 1}),))
    last = found.minutes[-1]
    assert (last.source, last.kinds["allowed"], last.kinds["denied"], last.kinds["rejected"]) == ("evidence", 5, 2, 1)


def test_what_workers_that_ended_have_decided_is_told_from_the_evidence_beside() -> None:
    now = time.time()
    at = int(now // 60) * 60
    minutes = ((at - 60 * MINUTES, {"allow": 9}), (at - 60, {"allow": 20, "deny": 8}), (at, {"allow": 7, "none": 4}))
    found = health(report(1, traffic=traffic(now, 0.004, observed=1)), report(2), minutes=minutes)
    assert (found.telling, found.minutes[-1].source, found.minutes[-1].kinds["observed"]) == (1, "workers", 1)
    assert found.decided == {"allow": 27, "deny": 8, "none": 4}


def test_a_tally_counts_what_the_meter_counts() -> None:
    metrics = Metrics()
    metrics.decided("AuthorizationDenied", "act", enforced=True, seconds=0.01)
    metrics.decided("allowed", "act", enforced=True, seconds=2.0)
    metrics.revoked("act")
    metrics.receipt_rejected("act", enforced=True)
    metrics.message_refused("signal", "Flow", "M1", enforced=True)
    told = Metrics(None, metrics.tally).tally.traffic(60.0)
    assert dict(told.kinds) == {"denied": 1, "allowed": 1, "revoked": 1, "receipt": 1, "message": 1}
    assert (sum(told.latency), told.latency[-1], told.seconds) == (2, 1, 2.01)


def test_a_tally_tells_minutes_apart_and_forgets_old_ones() -> None:
    tally = Tally()
    for minute in range(30):
        tally.traffic(minute * 60.0)
        tally.decided("allowed", 0.002)
        tally.decided("AuthorizationUnavailable", 0.5)
        tally.happened("message")
    told = tally.traffic(29 * 60.0 + 30)
    assert (len(told.minutes), told.minutes[-1].at, told.minutes[0].at) == (MINUTES, 29 * 60, 15 * 60)
    assert all(dict(each.kinds) == {"allowed": 1, "unavailable": 1, "message": 1} for each in told.minutes)
    assert dict(told.kinds) == {"allowed": 30, "unavailable": 30, "message": 30}
    assert sum(told.latency) == 60


# Hostile report files.


def test_reports_of_before_still_read(tmp_path: Path) -> None:
    folder = tmp_path / "in-force"
    folder.mkdir()
    old = {"host": "a", "pid": 1, "since": 5.0, "digest": "D" * 43, "standing": {"at": 5.0, "task_queues": ["q"]}}
    (folder / "a-1.json").write_text(json.dumps(old))
    reports, problems = read_reports(tmp_path)
    assert (problems, [each.standing.traffic for each in reports if each.standing]) == ([], [None])


def test_files_that_are_no_report_are_named_and_stop_nobody(tmp_path: Path) -> None:
    reported(tmp_path, report(7))
    folder = tmp_path / "state" / "in-force"
    good = report(8, traffic=traffic(time.time(), 0.1)).model_dump_json()
    hostile = {
        "empty": b"",
        "binary": b"\xff\xfe\x00",
        "deep": b"[" * 50_000,
        "huge": b'{"host":"' + b"a" * 70_000 + b'"}',
        "elsewhere-9.json": good.encode(),
        "elsewhere-8.json": good.replace('"since":', '"since":NaN,"was":').encode(),
        "elsewhere-10.json": good.replace('"latency":[', '"latency":[1,').encode(),
        "elsewhere-11.json": good.replace('"kinds":{', '"kinds":{"<script>":1').encode(),
    }
    for name, content in hostile.items():
        (folder / name).write_bytes(content)
    os.mkfifo(folder / "pipe")
    (folder / "folder").mkdir()
    (folder / "dangling").symlink_to(tmp_path / "none")
    running, ended, problems = read_all_reports(tmp_path / "state")
    assert ([each.pid for each in running], ended) == ([7], [])
    assert len(problems) == len(hostile) + 2  # a dangling link is a file that is gone


def test_a_process_that_was_killed_left_its_report_behind(tmp_path: Path) -> None:
    reported(tmp_path, report(os.getpid(), host=HOST), report(2**22 + 1, host=HOST))
    running, ended, _ = read_all_reports(tmp_path / "state")
    assert [each.pid for each in running] == [os.getpid()]
    assert [each.pid for each in ended] == [2**22 + 1]


def test_not_more_than_a_thousand_files_are_looked_at(tmp_path: Path) -> None:
    folder = tmp_path / "in-force"
    folder.mkdir()
    for each in range(1001):
        (folder / f"{each:04}").touch()
    _, problems = read_reports(tmp_path)
    assert len(problems) == 1001
    assert "1,001 files" in problems[0]


# What is looked at in the background.


def test_who_asks_does_not_wait_for_a_look_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exequatur.console.probes.WITHIN", 0.05)
    hangs, begun = threading.Event(), threading.Event()

    def look() -> list[Any]:
        begun.set()
        hangs.wait(10)
        return [problem("store", "gone", "Start it.")]

    probe = Probe("store", "here", look, 0.01)
    assert probe.service().state == "unknown"
    probe.repeated.start()
    begun.wait(5)
    while (told := probe.service()).state == "unknown":
        time.sleep(0.01)
    assert (told.state, told.text) == ("down", "no answer within 0 s")
    hangs.set()
    while (told := probe.service()).text != "gone":
        time.sleep(0.01)
    probe.repeated.close()
    assert (told.state, told.advice) == ("down", "Start it.")


def test_a_look_that_fails_is_no_end_of_looking() -> None:
    def look() -> int:
        raise ZeroDivisionError

    looking = Repeated("nothing", look, 60)
    looking.look()
    assert looking.seen().value is None
    assert looking.seen().at is not None

"""Reports, clocks and servers that lie, hang or jump: what health says then is bounded, parses, and is true."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

from exequatur.console import watch
from exequatur.console.condition import health_of
from exequatur.console.metrics import exposed
from exequatur.console.probes import Probe
from exequatur.console.problems import Authority
from exequatur.console.render import json_bytes
from exequatur.console.watch import Watch
from exequatur.console.workers import Reports
from exequatur.doctor.finding import fine, problem
from exequatur.release.report import HOST, read_all_reports
from exequatur.statements.encoding import digest
from tests.authority.running import eventually
from tests.console.reporting import report, reported, traffic
from tests.console.running import running
from tests.console.test_health import START, TOKEN, act
from tests.gate.conftest import PERMIT_ALL, executor, stage
from tests.gate.single import OneActivity

__all__ = ["executor", "stage"]

CALM = Authority(None, None, None, 0, digest("bundle"), 15.0)
OPENLY = "application/openmetrics-text; version=1.0.0"


def plain(*given: Any, **more: Any) -> dict[str, Any]:
    reports = Reports(given, more.get("ended", ()), more.get("files", ()))
    evidence = more.get("evidence", {})
    return health_of(reports, (), more.get("authority", CALM), evidence, (), time.time()).plain()


def kinds(told: dict[str, Any]) -> list[str]:
    return [each["kind"] for each in told["problems"]]


def series(text: str, parse: Any = prometheus) -> list[tuple[str, frozenset[tuple[str, str]]]]:
    return [(each.name, frozenset(each.labels.items())) for family in parse(text) for each in family.samples]


def said(folder: Path, pid: int, **changes: Any) -> Path:
    """A report in which something stands that no worker writes."""
    reported(folder, report(pid))
    path = folder / "state" / "in-force" / f"elsewhere-{pid}.json"
    body = json.loads(path.read_text())
    top = {name: changes.pop(name) for name in ("since", "expires", "sequence") if name in changes}
    path.write_text(json.dumps(body | top | {"standing": body["standing"] | changes}))
    return path


# Reports.


@pytest.mark.parametrize(
    "changes",
    [
        {"revocations": 10**400},
        {"revocations": -1},
        {"sequence": 10**400},
        {"at": float("nan")},
        {"at": float("inf")},
        {"at": "now"},
        {"state_since": {}},
        {"task_queues": "a"},
        {"traffic": {"since": -1.0}},
    ],
)
def test_numbers_that_no_worker_writes_make_a_file_no_report(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = said(tmp_path, 7, **changes)
    found, ended, problems = read_all_reports(tmp_path / "state")
    assert (found, ended) == ([], [])
    assert problems == [f"{path} is not a worker's report. Remove it."]


@pytest.mark.parametrize("at", [1e300, -1e300, 1e18, -1.0, 0.0])
def test_times_that_no_calendar_has_are_shown_as_json_and_as_metrics(tmp_path: Path, at: float) -> None:
    said(tmp_path, 7, since=at, expires=at, at=at, state_since=at, credential_expires=at, revocations_age=at)
    told = plain(*read_all_reports(tmp_path / "state")[0])
    assert [each["state"] for each in told["workers"]] == ["silent"]
    assert told["workers"][0]["revocations_age"] is None or told["workers"][0]["revocations_age"] >= 0
    json_bytes(told)
    series(exposed(told, "", workers=True)[0].decode())
    series(exposed(told, OPENLY, workers=True)[0].decode(), openmetrics)


@pytest.mark.rule("workers.W1")
def test_a_worker_whose_clock_is_ahead_is_not_taken_for_alive() -> None:
    told = plain(report(1, at=time.time() + 3600))
    assert told["states"]["ready"] == 0
    assert {"worker-clock", "queue-unserved"} <= set(kinds(told))
    [clock] = [each for each in told["problems"] if each["kind"] == "worker-clock"]
    assert "NTP" in clock["advice"]
    assert clock["since"] is None
    assert "worker-silent" not in kinds(told)


@pytest.mark.rule("workers.W2")
def test_a_thousand_reports_of_an_attacker_are_told_in_bounded_time_and_size() -> None:
    text = "x" * 15_000
    many = [
        report(
            each,
            worker=f"{each}{text}",
            refused=f"{each}{text}",
            unshipped=f"{each}{text}",
            unavailable=f"{each}{text}" if each % 2 else None,
            namespaces=tuple(f"{text[:50]}{each}-{number}" for number in range(300)),
            task_queues=tuple(f"{text[:50]}{each}-{number}" for number in range(300)),
            name=text,
            digest=text,
            traffic=traffic(time.time(), 0.1, allowed=1),
        )
        for each in range(1, 1001)
    ]
    looked = [0]

    def count(*_: Any) -> None:
        looked[0] += 1

    sys.setprofile(count)  # work, and not time
    try:
        told = plain(*many)
    finally:
        sys.setprofile(None)
    assert looked[0] < 2_000_000
    assert len(json_bytes(told)) < 4_000_000
    assert len(exposed(told, "", workers=True)[0]) < 1_000_000
    assert len(told["problems"]) == 100


@pytest.mark.rule("metrics.M2")
def test_workers_that_look_alike_are_one_in_the_metrics() -> None:
    alike = [report(1, host=host, traffic=traffic(time.time(), 0.1, allowed=1)) for host in ("a\x07", "a\\x07", "b")]
    told = plain(*alike, alike[2])
    for accept, parse in (("", prometheus), (OPENLY, openmetrics)):
        found = series(exposed(told, accept, workers=True)[0].decode(), parse)
        assert len(found) == len(set(found))
        assert len({dict(labels)["worker"] for name, labels in found if name == "exequatur_worker_ready"}) == 2


@pytest.mark.parametrize(
    "accept",
    [
        "application/openmetrics-text; version=x",
        "application/openmetrics-text; version=" + "9" * 5000,
        "application/openmetrics-text; version=1.0.0; escaping=nonsense",
        "application/openmetrics-text; version=0.0.4",
        "text/plain; version=1.0.0; escaping=allow-utf-8",
        ";;=,,",
    ],
)
def test_whatever_is_accepted_something_is_answered(accept: str) -> None:
    body, media_type = exposed(plain(report(1)), accept, workers=True)
    assert series(body.decode(), openmetrics if "openmetrics" in media_type else prometheus)


def test_a_worker_that_starts_again_under_its_name_counts_anew_and_its_names_stay() -> None:
    before = plain(report(1, traffic=traffic(time.time(), 0.1, 0.1, allowed=2)))
    after = plain(report(1, traffic=traffic(time.time(), 0.1, allowed=1)))
    types = [
        {(each.name, each.type) for each in prometheus(exposed(told, "", workers=True)[0].decode())}
        for told in (before, after)
    ]
    assert types[0] == types[1]
    outcomes = [dict(series_values(told)) for told in (before, after)]
    assert outcomes[0] == {"allowed": 2.0}
    assert outcomes[1] == {"allowed": 1.0}


def series_values(told: dict[str, Any]) -> list[tuple[str, float]]:
    return [
        (sample.labels["kind"], sample.value)
        for family in prometheus(exposed(told, "", workers=True)[0].decode())
        for sample in family.samples
        if sample.name == "exequatur_worker_outcomes_total" and sample.value
    ]


def test_a_folder_that_is_named_twice_has_each_worker_once(tmp_path: Path) -> None:
    reported(tmp_path, report(1))
    (tmp_path / "again").symlink_to(tmp_path / "state")
    watching = Watch([tmp_path / "state", tmp_path / "again", tmp_path / "state" / "." / "in-force" / ".."], ())
    watching.look()
    assert len(watching.reports().running) == 1


def test_files_of_others_do_not_hide_that_there_are_too_many(tmp_path: Path) -> None:
    folder = tmp_path / "state" / "in-force"
    folder.mkdir(parents=True)
    for each in range(1001):
        (folder / f"{each:04}").touch()
    found, _, problems = read_all_reports(tmp_path / "state")
    told = plain(*found, files=tuple(problems))
    [files] = [each for each in told["problems"] if each["kind"] == "reports"]
    assert "1,001 files" in files["text"]


def test_a_folder_that_cannot_be_read_is_no_folder_without_workers(tmp_path: Path) -> None:
    (tmp_path / "in-force").write_text("")  # for root, permissions mean nothing
    watching = Watch([tmp_path], ())
    watching.look()
    told = health_of(watching.reports(), (), CALM, {}, (), time.time()).plain()
    assert kinds(told) == ["reports-unread"]
    assert told["state"] == "warning"
    assert "cannot be read" in told["problems"][0]["text"]


def test_reports_on_a_disk_that_hangs_are_said_to_be_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "WITHIN", 0.05)
    reported(tmp_path, report(1))
    watching, hangs = Watch([tmp_path / "state"], ()), threading.Event()
    watching.look()
    assert len(watching.reports().running) == 1
    fresh = watching.reports()
    assert fresh.age is not None
    monkeypatch.setattr(watch, "read_all_reports", lambda _: hangs.wait(20) and ([], [], []))
    looking = threading.Thread(target=watching.look)
    looking.start()
    try:
        while not (told := watching.reports()).unread:
            time.sleep(0.01)
        assert len(told.running) == 1
        assert told.age is not None
        assert told.age >= 0.05
        shown = health_of(told, (), CALM, {}, (), time.time())
        assert "reports-unread" in [each.kind for each in shown.problems]
        assert shown.reports_age == told.age
    finally:
        hangs.set()
        looking.join()


# What is looked at.


def test_since_is_when_it_began_although_nobody_asked_meanwhile() -> None:
    answers = iter([[fine("store", "there")], *[[problem("store", "gone", "Start it.")]] * 3])
    probe = Probe("store", "here", lambda: next(answers), 60)
    for _ in range(2):
        probe.repeated.look()
    began = time.time()
    time.sleep(0.02)
    for _ in range(2):
        probe.repeated.look()
    told = probe.service()
    assert (told.state, told.text) == ("down", "gone")
    assert told.since is not None
    assert told.since <= began


def test_how_old_a_look_is_does_not_depend_on_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    probe = Probe("store", "here", lambda: [fine("store", "there")], 60)
    assert probe.service().age is None
    probe.repeated.look()
    real = time.time
    for jump in (-3600, 3600):
        monkeypatch.setattr(time, "time", lambda jump=jump: real() + jump)
        age = probe.service().age
        assert age is not None
        assert 0 <= age < 60
    monkeypatch.undo()


def test_a_look_that_hangs_grows_old() -> None:
    hangs, begun = threading.Event(), threading.Event()
    answers: list[Any] = [[fine("store", "there")]]

    def look() -> Any:
        if answers:
            return answers.pop()
        begun.set()
        hangs.wait(20)
        return [fine("store", "there")]

    probe = Probe("store", "here", look, 0.001)
    probe.repeated.start()
    try:
        assert begun.wait(20)
        first = probe.service().age
        time.sleep(0.02)
        second = probe.service().age
        assert first is not None
        assert second is not None
        assert second > first
    finally:
        hangs.set()
        probe.repeated.close()


def test_evidence_that_is_not_read_any_more_is_told() -> None:
    now = time.time()
    assert kinds(plain(report(1), evidence={"looked": now - 1})) == []
    assert kinds(plain(report(1), evidence={"looked": now - 60})) == ["evidence-late"]


async def test_a_temporal_server_that_accepts_and_never_answers_keeps_no_page_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exequatur.console.probes.WITHIN", 0.3)
    monkeypatch.setattr("exequatur.console.probes.EVERY", 0.05)
    monkeypatch.setattr("exequatur.console.probes._SELDOM", 0.05)
    came: set[asyncio.StreamWriter] = set()
    over: list[asyncio.StreamWriter] = []

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.add(writer)
        try:
            while await reader.read(65_536):
                pass
        except OSError:
            pass
        over.append(writer)
        writer.close()

    hole = await asyncio.start_server(swallow, "127.0.0.1", 0)
    port = hole.sockets[0].getsockname()[1]
    config = {"authority": f"http://127.0.0.1:{port}"}
    settings = {"authority_timeout": "1s"}
    console = running(tmp_path, policies=PERMIT_ALL, target=f"127.0.0.1:{port}", config=config, settings=settings)
    async with console as shown, shown.browser() as looking:

        async def states() -> dict[str, Any]:
            told = (await looking.get("/health.json")).json()
            return {each["service"]: each for each in told["services"]}

        give_up = time.monotonic() + 30
        while {(found := await states())[each]["state"] for each in ("temporal", "authority")} != {"down"}:
            assert time.monotonic() < give_up, found
            await asyncio.sleep(0.05)
        assert (await looking.get("/health")).status_code == 200
        assert (await looking.get("/metrics")).status_code == 200
        for each in ("temporal", "authority"):
            assert found[each]["advice"]
            assert found[each]["since"] is not None
        # Looks that are given up leave no connections behind.
        await eventually(lambda: len(came) > 6)
        await eventually(lambda: len(came) - len(over) <= 4)
    for writer in came:
        writer.close()
    hole.close()


async def test_a_revocation_feed_in_a_database_that_hangs_keeps_no_page_waiting(tmp_path: Path) -> None:
    hangs, asked = threading.Event(), []
    async with running(tmp_path, policies=PERMIT_ALL) as shown, shown.browser() as looking:
        feed = shown.console.governing.gate.revocations
        feed.slow = True

        def read(known: Any) -> Any:
            asked.append(threading.current_thread())
            hangs.wait(60)
            return known

        feed._store.read = read  # type: ignore[attr-defined]
        try:
            answers = await asyncio.wait_for(
                asyncio.gather(*[looking.get(path) for path in ("/health", "/health.json", "/metrics") * 4]), 50
            )
            again = await asyncio.wait_for(looking.get("/governance"), 50)
        finally:
            hangs.set()
        assert {each.status_code for each in (*answers, again)} == {200}
        assert len(asked) == 1


async def test_what_a_load_balancer_asks_is_answered_to_everybody_and_tells_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MONITORING", TOKEN)
    console = running(tmp_path, config={"monitoring_token_env": "MONITORING"})
    async with console as shown, shown.browser(None) as looking:
        ready = await looking.get("/health/ready")
        others = [await looking.get(path) for path in ("/health", "/health.json", "/metrics")]
        assert (ready.status_code, ready.json()) == (200, {"status": "ready"})
        assert [each.status_code for each in others] == [401, 401, 401]
        shown.console.standing.stopping = True
        assert (await looking.get("/health/ready")).status_code == 503


# Clocks that jump.


async def test_a_clock_that_is_set_back_does_not_make_a_worker_fall_silent(
    stage: START, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exequatur.gate.serving._REPORT_EVERY", 0.2)
    here = await stage()
    async with here.worker([OneActivity], [act]):
        gate = here.plugin.gate

        def last() -> float:
            [found] = read_all_reports(here.path / "state")[0]
            assert found.standing is not None
            return found.standing.at

        await eventually(lambda: read_all_reports(here.path / "state")[0])
        before = last()
        gate.clock = lambda: time.time() - 5  # less than what any statement minds
        await eventually(lambda: last() < before)
        assert HOST

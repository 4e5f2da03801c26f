"""Audits that are given up, and many that are wanted at a time: nobody keeps the others waiting."""

from __future__ import annotations

import asyncio
import re
import threading
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from exequatur.audit.report import Report
from exequatur.console import examining, runs
from exequatur.console.errors import ProblemError
from exequatur.console.references import Place
from exequatur.console.runs import Audited, Progress, Runs
from exequatur.console.turns import Turn, Turns
from tests.audit.reports import activity, run
from tests.console.lineage_runs import Made
from tests.console.running import FAY, KIM, Looking, Running, running
from tests.console.test_lineage import at


class Work:
    """Turns that are held until they are let go."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.began: list[str] = []
        self._held: dict[str, asyncio.Event] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def ask(self, name: str, who: str) -> Turn:
        turn = self.turns.ask(who)
        self._held[name] = asyncio.Event()
        self._tasks.append(asyncio.ensure_future(self._take(turn, name)))
        return turn

    async def _take(self, turn: Turn, name: str) -> None:
        async with self.turns.taken(turn):
            self.began.append(name)
            await self._held[name].wait()

    async def settle(self, *let_go: str) -> list[str]:
        for name in let_go:
            self._held[name].set()
        for _ in range(5):
            await asyncio.sleep(0)
        return self.began

    async def end(self) -> None:
        for each in self._tasks:
            each.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        assert self.turns.of("mallory") == 0


@pytest.mark.rule("turns.T1")
async def test_one_viewer_with_many_keeps_nobody_waiting() -> None:
    work = Work(Turns(2, 16, 4))
    for number in range(4):
        work.ask(f"mallory-{number}", "mallory")
    assert await work.settle() == ["mallory-0"]
    work.ask("fay", "fay")
    assert await work.settle() == ["mallory-0", "fay"]
    work.ask("kim", "kim")
    assert await work.settle() == ["mallory-0", "fay"]
    assert await work.settle("mallory-0") == ["mallory-0", "fay", "mallory-1"]
    assert await work.settle("fay") == ["mallory-0", "fay", "mallory-1", "kim"]
    await work.end()


@pytest.mark.rule("turns.T2")
async def test_who_asks_for_too_much_is_refused_and_others_are_not() -> None:
    work = Work(Turns(2, 6, 4))
    for number in range(4):
        work.ask(f"mallory-{number}", "mallory")
    with pytest.raises(ProblemError, match="4 audits and exports of yours"):
        work.ask("more", "mallory")
    work.ask("fay", "fay")
    work.ask("kim", "kim")
    with pytest.raises(ProblemError, match="6 audits and exports are under way"):
        work.ask("dana", "dana")
    await work.settle()
    await work.end()


@pytest.mark.rule("turns.T3")
async def test_what_somebody_else_waits_for_too_does_not_wait_behind_the_first_ones_queue() -> None:
    work = Work(Turns(2, 16, 4))
    work.ask("long", "mallory")
    wanted = work.ask("popular", "mallory")
    assert await work.settle() == ["long"]
    work.turns.join(wanted, "fay")
    assert await work.settle() == ["long", "popular"]
    await work.end()


async def test_who_leaves_the_queue_before_the_turn_leaves_nothing_behind() -> None:
    turns = Turns(1, 1, 1)
    turn = turns.ask("mallory")
    task = asyncio.ensure_future(Work(turns)._take(turn, "never"))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    turns.drop(turn)
    turns.drop(turn)
    assert turns.of("mallory") == 0
    turns.ask("fay")


@asynccontextmanager
async def slow(explorer: Running, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Callable[[], list[str]]]:
    """Audits go on until they are let go, or nobody wants them any more; gives those that do."""
    monkeypatch.setattr(runs, "WAIT", 0.05)
    kept = explorer.console.runs._kept
    before = kept.copy()
    kept.clear()
    going: list[str] = []
    end = threading.Event()

    def audit(history: Any, _evidence: Any, _trust: Any, wanted: Callable[[], object]) -> Any:
        going.append(history.workflow_id)
        try:
            while not end.wait(0.01):
                wanted()
        finally:
            going.remove(history.workflow_id)
        return run(activity())

    monkeypatch.setattr(examining, "audit_run", audit)
    try:
        yield lambda: list(going)
    finally:
        end.set()
        tasks = [each.task for each in explorer.console.runs._running.values() if each.task is not None]
        await asyncio.gather(*tasks, return_exceptions=True)
        kept.clear()
        kept.update(before)


async def eventually(holds: Callable[[], bool]) -> None:
    for _ in range(1_500):
        if holds():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it never came to be")


async def stop(viewer: Looking, page: str) -> int:
    """Press the button of the page that waits."""
    form = re.search(
        r'<form method="post" action="(/lineage/stop[^"]+)"><input type="hidden" name="csrf" value="([^"]+)">', page
    )
    assert form is not None
    return (await viewer.post(form[1].replace("&amp;", "&"), {})).status_code


@pytest.mark.rule("runs.U4")
async def test_an_audit_ends_when_its_last_viewer_presses_stop(
    explorer: Running, made_runs: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = made_runs.ids["agent"]
    path = at(made_runs, "agent", run=made_runs.first_runs["agent"])
    async with slow(explorer, monkeypatch) as going, explorer.browser(KIM) as kim, explorer.browser(FAY) as fay:
        pages = [(await each.get(path)).text for each in (kim, fay)]
        await eventually(lambda: going() == [agent])
        assert await stop(kim, pages[0]) == 303
        await asyncio.sleep(0.1)
        assert going() == [agent]
        assert await stop(fay, pages[1]) == 303
        await eventually(lambda: not going() and not explorer.console.runs._running)
        assert (await kim.get(path)).status_code == 202  # it can be asked for again
        await eventually(lambda: going() == [agent])


@pytest.mark.rule("runs.U4")
async def test_an_audit_ends_when_nobody_asks_for_it_any_more(
    explorer: Running, made_runs: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "LEFT", 0.5)
    async with slow(explorer, monkeypatch) as going, explorer.browser() as viewer:
        path = at(made_runs, "agent", run=made_runs.first_runs["agent"])
        assert (await viewer.get(path)).status_code == 202
        await eventually(lambda: bool(going()))
        await eventually(lambda: not going() and not explorer.console.runs._running)
        assert (await viewer.get(path)).status_code == 202


async def test_stopping_needs_the_sessions_token_and_the_right_to_see_the_run(
    explorer: Running, made_runs: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = {"run": made_runs.first_runs["agent"]}
    async with slow(explorer, monkeypatch) as going, explorer.browser() as viewer:
        assert (await viewer.get(at(made_runs, "agent", **query))).status_code == 202
        await eventually(lambda: bool(going()))
        path = at(made_runs, "agent", "/lineage/stop", **query)
        assert (await viewer.post(path, {"csrf": "guessed"})).status_code == 403
        assert (await viewer.get(path)).status_code == 405
        assert (await viewer.post("/lineage/stop", {})).status_code == 400
        assert (await viewer.post(at(made_runs, "agent", "/lineage/stop", run="no-such"), {})).status_code == 303
        assert going()


@pytest.mark.rule("runs.U2")
async def test_while_one_viewer_fills_the_queue_another_ones_run_is_audited(
    explorer: Running, made_runs: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("agent", "other", "refund", "child")
    async with slow(explorer, monkeypatch) as going, explorer.browser(KIM) as kim, explorer.browser(FAY) as fay:
        for name in names:
            assert (await kim.client.get(at(made_runs, name), follow_redirects=True)).status_code == 202
        assert (await kim.client.get(at(made_runs, "long"), follow_redirects=True)).status_code == 429
        await eventually(lambda: going() == [made_runs.ids["agent"]])
        assert (await fay.client.get(at(made_runs, "long"), follow_redirects=True)).status_code == 202
        await eventually(lambda: made_runs.ids["long"] in going())
        assert len(going()) == 2
        explorer.console.runs.keep(
            Audited(place := place_of(made_runs, "hostile"), Report(runs=(run(activity()),)), 0.0)
        )
        monkeypatch.setattr(explorer.console.runs, "_still_shown", still_shown(explorer.console.runs.kept(place)))
        for path in ("evidence.json", "report.html", "report.json"):
            assert (await kim.get(at(made_runs, "hostile", f"/lineage/{path}"))).status_code == 429


def place_of(made: Made, name: str) -> Place:
    return Place("default", made.ids[name], made.first_runs[name])


def still_shown(audited: Audited | None) -> Callable[..., Any]:
    async def shown(*_: object) -> Audited | None:
        return audited

    return shown


async def test_a_public_viewer_is_bounded_by_the_network_address(made_runs: Made, target: str) -> None:
    config = {"public": True, "principal": None}
    async with running(
        made_runs.folder, policies=made_runs.folder / "policies", target=target, config=config
    ) as console:
        asked: list[str] = []
        ask = console.console.runs._turns.ask
        console.console.runs._turns.ask = lambda who: (asked.append(who), ask(who))[1]  # type: ignore[method-assign]
        async with console.browser(None) as viewer:
            reference = re.findall(r'href="/lineage/run\?ref=([0-9a-f]{24})"', (await viewer.get("/lineage")).text)[0]
            page = await viewer.get(f"/lineage/run?ref={reference}")
            assert page.status_code in (200, 202)
            assert (await viewer.post(f"/lineage/stop?ref={reference}", {})).status_code == 403
        assert asked == ["public 127.0.0.1"]


async def test_what_ends_with_the_console_is_not_waited_for(tmp_path: Any) -> None:
    kept = Runs(None, None)  # type: ignore[arg-type]
    progress = Progress(Place("default", uuid.uuid4().hex, "r"), 0.0, 1, kept._turns.ask("kim"))
    kept._running[progress.place] = progress
    kept.close()
    assert progress.given_up.is_set()

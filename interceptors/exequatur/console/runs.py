"""Audits of single runs for the pages: in a thread, one at a time for a run, kept for a while.

What is shown of a run is what ``exequatur audit`` says of it. Nobody waits for an audit longer than :data:`WAIT`: the
page says how far it is.

Rules, numbered as the code marks them:

U1  A report is kept for what it is about and stands on: the events, the trust file, and what the journals tell of the
    run. Where one of them has changed the run is audited again; so is one whose report is old.
U2  Audits are bounded in number, altogether and for each viewer, and the reports that are kept in number and size.
U3  A run that goes on faster than it is audited is shown as it was audited, and that is said.
U4  An audit ends when nobody waits for it any more.
U5  Where payloads cannot be decoded, the run could not be checked, whatever else is found.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from temporalio.client import WorkflowExecution

from exequatur.audit.evidence import EvidenceReader
from exequatur.audit.history import RunHistory
from exequatur.audit.report import Report, RunReport
from exequatur.console.decoding import Decoder
from exequatur.console.errors import ProblemError, ServerAwayError
from exequatur.console.examining import Examiner
from exequatur.console.references import Place, References
from exequatur.console.server import Temporal
from exequatur.console.turns import Turn, Turns
from exequatur.errors import EvidenceError

WAIT = 2.0
"""Seconds that a page waits for an audit before it says that it is under way."""
FRESH = 300.0
"""Seconds for which the report of a run that has not gone on is shown."""
KEPT = 32
"""Reports that are kept."""
KEPT_ACTIVITIES = 200_000
"""Activities in all of them; each takes some two kilobytes."""
LEFT = 120.0
"""Seconds after which an audit ends that nobody asked for meanwhile; a page that is not in front asks once a minute."""
THREADS = 2
UNDER_WAY = 16
"""Audits and exports that run or wait."""
EACH = 4
"""Those of one viewer."""
_LOOK = 20.0
"""Seconds that a question to the evidence may take."""
_LOOKS = 64
"""Questions to the evidence that run or wait."""
_FAILED = 30.0
"""Seconds for which why an audit failed is told to whoever waited for it."""

T = TypeVar("T")


@dataclass(frozen=True)
class Audited:
    """A run that was audited.

    Args:
        place: Which.
        report: With this one run in it.
        at: When, in seconds since 1970.
        stale: Why what is shown may not be the latest; empty if it is.
        stood_on: What the audit stood on.
        took: How long it took, in seconds.
        queue: The run's task queue.
    """

    place: Place
    report: Report
    at: float
    stale: str = ""
    stood_on: Any = field(default=None, repr=False)
    took: float = 0.0
    queue: str = ""

    @property
    def run(self) -> RunReport:
        return self.report.runs[0]


@dataclass(eq=False)
class Progress:
    """An audit that is under way.

    Args:
        place: Of which run.
        since: When it began, in seconds since 1970.
        total: How many events the run has.
        turn: Its place in the queue.
        events: How many have come.
        step: What is done now.
        wanted: Who waits for it, and when they last asked, in seconds that never go back.
    """

    place: Place
    since: float
    total: int
    turn: Turn = field(repr=False)
    events: int = 0
    step: str = "waiting for its turn"
    wanted: dict[str, float] = field(default_factory=dict, repr=False)
    given_up: threading.Event = field(default_factory=threading.Event, repr=False)
    task: asyncio.Task[Audited] | None = field(default=None, repr=False)


class GivenUpError(Exception):
    """Nobody waits for the audit any more."""


class Runs:
    """Runs and their audits; used on one event loop.

    Args:
        temporal: Where histories are.
        examiner: Audits them.
        decoder: Decodes payloads, where the workers have a converter of their own.
        clock: Seconds since 1970.
    """

    def __init__(
        self,
        temporal: Temporal,
        examiner: Examiner,
        decoder: Decoder | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._temporal = temporal
        self._examiner = examiner
        self._decoder = decoder
        self._clock = clock
        self.references = References()
        self._kept: OrderedDict[Place, Audited] = OrderedDict()
        self._running: dict[Place, Progress] = {}
        self._failed: OrderedDict[Place, tuple[float, BaseException]] = OrderedDict()
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="exequatur-console-audit")
        self._looks = ThreadPoolExecutor(THREADS, thread_name_prefix="exequatur-console-look")
        self._turns = Turns(THREADS, UNDER_WAY, EACH)
        self._looking = Turns(THREADS, _LOOKS, EACH)

    @property
    def trust(self) -> Path:
        """The trust file."""
        return self._examiner.trust

    def close(self) -> None:
        """Begin no more audits, and end those that are under way."""
        for progress in list(self._running.values()):
            _end(progress)
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._looks.shutdown(wait=False, cancel_futures=True)

    async def audited(
        self,
        namespace: str,
        workflow_id: str,
        run_id: str | None,
        *,
        who: str,
        again: bool = False,
        wait: float | None = None,
    ) -> Audited | Progress:
        """The audit of a run, or how far it is.

        Args:
            namespace: Where it is.
            workflow_id: Its workflow id.
            run_id: Its run id; the latest run without it.
            who: Asks for it.
            again: Audit it again.
            wait: How long to wait for it, in seconds; :data:`WAIT` if it is left out.

        Raises:
            ProblemError: There is no such run, too much is audited already, or the audit was stopped.
            ServerAwayError: The server does not answer, and the run was not audited before.
            EvidenceError: It cannot be audited.
        """
        known = None if run_id is None else self.kept(Place(namespace, workflow_id, run_id))
        try:
            told = await self._temporal.described(namespace, workflow_id, run_id)
        except ServerAwayError as error:
            if known is None:
                raise
            return replace(known, stale=f"{error.title}: {error.text}")
        place = Place(namespace, workflow_id, told.run_id)
        failed = self._failed.pop(place, None)
        if failed is not None and not again and time.monotonic() - failed[0] < _FAILED:  # while nobody waited
            raise failed[1]
        progress = self._under_way(place)
        if progress is None:
            kept = None if again else self.kept(place)
            if kept is not None and (shown := await self._still_shown(kept, told)) is not None:
                return shown
            progress = self._under_way(place) or self._begin(place, told, who)
        progress.wanted[who] = time.monotonic()
        self._turns.join(progress.turn, who)
        task = progress.task
        assert task is not None  # noqa: S101 (set by _begin)
        await asyncio.wait({task}, timeout=WAIT if wait is None else wait)
        if not task.done():
            return progress
        self._failed.pop(place, None)
        if task.cancelled():
            raise ProblemError(409, "The audit was stopped", "Nobody waited for it any more.", "Open the run again.")
        return task.result()

    async def _still_shown(self, kept: Audited, told: WorkflowExecution) -> Audited | None:
        """A report that was kept, if it may still be shown (U1)."""
        age = self._clock() - kept.at
        if not 0 <= age < FRESH:  # [U1]
            return None
        try:
            looking = self._in(self._looks, lambda: self._examiner.standing(kept.place))
            standing = await asyncio.wait_for(looking, WAIT)
        except (EvidenceError, TimeoutError) as error:
            return replace(kept, stale=str(error) or "The evidence does not answer.")
        if kept.stood_on not in (None, standing):  # [U1]
            return None
        if kept.run.events == told.history_length:  # [U1]
            return kept
        if age < 3 * kept.took:  # [U3]
            more = f"{told.history_length:,} events by now, and these are the first {kept.run.events:,}"
            return replace(kept, stale=f"The run has gone on: it has {more}.")
        return None

    def _under_way(self, place: Place) -> Progress | None:
        found = self._running.get(place)
        return None if found is None or found.given_up.is_set() else found

    def give_up(self, place: Place, who: str) -> None:
        """Wait for an audit no more; it ends when nobody else does."""
        progress = self._running.get(place)
        if progress is not None:
            progress.wanted.pop(who, None)
            if not progress.wanted:  # [U4]
                _end(progress)

    def room(self, who: str) -> int:
        """How many more audits a viewer may ask for."""
        return EACH - self._turns.of(who)

    def kept(self, place: Place) -> Audited | None:
        """The last audit of a run, if it is still at hand."""
        found = self._kept.get(place)
        if found is not None:
            self._kept.move_to_end(place)
        return found

    def keep(self, audited: Audited) -> None:
        """Keep an audit, and forget the oldest ones that there is no room for."""
        self._kept[audited.place] = audited
        self._kept.move_to_end(audited.place)
        while len(self._kept) > 1 and (  # U2
            len(self._kept) > KEPT or sum(len(each.run.activities) for each in self._kept.values()) > KEPT_ACTIVITIES
        ):
            self._kept.popitem(last=False)

    async def looked_up(self, look: Callable[[EvidenceReader], T], who: str) -> T:
        """Have something found in the evidence, not behind the audits, which take long.

        Raises:
            EvidenceError: The evidence cannot be read.
            ProblemError: The viewer asks too much at a time.
        """
        async with self._looking.taken(self._looking.ask(who)):
            try:
                return await asyncio.wait_for(self._in(self._looks, lambda: self._examiner.looked_up(look)), _LOOK)
            except TimeoutError:
                raise EvidenceError(f"The evidence does not answer within {_LOOK:.0f} s") from None

    async def with_history(self, place: Place, who: str, look: Callable[[RunHistory, EvidenceReader], T]) -> T:
        """The same, with the run's history.

        Raises:
            ProblemError: There is no such run, or too much is under way.
            ServerAwayError: The server does not answer.
            EvidenceError: The evidence cannot be read, or the payloads not be decoded.
        """

        async def found(history: RunHistory) -> T:
            plain = await self._decoded(history, place)
            return await self._in(self._pool, lambda: self._examiner.looked_up(lambda reader: look(plain, reader)))

        return await self._by_itself(place, who, found)

    async def document(self, place: Place, who: str) -> bytes:
        """The evidence about a run's workflow as one document, with proofs of the run in it.

        Raises:
            ProblemError: There is no such run, or too much is under way.
            ServerAwayError: The server does not answer.
            EvidenceError: The evidence cannot be read, or the payloads not be decoded.
        """

        async def made(history: RunHistory) -> bytes:
            plain = await self._decoded(history, place)
            return await self._in(self._pool, lambda: self._examiner.document(history, plain))

        return await self._by_itself(place, who, made)

    async def written(self, found: Audited, who: str, write: Callable[[Report], T]) -> T:
        """Have a report written, which takes long for a long run.

        Raises:
            ProblemError: Too much is under way.
        """
        async with self._turns.taken(self._turns.ask(who)):  # U2
            return await self._in(self._pool, lambda: write(found.report))

    async def _by_itself(self, place: Place, who: str, work: Callable[[RunHistory], Coroutine[Any, Any, T]]) -> T:
        """Work with a history that nobody else waits for."""
        async with self._turns.taken(self._turns.ask(who)):  # U2
            return await work(await self._temporal.history(place.namespace, place.workflow_id, place.run_id))

    async def _decoded(self, history: RunHistory, place: Place) -> RunHistory:
        return history if self._decoder is None else await self._decoder.history(history, place.namespace)

    async def _in(self, pool: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(pool, work)

    def _begin(self, place: Place, told: WorkflowExecution, who: str) -> Progress:
        progress = Progress(place, self._clock(), told.history_length, self._turns.ask(who))  # U2
        task = progress.task = asyncio.get_running_loop().create_task(self._audit(progress, told.task_queue))
        self._running[place] = progress

        def done(_: object) -> None:
            self._turns.drop(progress.turn)
            if self._running.get(place) is progress:
                del self._running[place]
            if not task.cancelled() and (error := task.exception()) is not None:
                self._failed[place] = time.monotonic(), error
                while len(self._failed) > KEPT:
                    self._failed.popitem(last=False)

        self._watch(progress)
        task.add_done_callback(done)
        return progress

    def _watch(self, progress: Progress) -> None:
        """End an audit that nobody has asked for since a while (U4), and look again."""
        asked, now = max(progress.wanted.values(), default=0.0), time.monotonic()
        if asked and now - asked > LEFT:  # [U4]
            _end(progress)
        if not progress.given_up.is_set() and self._running.get(progress.place) is progress:
            asyncio.get_running_loop().call_later(LEFT / 10, self._watch, progress)

    async def _audit(self, progress: Progress, queue: str) -> Audited:
        place, undecoded = progress.place, ""

        def came(events: int) -> None:
            progress.events, progress.step = events, "reading on"

        def wanted() -> None:
            if progress.given_up.is_set():
                raise GivenUpError

        async with self._turns.taken(progress.turn):
            began = time.monotonic()
            came(0)
            # What it stands on is looked at first: what changes meanwhile is then seen to have changed.
            standing = await self._in(self._pool, lambda: self._examiner.standing(place))
            history = plain = await self._temporal.history(place.namespace, place.workflow_id, place.run_id, came)
            try:
                progress.step = "decoding the payloads"
                plain = await self._decoded(history, place)
            except EvidenceError as error:  # [U5]
                undecoded = str(error)
            progress.step = "checking signatures, and making each decision again"
            work = partial(self._examiner.report, history, plain, undecoded, wanted)
            report = await self._in(self._pool, work)
        took = time.monotonic() - began
        audited = Audited(place, report, self._clock(), stood_on=standing, took=took, queue=queue)
        self.keep(audited)
        return audited


def _end(progress: Progress) -> None:
    progress.given_up.set()
    if progress.task is not None:
        progress.task.cancel()

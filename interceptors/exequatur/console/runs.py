"""Audits of single runs for the pages: in a thread, one at a time for a run, kept for a while.

What is shown of a run is what ``exequatur audit`` says of it, with the console's evidence and trust file. Nobody waits
for an audit longer than :data:`WAIT`: the page says how far it is.

Rules, numbered as the code marks them:

U1  A report is kept for the events that it is about. A run that has gone on is audited again; so is one whose report is
    old, because evidence may have come.
U2  Audits are bounded in number, and the reports that are kept in number and size.
U3  A public viewer names a run by a reference that was given out here, never by its ids.
U4  A page of a list is asked for with what was given out here: the server's own tokens are nobody's to make up.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import TypeVar

from temporalio.client import WorkflowExecution

from exequatur.audit.bundle import make_proofs, origin_of
from exequatur.audit.evidence import EvidenceReader
from exequatur.audit.history import RunHistory
from exequatur.audit.report import Report, RunReport
from exequatur.audit.seals import with_checkpoints
from exequatur.audit.sources import SQLITE, AllEvidence, OpenEvidence, is_store
from exequatur.audit.trust import read_trust
from exequatur.audit.verify import audit_run
from exequatur.console.errors import ProblemError, ServerAwayError
from exequatur.console.journals import Journals
from exequatur.console.server import Temporal
from exequatur.errors import EvidenceError
from exequatur.lineage import document
from exequatur.lineage.checkpoint import claimed
from exequatur.lineage.link import Link
from exequatur.lineage.store import EvidenceStore
from exequatur.lineage.subject import subject_of
from exequatur.statements.encoding import digest, strict_json

TRUST = "trust.jwks"
"""The trust file of a state folder."""
WAIT = 2.0
"""Seconds that a page waits for an audit before it says that it is under way."""
FRESH = 300.0
"""Seconds for which the report of a run that has not gone on is shown."""
KEPT = 32
"""Reports that are kept."""
KEPT_ACTIVITIES = 200_000
"""Activities in all of them; each takes some two kilobytes."""
THREADS = 2
UNDER_WAY = 16
"""Audits that run or wait."""
REFERENCES = 20_000

T = TypeVar("T")


@dataclass(frozen=True)
class Place:
    """A run.

    Args:
        namespace: Where it is.
        workflow_id: Its workflow id.
        run_id: Its run id.
    """

    namespace: str
    workflow_id: str
    run_id: str


@dataclass(frozen=True)
class Audited:
    """A run that was audited.

    Args:
        place: Which.
        report: With this one run in it.
        at: When, in seconds since 1970.
        stale: Why what is shown may not be the latest; empty if it is.
    """

    place: Place
    report: Report
    at: float
    stale: str = ""

    @property
    def run(self) -> RunReport:
        return self.report.runs[0]


@dataclass
class Progress:
    """An audit that is under way.

    Args:
        place: Of which run.
        since: When it began, in seconds since 1970.
        total: How many events the run has.
        events: How many have come.
        step: What is done now.
    """

    place: Place
    since: float
    total: int
    events: int = 0
    step: str = "waits for its turn"
    task: asyncio.Task[Audited] | None = field(default=None, repr=False)


class Runs:
    """Runs and their audits.

    Args:
        temporal: Where histories are.
        sources: Where evidence is: state folders, folders of journals, documents, stores.
        trust: The trust file.
        clock: Seconds since 1970.
    """

    def __init__(
        self, temporal: Temporal, sources: Sequence[str | Path], trust: Path, clock: Callable[[], float] = time.time
    ) -> None:
        self._temporal = temporal
        self._others = tuple(str(each) for each in sources if not _journals(str(each)))
        self.journals = Journals([Path(each) for each in sources if _journals(str(each))])
        self.trust = trust
        self._clock = clock
        self._kept: OrderedDict[Place, Audited] = OrderedDict()
        self._running: dict[Place, Progress] = {}
        self._failed: OrderedDict[Place, BaseException] = OrderedDict()
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="exequatur-console-audit")
        self._turn = asyncio.Semaphore(THREADS)
        self._secret = secrets.token_bytes(32)
        self._references: OrderedDict[str, Place] = OrderedDict()

    def close(self) -> None:
        """Begin no more audits."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def audited(
        self, namespace: str, workflow_id: str, run_id: str | None, *, again: bool = False, wait: float | None = None
    ) -> Audited | Progress:
        """The audit of a run, or how far it is.

        Args:
            namespace: Where it is.
            workflow_id: Its workflow id.
            run_id: Its run id; the latest run without it.
            again: Audit it again.
            wait: How long to wait for it, in seconds; :data:`WAIT` if it is left out.

        Raises:
            ProblemError: There is no such run, or too much is audited already.
            ServerAwayError: The server does not answer, and the run was not audited before.
            EvidenceError: It cannot be audited.
        """
        known = None if run_id is None else self.kept(Place(namespace, workflow_id, run_id))
        try:
            told = await self._temporal.described(namespace, workflow_id, run_id)
        except ServerAwayError as error:
            if known is None:
                raise
            return Audited(known.place, known.report, known.at, f"{error.title}: {error.text}")
        place = Place(namespace, workflow_id, told.run_id)
        failed = self._failed.pop(place, None)
        if failed is not None and not again:  # while nobody waited
            raise failed
        kept = self.kept(place)
        fresh = kept is not None and self._clock() - kept.at < (1.0 if again else FRESH)
        if kept is not None and fresh and kept.run.events == told.history_length:  # [U1]
            return kept
        progress = self._running.get(place) or self._begin(place, told)
        task = progress.task
        assert task is not None  # noqa: S101 (set by _begin)
        await asyncio.wait({task}, timeout=WAIT if wait is None else wait)
        if not task.done():
            return progress
        self._failed.pop(place, None)
        return task.result()

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

    def reference(self, place: Place) -> str:
        """What a public viewer names a run by (U3)."""
        named = f"{place.namespace}\0{place.workflow_id}\0{place.run_id}".encode("utf-8", "replace")
        made = self._mac(b"run " + named)
        self._references[made] = place
        self._references.move_to_end(made)
        while len(self._references) > REFERENCES:
            self._references.popitem(last=False)
        return made

    def referred(self, reference: str) -> Place:
        """The run that a reference was given out for.

        Raises:
            ProblemError: None was.
        """
        if (place := self._references.get(reference)) is None:  # [U3]
            raise ProblemError(
                404, "That link has ended", "Links of the public view last for a while only.", "Open the list of runs."
            )
        return place

    def sealed(self, token: bytes) -> str:
        """What a viewer asks for the next page of a list with."""
        return f"{urlsafe_b64encode(token).decode()}.{self._mac(token)}"

    def unsealed(self, text: str) -> bytes | None:
        """The server's token that :meth:`sealed` was given; ``None`` for an empty text.

        Raises:
            ProblemError: It was not given out here.
        """
        encoded, _, mac = text.partition(".")
        try:
            token = urlsafe_b64decode(encoded.encode("ascii"))
        except ValueError:
            token = b""
        made = hmac.compare_digest(self._mac(token).encode(), mac.encode("utf-8", "replace"))
        if text and not made:  # [U4]
            raise ProblemError(400, "There is no such page", "The address was changed, or is old.", "Search again.")
        return token or None

    def _mac(self, what: bytes) -> str:
        return hmac.new(self._secret, what, hashlib.sha256).hexdigest()[:24]

    def _begin(self, place: Place, told: WorkflowExecution) -> Progress:
        if len(self._running) >= UNDER_WAY:  # [U2]
            raise ProblemError(
                429, "Too much is audited already", f"{UNDER_WAY} audits are under way.", "Try again in a while."
            )
        progress = Progress(place, self._clock(), told.history_length)
        task = progress.task = asyncio.get_running_loop().create_task(self._audit(progress))
        self._running[place] = progress

        def done(_: object) -> None:
            self._running.pop(place, None)
            if not task.cancelled() and (error := task.exception()) is not None:
                self._failed[place] = error
                while len(self._failed) > KEPT:
                    self._failed.popitem(last=False)

        task.add_done_callback(done)
        return progress

    async def _audit(self, progress: Progress) -> Audited:
        place = progress.place

        def came(events: int) -> None:
            progress.events, progress.step = events, "reads the history"

        async with self._turn:
            came(0)
            history = await self._temporal.history(place.namespace, place.workflow_id, place.run_id, came)
            progress.step = "checks signatures and makes each decision again"
            loop = asyncio.get_running_loop()
            report = await loop.run_in_executor(self._pool, self._report, history)
        audited = Audited(place, report, self._clock())
        self.keep(audited)
        return audited

    def _report(self, history: RunHistory) -> Report:
        """What the audit says."""
        trust = read_trust(self.trust)
        with OpenEvidence(self._others) as others:
            evidence = self._evidence(others)
            run = audit_run(history, evidence, trust)
            run = with_checkpoints(run, history, history, evidence, trust)
        return Report(
            software=f"exequatur {version('exequatur')}",
            audited=round(self._clock(), 3),
            trust=digest(self.trust.read_bytes()),
            evidence=("the console's evidence",),
            runs=(run,),
        )

    def _evidence(self, others: EvidenceReader) -> EvidenceReader:
        journals = self.journals.reader()
        return AllEvidence([journals, others]) if self._others else journals

    async def looked_up(self, look: Callable[[EvidenceReader], T]) -> T:
        """Have something found in the evidence, in a thread.

        Raises:
            EvidenceError: The evidence cannot be read.
        """

        def found() -> T:
            with OpenEvidence(self._others) as others:
                return look(self._evidence(others))

        # Not behind the audits, which take long.
        return await asyncio.to_thread(found)

    async def document(self, place: Place) -> bytes:
        """The evidence about a run's workflow as one document, with proofs of the run in it.

        Raises:
            ProblemError: There is no such run.
            ServerAwayError: The server does not answer.
            EvidenceError: The evidence cannot be read.
        """
        history = await self._temporal.history(place.namespace, place.workflow_id, place.run_id)
        async with self._turn:
            return await asyncio.get_running_loop().run_in_executor(self._pool, self._document, history)

    def _document(self, history: RunHistory) -> bytes:
        origin = origin_of(history)
        with OpenEvidence(self._others) as others:
            notes = [] if origin is None else list(others.checkpoints(origin))
        links = {(each.record.log_id, each.record.index, each.record.head): each for each in self._links(history)}
        if len(links) > document.MAX_RECORDS:
            raise EvidenceError(f"There are more than {document.MAX_RECORDS:,} records; use exequatur evidence export")
        proofs = make_proofs(history, history, notes).model_dump(mode="json")
        trust = strict_json(self.trust.read_bytes())
        ordered = [links[place] for place in sorted(links)]
        out = BytesIO()
        document.write(out, ordered, sorted(set(notes), key=lambda note: claimed(note).size), trust, proofs)
        return out.getvalue()

    def _links(self, history: RunHistory) -> list[Link]:
        """What is known of the run, with the policies that decided."""
        journals = self.journals.reader()
        found = list(journals.links_of(history.workflow_id, history.run_ids))
        addresses = {subject_of(each.record.kind, each.record.body).bundle for each in found}
        bundles = [journals.bundle_link(address) for address in sorted(each for each in addresses if each)]
        found += [each for each in bundles if each is not None]
        for source in self._others:
            found += _stored(source, history)
        return found


def _journals(source: str) -> bool:
    """Whether a source is a folder of journals, which may come to be there, or a journal."""
    path = Path(source)
    if "://" in source:
        return False
    if not path.is_file():
        return True
    with path.open("rb") as stream:
        return stream.read(len(SQLITE)) == SQLITE and not is_store(path)


def _stored(source: str, history: RunHistory) -> Iterator[Link]:
    """What a store or a document knows of a run's workflow."""
    if "://" in source or is_store(Path(source)):
        out = BytesIO()
        with EvidenceStore.open(source, create=False) as store:
            store.export(out, history.workflow_id)
        yield from document.read(BytesIO(out.getvalue())).links
        return
    with Path(source).open("rb") as stream:
        links = document.read(stream).links
    for link in links:
        subject = subject_of(link.record.kind, link.record.body)
        if subject.run_id in (None, *history.run_ids) and subject.workflow_id in (None, history.workflow_id):
            yield link

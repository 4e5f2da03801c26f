"""What the console's evidence says of a run: its audit, and its evidence as a document. Everything here blocks.

It is what ``exequatur audit`` and ``exequatur evidence export`` make, with the console's evidence and trust file.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

from exequatur.audit.bundle import make_proofs, origin_of
from exequatur.audit.evidence import EvidenceReader
from exequatur.audit.history import RunHistory
from exequatur.audit.report import Report, finding
from exequatur.audit.seals import with_checkpoints
from exequatur.audit.sources import SQLITE, AllEvidence, OpenEvidence, is_store
from exequatur.audit.trust import read_trust
from exequatur.audit.verify import audit_run
from exequatur.console.journals import Journals
from exequatur.console.references import Place
from exequatur.errors import EvidenceError
from exequatur.lineage import document
from exequatur.lineage.checkpoint import claimed
from exequatur.lineage.link import Link
from exequatur.lineage.store import EvidenceStore
from exequatur.lineage.subject import subject_of
from exequatur.statements.encoding import digest, strict_json

TRUST = "trust.jwks"
"""The trust file of a state folder."""

T = TypeVar("T")


class Examiner:
    """Evidence, and whom to believe.

    Args:
        sources: Where evidence is: state folders, folders of journals, documents, stores.
        trust: The trust file.
        clock: Seconds since 1970.
    """

    def __init__(self, sources: Sequence[str | Path], trust: Path, clock: Callable[[], float] = time.time) -> None:
        self._others = tuple(str(each) for each in sources if not _journals(str(each)))
        self._journals = Journals([Path(each) for each in sources if _journals(str(each))])
        self.trust = trust
        self._clock = clock

    def standing(self, place: Place) -> Any:
        """What an audit of a run stands on: another value when the trust file or what journals tell of the run changes.

        Raises:
            EvidenceError: It cannot be read.
        """
        return digest(self._trust()), self._journals.reader().told_of(place.workflow_id, place.run_id)

    def report(
        self, history: RunHistory, plain: RunHistory, undecoded: str = "", wanted: Callable[[], object] = lambda: None
    ) -> Report:
        """What the audit says.

        Args:
            history: As Temporal has it.
            plain: With payloads as user code wrote them.
            undecoded: Why they are not, where they could not be decoded.
            wanted: Called again and again; what it raises ends the audit.

        Raises:
            EvidenceError: The evidence or the trust file cannot be read.
        """
        trust = read_trust(self.trust)
        with OpenEvidence(self._others) as others:
            evidence = self._evidence(others)
            run = audit_run(plain, evidence, trust, wanted)
            run = with_checkpoints(run, history, plain, evidence, trust)
        if undecoded:
            run = run.model_copy(update={"findings": (*run.findings, finding("payload-encoded", undecoded))})
        return Report(
            software=f"exequatur {version('exequatur')}",
            audited=round(self._clock(), 3),
            trust=digest(self._trust()),
            evidence=("the console's evidence",),
            runs=(run,),
        )

    def looked_up(self, look: Callable[[EvidenceReader], T]) -> T:
        """Have something found in the evidence.

        Raises:
            EvidenceError: The evidence cannot be read.
        """
        with OpenEvidence(self._others) as others:
            return look(self._evidence(others))

    def document(self, history: RunHistory, plain: RunHistory) -> bytes:
        """The evidence about a run's workflow as one document, with proofs of the run in it.

        Raises:
            EvidenceError: The evidence cannot be read, or is too much.
        """
        origin = origin_of(plain)
        with OpenEvidence(self._others) as others:
            notes = [] if origin is None else list(others.checkpoints(origin))
        links = {(each.record.log_id, each.record.index, each.record.head): each for each in self._links(history)}
        if len(links) > document.MAX_RECORDS:
            raise EvidenceError(f"There are more than {document.MAX_RECORDS:,} records; use exequatur evidence export")
        proofs = make_proofs(history, plain, notes).model_dump(mode="json")
        ordered = [links[place] for place in sorted(links)]
        out = BytesIO()
        trust = strict_json(self._trust())
        document.write(out, ordered, sorted(set(notes), key=lambda note: claimed(note).size), trust, proofs)
        return out.getvalue()

    def _trust(self) -> bytes:
        try:
            return self.trust.read_bytes()
        except OSError as error:
            raise EvidenceError(f"{self.trust} cannot be read: {error.strerror or error}") from None

    def _evidence(self, others: EvidenceReader) -> EvidenceReader:
        journals = self._journals.reader()
        return AllEvidence([journals, others]) if self._others else journals

    def _links(self, history: RunHistory) -> list[Link]:
        """What is known of the run, with the policies that decided."""
        journals = self._journals.reader()
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

"""One audit: what it was given, and what it has found so far."""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Self

from exequatur.audit.codec import converter_of, decoded
from exequatur.audit.evidence import EvidenceReader, NoEvidence
from exequatur.audit.history import RunHistory, UnknownFieldsError, read_history
from exequatur.audit.links import linked
from exequatur.audit.report import Finding, Report, RunReport, finding
from exequatur.audit.seals import with_checkpoints
from exequatur.audit.sources import OpenEvidence
from exequatur.audit.trust import AuditTrust, read_trust
from exequatur.audit.verify import audit_run
from exequatur.errors import ConfigurationError, EvidenceError, StoreUnavailableError
from exequatur.statements.encoding import digest

if TYPE_CHECKING:  # at run time by those who have one
    from exequatur.cli.replaying import Replaying


class Auditing:
    """Audits one history after another and keeps the reports, not the histories.

    Args:
        trust: The trust file.
        sources: Where the evidence is.
        converter: ``MODULE:NAME`` of the workers' data converter or payload codec.
        witnesses: How many are demanded; a higher threshold of the trust file stays.

    Raises:
        ConfigurationError: More witnesses are demanded than the trust file names, or the converter is none.
        EvidenceError: The trust file or the evidence cannot be read.
    """

    def __init__(self, *, trust: Path, sources: tuple[str, ...], converter: str | None, witnesses: int) -> None:
        self.trust = _demanding(read_trust(trust), witnesses, trust)
        self._trust_digest = digest(trust.read_bytes())
        self.converter = None if converter is None else converter_of(converter)
        self._sources = sources
        self._evidence: EvidenceReader = NoEvidence()
        self._open = ExitStack()
        self._runs: dict[int, RunReport] = {}
        self._findings: list[Finding] = []
        self._read: set[tuple[str, str]] = set()
        self._bases: dict[int, set[tuple[str, str]]] = {}
        self._linked: dict[int, list[tuple[str, str]]] = {}

    def __enter__(self) -> Self:
        self._evidence = self._open.enter_context(OpenEvidence(self._sources))
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def file(self, path: Path, replaying: Replaying | None = None, *, namespace: str) -> None:
        """Audit a history file; one that cannot be read is reported, and the others are audited all the same.

        Args:
            path: The file.
            replaying: Runs the workflow code over it besides.
            namespace: That of the run, for a codec that wants to know it.
        """
        try:
            history = read_history(path)
        except EvidenceError as error:
            self.unreadable(error)
            return
        plain = history if self.converter is None else asyncio.run(self._decoded(history, namespace))
        report = self._verified(history, plain)
        if report is not None:
            # The replayer has the converter itself, and decodes as a worker does.
            self._keep(history, replaying.replayed(history, report) if replaying else report, len(self._runs))

    async def history(self, history: RunHistory, place: int | None = None, *, namespace: str) -> None:
        """Audit a history.

        Args:
            history: It is not kept.
            place: Where it stands in the report; at the end when it is left out.
            namespace: That of the run, for a codec that wants to know it.
        """
        report = self._verified(history, await self._decoded(history, namespace))
        if report is not None:
            self._keep(history, report, len(self._runs) if place is None else place)

    def _keep(self, history: RunHistory, report: RunReport, place: int) -> None:
        self._runs[place] = report
        self._linked[place] = list(dict.fromkeys(linked(history)))
        self._read.add((history.workflow_id, history.run_id))
        self._bases[place] = {(history.workflow_id, run_id) for run_id in history.run_ids - {history.run_id}}

    def unreadable(self, error: EvidenceError) -> None:
        """Report a history that could not be read."""
        unknown = isinstance(error, UnknownFieldsError)
        self._findings.append(finding("history-unknown-fields" if unknown else "history-malformed", str(error)))

    def note(self, code: str, sentence: str) -> None:
        """Report something about the audit as a whole."""
        self._findings.append(finding(code, sentence))

    def report(self) -> Report:
        """What was found."""
        return Report(
            software=f"exequatur {version('exequatur')}",
            audited=round(time.time(), 3),
            trust=self._trust_digest,
            evidence=tuple(map(without_password, self._sources)),
            runs=tuple(self._with_links(place, run) for place, run in sorted(self._runs.items())),
            findings=tuple(self._findings),
        )

    def _with_links(self, place: int, run: RunReport) -> RunReport:
        """The report of a run with what it belongs to and was not audited."""
        if self._bases[place] <= self._read:
            # What the runs did that this one was reset from has been audited as well.
            kept = tuple(each for each in run.findings if each.code != "base-cut")
            run = run.model_copy(update={"findings": kept})
        missing = [each for each in self._linked[place] if each not in self._read]
        if not missing:
            return run
        workflow_id, run_id = missing[0]
        more = f" and {len(missing) - 1} more that belong to it" if len(missing) > 1 else ", which belongs to it,"
        sentence = f"Run {run_id} of {workflow_id}{more} was not audited"
        return run.model_copy(update={"findings": (*run.findings, finding("run-linked", sentence))})

    async def _decoded(self, history: RunHistory, namespace: str) -> RunHistory:
        if self.converter is None:
            return history
        try:
            return await decoded(history, self.converter, namespace=namespace)
        except EvidenceError as error:
            # What can be told from the encoded history is told all the same.
            self.note("payload-encoded", f"{history.workflow_id} {history.run_id}: {error}")
            return history

    def _verified(self, history: RunHistory, plain: RunHistory) -> RunReport | None:
        try:
            report = audit_run(plain, self._evidence, self.trust)
            # What was signed are the events as Temporal has them.
            return with_checkpoints(report, history, plain, self._evidence, self.trust)
        except StoreUnavailableError:
            raise  # nothing after it could be checked either
        except EvidenceError as error:
            self.note("history-malformed", f"{history.workflow_id} {history.run_id}: {error}")
            return None


def without_password(source: str) -> str:
    """Evidence as it is named in a report, which is handed on."""
    return re.sub(r"(://[^:/@]*):[^@/]*@", r"\1@", source)


def _demanding(trust: AuditTrust, witnesses: int, path: Path) -> AuditTrust:
    if witnesses > len(trust.witnesses):
        raise ConfigurationError(f"--witnesses {witnesses}: {path} names {len(trust.witnesses)}; add their keys to it")
    return AuditTrust(
        trust.anchors,
        ungoverned=trust.ungoverned,
        observed=trust.observed,
        bundles=trust.bundles,
        notaries=trust.notaries,
        witnesses=trust.witnesses,
        threshold=max(trust.threshold, witnesses),
    )

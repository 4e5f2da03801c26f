"""The audit of a visitor's run, and of a copy of its history that the visitor changed, beside each other."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from exequatur.audit import wording
from exequatur.audit.history import history_from_json
from exequatur.audit.report import Report, RunReport, Severity
from exequatur.audit.sources import OpenEvidence
from exequatur.audit.trust import read_trust
from exequatur.audit.verify import audit_run
from exequatur.console.sandbox.limits import Limits, SandboxError
from exequatur.console.sandbox.tampering import Document, changes_of, name_of, readable, tampered
from exequatur.errors import EvidenceError, ExequaturError

logger = logging.getLogger("exequatur")

_SENTENCES = 5
"""Findings of one code that are told."""
_SHOWN = 4000
"""Characters of what was changed."""


@dataclass(frozen=True)
class Found:
    """Findings of one code.

    Args:
        severity: How much they weigh.
        code: Theirs.
        meaning: What the code stands for.
        sentences: The first ones.
        more: How many there are besides.
    """

    severity: str
    code: str
    meaning: str
    sentences: tuple[str, ...]
    more: int


@dataclass(frozen=True)
class Answer:
    """What the audit says of one history.

    Args:
        verdict: ``unreadable`` where it is no history at all.
        title: The verdict in a few words.
        sentence: What it means.
        events: How many the history has.
        findings: The gravest first.
    """

    verdict: Literal["verified", "violated", "unchecked", "unreadable"]
    title: str
    sentence: str
    events: int
    findings: tuple[Found, ...]


def audited(document: Document, state: Path, limits: Limits) -> Answer:
    """Audit a history with the evidence and the trust file of a state folder.

    Args:
        document: In its JSON form.
        state: The folder.
        limits: How long the history may be.

    Raises:
        SandboxError: It is too long, or the evidence cannot be read.
    """
    data = json.dumps(document).encode()
    if len(data) > limits.history_bytes:
        raise SandboxError("This history is larger than a demo audits.", "enough")
    try:
        history = history_from_json(data)
    except EvidenceError as error:
        sentence = f"The audit cannot read it as a history, and so believes nothing of it: {error}."
        return Answer("unreadable", "Not a history", sentence, len(document["events"]), ())
    try:
        with OpenEvidence([str(state)]) as evidence:
            run = audit_run(history, evidence, read_trust(state / "trust.jwks"))
    except ExequaturError as error:
        logger.error("The evidence of a sandbox of the demo page cannot be read: %s", error)
        raise SandboxError("The evidence of this sandbox cannot be read. Reset it to begin anew.", "gone") from None
    return _answer(run)


def listed(document: Document) -> list[dict[str, Any]]:
    """The events of a history with what can be done to each, as plain data."""
    changes = changes_of(document)
    return [
        {
            "id": int(each["eventId"]),
            "name": name_of(each),
            "changes": [asdict(change) for change in changes[int(each["eventId"])]],
            "readable": json.dumps(readable(each), indent=1),
            "json": json.dumps(each, indent=1),
        }
        for each in document["events"]
    ]


def compared(
    document: Document, event_id: int, kind: str, text: str | None, state: Path, limits: Limits
) -> dict[str, Any]:
    """Change a copy of a history, and audit both; plain data.

    Args:
        document: The history.
        event_id: As :func:`exequatur.console.sandbox.tampering.tampered` takes it.
        kind: The same.
        text: The same.
        state: As :func:`audited` takes it.
        limits: The same.

    Raises:
        SandboxError: This cannot be done, or one of them not be audited.
    """
    changed = tampered(document, event_id, kind, text)
    return {
        "done": changed.sentence,
        "before": changed.before[:_SHOWN],
        "after": changed.after[:_SHOWN],
        "same": changed.document == document,
        "original": asdict(audited(document, state, limits)),
        "copy": asdict(audited(changed.document, state, limits)),
    }


def _answer(run: RunReport) -> Answer:
    title, sentence = wording.headline(Report(runs=(run,)))
    groups = [
        Found(
            str(each.severity),
            each.code,
            each.meaning,
            tuple(wording.shown(one.sentence, 600) for one in each.findings[:_SENTENCES]),
            max(0, len(each.findings) - _SENTENCES),
        )
        for each in wording.grouped(run.findings)
        if each.severity is not Severity.NOTICE
    ]
    return Answer(run.verdict.value, title, sentence, run.events, tuple(groups))

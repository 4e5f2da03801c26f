"""What a comparison is made with: bundles by folder, file or digest, and recorded decisions from wherever they are."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from pathlib import Path

from temporalio.converter import DataConverter

from exequatur.audit.codec import decoded
from exequatur.audit.history import RunHistory
from exequatur.audit.recorded import Skipped, decisions_in, questions_of
from exequatur.audit.records import Evidence, evidence_in, histories_in
from exequatur.authoring.whatif.compare import Comparing
from exequatur.authoring.whatif.once import Once
from exequatur.cli.fetching import fetched, listed
from exequatur.cli.server import Server
from exequatur.errors import ConfigurationError, EvidenceError, PolicyError
from exequatur.identity.principal import Principal
from exequatur.policy.bundle import PolicyBundle
from exequatur.policy.source import BundleSource
from exequatur.release.file import MAX_FILE_BYTES, BundleFile

QUERY = "query:"
"""What a visibility query begins with, among files and folders."""
_FETCHED = 8
"""Histories that are fetched, and in memory, at a time."""
_TOLD = 20
"""Sentences about what cannot be read; more are counted."""
_DIGEST = re.compile(r"[A-Za-z0-9_-]{43}")
_AGO = re.compile(r"([1-9][0-9]{0,5})(m|h|d)")
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


def bundle_at(where: str, evidence: Sequence[str]) -> PolicyBundle:
    """A bundle by its folder, its file, or its digest in an archive.

    Args:
        where: The path or the digest.
        evidence: Where bundles are archived.

    Raises:
        PolicyError: There is none, or it is refused.
        EvidenceError: An archive cannot be read.
    """
    path = Path(where)
    if path.is_dir():
        return PolicyBundle.from_folder(path)
    if path.is_file():
        with path.open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
        return PolicyBundle(BundleFile.read(data, where).open(where).source)
    if _DIGEST.fullmatch(where):
        for source in evidence:
            archived = Evidence(source).find(where)
            if archived is not None:
                return PolicyBundle(BundleSource.from_archive(archived))
        raise PolicyError(f"No bundle {where} is archived; name its journal or store with --against.")
    raise PolicyError(f"{where}: no folder of policies, bundle file or digest. Name one of these.")


@dataclass
class Gathering:
    """Recorded decisions on their way into a comparison.

    Args:
        comparing: Where they go.
        bundles: The two that are compared.
        activities: Globs of activity types; none means all.
        since: Seconds since 1970.
        assumed: On whose behalf an ungoverned run is taken to act.
        converter: The workers' data converter.
        server: Where queries are asked.
        skipped: What is no question, by reason.
        unreadable: What cannot be read, a sentence each, of which only the first are kept.
        failed: How many.
        histories: How many were read; nothing of them was verified.
    """

    comparing: Comparing
    bundles: Sequence[PolicyBundle]
    activities: Sequence[str]
    since: float
    assumed: Principal | None
    converter: DataConverter | None
    server: Server
    skipped: Skipped = field(default_factory=Counter)
    unreadable: list[str] = field(default_factory=list)
    failed: int = 0
    histories: int = 0
    _once: Once = field(init=False)

    def __post_init__(self) -> None:
        self._once = Once(self.comparing.add, 1)

    @property
    def repeated(self) -> int:
        """How many decisions more than one source holds; they count once."""
        return self._once.repeated

    async def gather(self, sources: Sequence[str]) -> None:
        """Read everything.

        Raises:
            EvidenceError: Evidence or a server cannot be read.
        """
        # Histories hold all arguments, evidence those that policies could read.
        ordered = sorted(dict.fromkeys(sources), key=lambda each: not each.startswith(QUERY) and evidence_in(each))
        self._once = Once(self.comparing.add, len(ordered))
        for source in ordered:
            if source.startswith(QUERY):
                async for history in self._found(source.removeprefix(QUERY)):
                    await self._add(history)
            elif evidence_in(source):
                for each in decisions_in(Evidence(source), self.skipped, known=self.bundles, wanted=self._wanted):
                    self._once.add(each)
            else:
                for history in histories_in(source, self._cannot_read):
                    await self._add(history)
            self._once.end_source()

    async def _add(self, history: RunHistory) -> None:
        self.histories += 1
        if self.converter is not None:
            try:
                history = await decoded(history, self.converter, namespace=self.server.namespace)
            except EvidenceError as error:
                self._cannot_read(error)
                return
        questions = questions_of(
            history, self.skipped, assumed=self.assumed, namespace=self.server.namespace, wanted=self._wanted
        )
        for each in questions:
            self._once.add(each)

    async def _found(self, query: str) -> AsyncIterator[RunHistory]:
        """The histories that a visibility query finds, some fetched ahead."""
        client = await self.server.connect()
        waiting: list[asyncio.Task[RunHistory]] = []
        try:
            async for workflow_id, run_id in listed(client, query):
                waiting.append(asyncio.ensure_future(fetched(client, workflow_id, run_id)))
                if len(waiting) >= _FETCHED and (history := await self._outcome(waiting.pop(0))) is not None:
                    yield history
            while waiting:
                if (history := await self._outcome(waiting.pop(0))) is not None:
                    yield history
        finally:
            for task in waiting:
                task.cancel()

    async def _outcome(self, task: asyncio.Task[RunHistory]) -> RunHistory | None:
        try:
            return await task
        except EvidenceError as error:
            self._cannot_read(error)
            return None

    def _cannot_read(self, error: EvidenceError) -> None:
        self.failed += 1
        if len(self.unreadable) < _TOLD:
            self.unreadable.append(str(error))

    def _wanted(self, action: str, at: float) -> bool:
        return at >= self.since and (not self.activities or any(fnmatchcase(action, glob) for glob in self.activities))


def principal_of(name: str | None, parents: Sequence[str]) -> Principal | None:
    """Whom ungoverned runs are taken to act for.

    Raises:
        ConfigurationError: It is no entity.
    """
    if name is None:
        if parents:
            raise ConfigurationError("--parent goes with --principal")
        return None
    try:
        found = Principal.parse(name)
        return Principal(found.type, found.id, {}, tuple(parents))
    except ValueError as error:
        raise ConfigurationError(f"--principal, --parent: {error}") from None


def moment_of(text: str | None) -> float:
    """Seconds since 1970 of ``2026-01-31``, ``2026-01-31T12:00:00Z``, or so long ago as ``7d``.

    Raises:
        ConfigurationError: It is neither.
    """
    if text is None:
        return 0.0
    ago = _AGO.fullmatch(text)
    if ago is not None:
        return (datetime.now(UTC) - timedelta(**{_UNITS[ago.group(2)]: int(ago.group(1))})).timestamp()
    try:
        time = datetime.fromisoformat(text)
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise ConfigurationError(f"--since {text}: not a time; write 2026-01-31, 2026-01-31T12:00:00Z or 7d") from None

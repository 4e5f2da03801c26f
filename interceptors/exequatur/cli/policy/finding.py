"""A recorded decision and the policies that made it, from evidence, a history file or a server."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from exequatur.cli.server import Server
from exequatur.errors import EvidenceError

if TYPE_CHECKING:  # at run time when a command runs, so that --help is quick
    from exequatur.audit.decided import Decided, Wanted
    from exequatur.audit.evidence import DecisionRecord
    from exequatur.audit.history import RunHistory
    from exequatur.authoring.whatif.held import Arguments
    from exequatur.lineage.record import Record
    from exequatur.policy.bundle import PolicyBundle

POLICIES = Path("policies")
"""Where policies are unless another place is named."""


class Finding:
    """Where a recorded decision is looked for.

    Args:
        server: Asked for the history where there is no evidence, or if ``at_server`` says so.
        sources: The evidence.
        policies: Those to ask instead of those that decided.
        history_file: The run's history, instead of the server.
        converter: ``MODULE:NAME`` of the workers' data converter or payload codec.
        at_server: The server was named.
    """

    def __init__(
        self,
        server: Server,
        sources: tuple[str, ...],
        policies: Path | None,
        history_file: Path | None,
        converter: str | None,
        *,
        at_server: bool,
    ) -> None:
        self._server, self._sources, self._policies = server, sources, policies
        self._file, self._converter = history_file, converter
        self._at_server = history_file is None and (at_server or not sources)
        self._history: RunHistory | None = None

    def at(self, place: str) -> tuple[Decided, PolicyBundle | None, tuple[str, ...]]:
        """The decision at a place in the evidence."""
        from exequatur.audit.decided import Wanted, record_at

        record, claims = record_at(self._sources, place)
        wanted = Wanted(claims.workflow_id or "", claims.activity_id, claims.run_id)
        return self._recorded(record, claims, wanted, ())

    def of(self, wanted: Wanted) -> tuple[Decided, PolicyBundle | None, tuple[str, ...]]:
        """The decision about an activity, from the evidence if there is any, else from the history."""
        from exequatur.audit.decided import of_history, record_of

        if self._sources:
            record, claims, notes = record_of(self._sources, wanted)
            return self._recorded(record, claims, wanted, notes)
        decided = of_history(self._read(wanted), wanted, namespace=self._server.namespace)
        notes = ()
        if wanted.attempt is not None and wanted.attempt != decided.attempt:
            notes = (f"The history tells of attempt {decided.attempt}; earlier ones stand in the evidence.",)
        return decided, self._bundle(decided.bundle), notes

    def arguments(self, decided: Decided) -> Arguments | None:
        """The arguments that the history holds, if one was read."""
        from exequatur.audit.decided import Wanted, of_history

        if self._history is None or not decided.place.startswith("record"):
            return None
        wanted = Wanted(decided.workflow_id, decided.activity_id)
        return of_history(self._history, wanted, namespace=self._server.namespace).arguments

    def _recorded(
        self, record: Record, claims: DecisionRecord, wanted: Wanted, notes: tuple[str, ...]
    ) -> tuple[Decided, PolicyBundle | None, tuple[str, ...]]:
        from exequatur.audit.decided import archived, of_history, of_record

        principal = None
        if self._at_server or self._file is not None:
            history = self._read(wanted)
            principal = of_history(history, wanted, namespace=self._server.namespace).principal
        deciding = archived(self._sources, claims.bundle)
        bundle = deciding if self._policies is None else self._bundle(claims.bundle)
        return of_record(record, claims, deciding, principal), bundle, notes

    def _bundle(self, digest: str | None) -> PolicyBundle | None:
        """The policies that were named; without a name, those that decided, as far as they are at hand."""
        from exequatur.cli.policy.asking import bundle_at

        if self._policies is not None:
            return bundle_at(self._policies)
        if not POLICIES.exists():
            raise EvidenceError(
                f"the history does not hold the policies {digest or 'that decided'}; name them with --policies, or the "
                "--evidence that holds them"
            )
        return bundle_at(POLICIES)

    def _read(self, wanted: Wanted) -> RunHistory:
        from exequatur.audit.codec import converter_of, decoded
        from exequatur.audit.history import read_history
        from exequatur.cli.fetching import fetched

        converter = None if self._converter is None else converter_of(self._converter)

        async def read() -> RunHistory:
            if self._file is not None:
                history = read_history(self._file)
            else:
                history = await fetched(await self._server.connect(), wanted.workflow_id, wanted.run_id)
            return history if converter is None else await decoded(history, converter, namespace=self._server.namespace)

        history = self._history = asyncio.run(read())
        if wanted.workflow_id != history.workflow_id:
            raise EvidenceError(f"{wanted}: the history is of workflow {history.workflow_id}")
        return history

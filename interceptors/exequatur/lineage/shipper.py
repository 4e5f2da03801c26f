"""The shipper: forwards the journals of a folder to the shared evidence store, beside the worker and never in its way.

Rules, numbered as the code marks them:

Z1  A journal is only read, and only for as long as it takes to read one batch.
Z2  What is shipped goes on from what the store has. The last record that is there must still stand in the journal;
    otherwise the journal was edited, cut or replaced, and nothing of it is shipped.
Z3  A journal that is refused does not hold up the others; a store that is down is tried again, less and less often.
Z4  Trouble is logged when it begins and when it ends, not while it lasts.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from exequatur.errors import ConfigurationError, EvidenceError, ExequaturError, JournalError, StoreUnavailableError
from exequatur.lineage.record import Record, read_from

if TYPE_CHECKING:  # at run time only what a worker with a shared store uses
    from exequatur.lineage.store import EvidenceStore
    from exequatur.lineage.store_records import Log

_log = logging.getLogger(__name__)

_BATCH = 500  # records
_BATCH_BYTES = 4 * 1024 * 1024
_LONGEST_WAIT = 300.0  # seconds between attempts to reach a store that is down


class Shipper:
    """Ships the journals of one folder, in a thread of its own or by call.

    Args:
        folder: Where the workers of this machine keep their journals; several shippers may share it.
        store: The store, or its URL: it is then opened when it is first needed, and closed by :meth:`stop`.
        interval: Seconds between two rounds.

    Raises:
        ConfigurationError: The packages that a store needs are not installed.
    """

    def __init__(self, folder: Path, store: EvidenceStore | str, interval: float = 5.0) -> None:
        try:
            from exequatur.lineage.store import EvidenceStore
        except ModuleNotFoundError as err:
            raise ConfigurationError(
                f"the evidence store needs {err.name}, which is not installed; run: pip install 'exequatur[store]'"
            ) from err

        self._folder = folder
        self._interval = interval
        self._url = store if isinstance(store, str) else None
        self._open = EvidenceStore.open
        self._store = None if isinstance(store, str) else store
        self._one_round = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self.problem: str | None = None
        """Why not all was shipped in the last round."""

    def start(self) -> None:
        """Begin to ship every ``interval`` seconds; a second call does nothing."""
        if self._thread is None:
            self._stopping.clear()
            self._thread = threading.Thread(target=self._run, name="exequatur-shipper", daemon=True)
            self._thread.start()

    def stop(self, timeout: float = 10.0) -> None:
        """Ship what is there and end.

        Args:
            timeout: Seconds to wait for that; a store that hangs is left to itself.
        """
        thread, self._thread = self._thread, None
        if thread is not None:
            self._stopping.set()
            thread.join(timeout)
            if thread.is_alive():
                _log.warning("%s: the last round of shipping goes on in the background", self._folder)
                return
        if self._url is not None and self._store is not None:
            self._store.close()
            self._store = None

    def ship_once(self) -> int:
        """Ship all that the journals hold and the store does not.

        Returns:
            How many records were new to the store.

        Raises:
            EvidenceError: Journals were refused or cannot be read; each is named, and all others were shipped.
            StoreUnavailableError: The store cannot be reached; the rest is shipped by a later call.
        """
        shipped, refused = self._round()
        if refused:
            raise EvidenceError("; ".join(refused.values()))
        return shipped

    def _round(self) -> tuple[int, dict[Path, str]]:
        refused: dict[Path, str] = {}
        shipped = 0
        with self._one_round:
            paths = sorted(self._folder.glob("*.db"))
            if paths and self._store is None:
                self._store = self._open(self._url or "")
            for path in paths:
                try:
                    shipped += self._ship(path)
                except StoreUnavailableError:
                    raise
                except (EvidenceError, JournalError) as err:  # [Z3]
                    refused[path] = str(err) if isinstance(err, JournalError) else f"{path}: not shipped: {err}"
        return shipped, refused

    def _ship(self, path: Path) -> int:
        store = self._store
        log_id, _ = read_from(path, 0, 0, 0)
        shipped = 0
        while store is not None:
            log = store.log(log_id)
            _check_overlap(log, read_from(path, max(log.size - 1, 0), 1, 0)[1])  # [Z2]
            _, new = read_from(path, log.size, _BATCH, _BATCH_BYTES)  # [Z1]
            if not new:
                break
            shipped += store.append(log_id, new, log.head)
        return shipped

    def _run(self) -> None:
        down, wait = False, self._interval
        refused: dict[Path, str] = {}
        while True:
            last = self._stopping.is_set()
            try:
                _, found = self._round()
            except Exception as err:  # whatever it is: this thread is all that ships
                if not down:  # [Z4]
                    known = isinstance(err, ExequaturError)
                    _log.error("evidence is not shipped, the journals keep it: %s", err, exc_info=not known)
                self.problem = str(err) if isinstance(err, ExequaturError) else type(err).__name__
                down, wait = True, min(wait * 2, max(_LONGEST_WAIT, self._interval))  # [Z3]
            else:
                if down:
                    _log.warning("evidence is shipped again")
                down, wait = False, self._interval
                for path, why in found.items():
                    if refused.get(path) != why:  # [Z4]
                        _log.error("a journal is not shipped: %s", why)
                refused, self.problem = found, "; ".join(found.values()) or None
            if last:
                return
            self._stopping.wait(wait)


def _check_overlap(log: Log, known: list[Record]) -> None:
    if log.size and [(record.index, record.head) for record in known] != [(log.size - 1, log.head)]:
        raise EvidenceError(
            f"the journal does not hold record {log.size - 1} of log {log.log_id} as it was shipped: it was edited, "
            "cut or replaced; keep the file for the audit and move it elsewhere"
        )

"""A policy folder on disk, and the watch that puts changed policies into force.

Rules:

W1  A changed source is loaded once it looks the same in two scans: editors write in pieces.
W2  A bundle that is refused changes nothing: what was in force stays in force, and the refusal is reported once. It is
    looked at again after a while though it has not changed: the clock may have been set, or the disk have space again.
W3  A source that vanishes is refused like any other bad state.
W4  The watch outlives every error.
W5  A watch that was stopped hands nothing over, even if its source answers late.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Hashable
from pathlib import Path

from exequatur.errors import PolicyError
from exequatur.policy.bundle import PolicyBundle
from exequatur.policy.offer import Fits, Offer, PolicySource, anything
from exequatur.policy.source import BundleSource, read_folder

logger = logging.getLogger(__name__)

State = tuple[tuple[str, int, int, int], ...]

_RETRY = 60.0
"""Seconds after which what was refused is looked at again."""
_LATE = 1.0
"""Seconds that stopping waits for a source that is being asked."""


class PolicyFolder:
    """A folder that holds a policy bundle.

    Args:
        path: The folder; it is looked at when it is used, not here.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def __str__(self) -> str:
        return f"the policy folder {self.path}"

    def load(self) -> PolicyBundle:
        """Read, parse and validate the bundle.

        Raises:
            PolicyError: It is refused; the message names the file and the next step.
        """
        return PolicyBundle(self.read())

    def read(self) -> BundleSource:
        """Read the texts without parsing them.

        Raises:
            PolicyError: The folder or a file cannot be read.
        """
        return read_folder(self.path)

    def offer(self, current: Offer | None, fits: Fits = anything) -> Offer | None:
        """Read the bundle, and parse it when it is not the one in force.

        Raises:
            PolicyError: It is refused.
        """
        source = self.read()
        if current and current.bundle.digest == source.digest:
            return None
        bundle = PolicyBundle(source)
        fits(bundle)
        return Offer(bundle)

    def accept(self, offer: Offer) -> None:
        """Nothing need be remembered of an edit."""

    def state(self) -> State:
        """Return what the file system says about the folder: name, time in ns, size and inode of each file."""
        try:
            names = sorted(entry.name for entry in os.scandir(self.path) if not entry.name.startswith("."))
        except OSError as error:
            return (("", error.errno or -1, 0, 0),)
        return tuple(self._file_state(name) for name in names)

    def _file_state(self, name: str) -> tuple[str, int, int, int]:
        try:
            status = (self.path / name).stat()
        except OSError as error:
            return name, error.errno or -1, -1, -1
        return name, status.st_mtime_ns, status.st_size, status.st_ino


class PolicyWatch:
    """Watches a source of policies and hands over each new bundle; what is in force is the caller's to keep.

    Args:
        source: Where the policies come from; a path is that of a folder.
        interval: Seconds between two scans; an edit is handed over after two to three of them.
        on_change: Called with each new bundle, in the watch's thread. A ``PolicyError`` refuses the bundle; after any
            other exception it is called again.
        on_refused: Called once for each state of the source that is refused, and again when the reason is another.
        current: What is in force; without it the first bundle found is handed over.
        fits: Refuses bundles; a source that holds several hands over another one.

    Attributes:
        asking: Held while the source is asked. Whoever else asks it holds this, and sets ``current`` to what it adopts.
    """

    def __init__(
        self,
        source: PolicySource | str | Path,
        interval: float = 0.25,
        *,
        on_change: Callable[[Offer], None],
        on_refused: Callable[[PolicyError], None],
        current: Offer | None = None,
        fits: Fits = anything,
    ) -> None:
        self._source = PolicyFolder(source) if isinstance(source, str | Path) else source
        self._interval = interval
        self._on_change = on_change
        self._on_refused = on_refused
        self._fits = fits
        self.current = current
        self._seen: Hashable = None
        self._settled: Hashable = None
        self._refused: tuple[float, str] | None = None
        """When what is settled was refused, and why."""
        self._stop: threading.Event | None = None
        self.asking = threading.Lock()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread; a second call does nothing."""
        if self._thread is None:
            self._stop = threading.Event()
            self._thread = threading.Thread(
                target=self._run, args=(self._stop,), name="exequatur-policy-watch", daemon=True
            )
            self._thread.start()

    def stop(self) -> None:
        """Stop the thread; nothing is handed over afterwards."""
        thread, self._thread = self._thread, None
        if self._stop is not None:
            self._stop.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join(_LATE)

    def scan(self) -> None:
        """Look at the source once, as the thread does at each interval."""
        self._scan(threading.Event())

    @property
    def refused(self) -> str | None:
        """Why what is there now was refused."""
        refused = self._refused
        return None if refused is None else refused[1]

    def overdue(self) -> bool:
        """Whether what was refused is to be looked at again."""
        return self._refused is not None and time.monotonic() - self._refused[0] >= _RETRY

    def _scan(self, stop: threading.Event) -> None:
        with self.asking:
            state = self._source.state()
            stable, self._seen = state == self._seen, state
            if stable and (state != self._settled or self.overdue()):  # W1, W2
                self._take(state, stop)

    def _run(self, stop: threading.Event) -> None:
        while not stop.wait(self._interval):
            try:
                self._scan(stop)
            except BaseException:  # [W4] a panic in Cedar's native code is not an Exception
                logger.exception("The watch of %s failed; it goes on", self._source)

    def _take(self, state: Hashable, stop: threading.Event) -> None:
        try:
            offer = self._offer()
            if stop.is_set() or not self._unchanged(state):  # W5
                return
            if offer is not None:
                self._on_change(offer)
                self.current = offer
        except PolicyError as error:
            if not stop.is_set() and self._unchanged(state):
                told = self._settled == state and self._refused is not None and self._refused[1] == str(error)
                self._settled, self._refused = state, (time.monotonic(), str(error))  # W2, W3
                if not told:
                    self._on_refused(error)
            return
        self._settled, self._refused = state, None

    def _offer(self) -> Offer | None:
        try:
            return self._source.offer(self.current, self._fits)
        except PolicyError:
            raise
        except BaseException as error:  # [W4]
            raise PolicyError(f"{self._source} cannot be loaded: {error!r}") from error

    def _unchanged(self, state: Hashable) -> bool:
        """Tell whether what was read is what was seen: a source that changed meanwhile is looked at again."""
        return self._source.state() == state

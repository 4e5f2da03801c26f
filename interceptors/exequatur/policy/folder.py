"""A policy folder on disk, and the watch that puts its edits into force.

Rules:

W1  A changed folder is loaded once it looks the same in two scans: editors write in pieces.
W2  A bundle that is refused changes nothing: what was in force stays in force, and the refusal is reported once.
W3  A folder that vanishes is refused like any other bad state.
W4  The watch outlives every error.
"""

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

from exequatur.errors import PolicyError
from exequatur.policy.bundle import PolicyBundle
from exequatur.policy.source import BundleSource, read_folder

logger = logging.getLogger(__name__)

State = tuple[tuple[str, int, int, int], ...]


class PolicyFolder:
    """A folder that holds a policy bundle.

    Args:
        path: The folder; it is looked at when it is used, not here.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

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
    """Watches a policy folder and hands over each new bundle; what is in force is the caller's to keep.

    Args:
        folder: The folder.
        interval: Seconds between two scans; an edit is handed over after two to three of them.
        on_change: Called with each new bundle, in the watch's thread; if it raises, it is called again.
        on_refused: Called once for each state of the folder that is refused.
        current: Digest of the bundle in force; without it the first bundle found is handed over.
    """

    def __init__(
        self,
        folder: PolicyFolder | str | Path,
        interval: float = 0.25,
        *,
        on_change: Callable[[PolicyBundle], None],
        on_refused: Callable[[PolicyError], None],
        current: str | None = None,
    ) -> None:
        self._folder = folder if isinstance(folder, PolicyFolder) else PolicyFolder(folder)
        self._interval = interval
        self._on_change = on_change
        self._on_refused = on_refused
        self._current = current
        self._seen: State | None = None
        self._settled: State | None = None
        self._stopped = threading.Event()
        self._scanning = threading.Lock()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread; a second call does nothing."""
        if self._thread is None:
            self._stopped.clear()
            self._thread = threading.Thread(target=self._run, name="exequatur-policy-watch", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Stop the thread and wait for it; nothing is handed over afterwards."""
        thread, self._thread = self._thread, None
        self._stopped.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def scan(self) -> None:
        """Look at the folder once, as the thread does at each interval."""
        with self._scanning:
            state = self._folder.state()
            stable, self._seen = state == self._seen, state
            if stable and state != self._settled:  # W1
                self._take(state)

    def _run(self) -> None:
        while not self._stopped.wait(self._interval):
            try:
                self.scan()
            except BaseException:  # W4: a panic in Cedar's native code is not an Exception
                logger.exception("The watch of the policy folder %s failed; it goes on", self._folder.path)

    def _take(self, state: State) -> None:
        try:
            bundle = self._load_if_new()
        except PolicyError as error:
            if self._unchanged(state):
                self._settled = state  # W2, W3
                self._on_refused(error)
            return
        if not self._unchanged(state):
            return
        if bundle is not None:
            self._on_change(bundle)
            self._current = bundle.digest
        self._settled = state

    def _load_if_new(self) -> PolicyBundle | None:
        try:
            source = self._folder.read()
            return PolicyBundle(source) if source.digest != self._current else None
        except PolicyError:
            raise
        except BaseException as error:  # W4
            raise PolicyError(f"The policy folder {self._folder.path} cannot be loaded: {error!r}") from error

    def _unchanged(self, state: State) -> bool:
        """Tell whether what was read is what was seen: a file written meanwhile is looked at again."""
        return self._folder.state() == state

"""Processes of the demo: each in a group of its own with a log file, and none that outlives the demo."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

_POLL = 0.05
_GRACE = 5.0
"""Seconds from SIGTERM to SIGKILL."""


class Child:
    """A running process and its log.

    Args:
        name: What errors call it.
        command: The command line.
        log: File for what it prints.
        environment: Variables besides those of this process.
        folder: Where it runs; where this process does, if left out.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as stream:
            self._process = subprocess.Popen(  # noqa: S603 - our own command line
                command,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
                env=os.environ | dict(environment or {}),
                cwd=folder,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def logged(self) -> int:
        """How long the log is, to look only at what comes later."""
        return self.log.stat().st_size

    def has_logged(self, text: str, since: int = 0) -> bool:
        """Whether the log has a text.

        Raises:
            RuntimeError: It has not, and the process has ended.
        """
        ended = self._process.poll()
        found = text.encode() in self.log.read_bytes()[since:]
        if not found and ended is not None:
            raise RuntimeError(f"{self.name} ended with code {ended}; see {self.log}:\n{self.tail()}")
        return found

    def tail(self, lines: int = 5) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def signal(self, number: signal.Signals) -> None:
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def stop(self, until: float | None = None) -> None:
        """Ask the process to end, and end it when it has not by ``until`` (monotonic seconds)."""
        self.signal(signal.SIGTERM)
        try:
            self._process.wait(max(0.0, (until or time.monotonic() + _GRACE) - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            self._process.wait()


class Processes:
    """Starts processes; leaving the ``with`` block ends them all, whatever happened in it.

    Args:
        logs: Folder for their logs.
    """

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._children: list[Child] = []

    def start(
        self, name: str, *command: str, environment: Mapping[str, str] | None = None, folder: Path | None = None
    ) -> Child:
        child = Child(name, command, self._logs / f"{name}.log", environment, folder)
        self._children.append(child)
        return child

    def python(self, name: str, module: str, *arguments: str) -> Child:
        """Start a module with this interpreter."""
        return self.start(name, sys.executable, "-m", module, *arguments)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # An impatient second Ctrl-C must not leave half of them behind.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        until = time.monotonic() + _GRACE
        for child in self._children:
            child.signal(signal.SIGTERM)
        for child in self._children:
            child.stop(until)


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

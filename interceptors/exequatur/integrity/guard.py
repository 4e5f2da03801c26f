"""Verifies this process against its manifest, at start and as long as it runs.

Rules, numbered as the code marks them:

G1  Before anything is authorized, everything is measured and equals what the manifest says.
G2  Every ``integrity_interval``, also while everything is read again, what is loaded, and what the sources and the
    configuration consist of, looks as it did; what does not is read again.
G3  Every ``integrity_full_interval``, everything is measured again, and the manifest's key is still trusted.
G4  What is loaded later comes from files that were measured (rules L of :mod:`exequatur.integrity.loaded`).
G5  What decides is what it was, in memory (rules K of :mod:`exequatur.integrity.objects`, and what is registered).
G6  A violation stays one, whatever is put back, until the process ends.
G7  What cannot be found out now is uncertain until it can, and what only a look at everything can find out until such a
    look was had; so is a guard that has not looked for too long.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Literal

from exequatur.errors import ConfigurationError, IntegrityError, UnreadableError
from exequatur.integrity.compare import differences
from exequatur.integrity.files import Reader, Stamp, stamp_of
from exequatur.integrity.keys import read_manifest_keys, read_small
from exequatur.integrity.loaded import Loaded, is_compiled_from, loaded_modules
from exequatur.integrity.manifest import Manifest, verify_manifest
from exequatur.integrity.measure import Measured, Plan, code_below, environment_of, is_code, is_searched, measure
from exequatur.integrity.objects import Watched
from exequatur.settings import Settings
from exequatur.statements.encoding import compact_json

logger = logging.getLogger("exequatur")

ALTERED = "This worker is not what its manifest says"
"""How a violation begins, which stays one until the process ends."""

PACKAGES = ("exequatur", "cedarpy", "cryptography", "hashlib", "json", "sqlite3", "temporalio.worker")
"""Whose functions and classes are watched in memory."""
_SHARE = 0.2
"""Of one processor, for looking again."""
_SHOWN = 5
"""Differences that one sentence names."""
_PATIENCE = 10
"""Intervals without a look after which it is not known what this process is."""
_SHORTEST_PATIENCE = 30.0
_ABSENT: Stamp = (0, 0, 0, 0, 0, 0)
"""Of a compiled file that is not there."""

Probe = Callable[[], Iterable[str]]


@dataclass(frozen=True)
class Told:
    """What is written down about a look.

    Args:
        state: ``verified``, ``violated``, or ``unknown``.
        manifest: Digest of the manifest.
        differences: What differs, or why it could not be found out; a sentence each.
    """

    state: Literal["verified", "violated", "unknown"]
    manifest: str
    differences: tuple[str, ...] = ()

    def record(self, worker: str | None) -> bytes:
        """The body of the journal's ``integrity`` record.

        Args:
            worker: SPIFFE id, once there is one.
        """
        told = {"state": self.state, "manifest": self.manifest, "differences": self.differences}
        return compact_json(told if worker is None else {**told, "worker": worker})


class Guard:
    """Of one process. ``violation`` and ``problem`` may be read from any thread.

    Args:
        manifest: What the process must be.
        settings: Intervals, keys, and what this process was told about itself.
        tell: Called with what was found whenever that changes, from the thread that found it.
    """

    def __init__(self, manifest: Manifest, settings: Settings, tell: Callable[[Told], None]) -> None:
        self.manifest = manifest
        self.violation: str | None = None
        self.problem: str | None = None
        self.armed = False
        """Whether this process serves workers. One that only starts workflows, or replays them, is not verified."""
        self._settings = settings
        self._tell = tell
        self._probes: list[Probe] = []
        self._watched = Watched()
        self._guarding = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._looked = self._tried = self._read = time.monotonic()
        self._share = _SHARE
        self._owed = True
        """Whether the last look at everything could not be had."""
        self._measured: Measured | None = None
        self._roots: tuple[Path, ...] = ()
        self._loaded = Loaded(
            self._known, lambda place: any(place.is_relative_to(each) for each in self._roots), self._is_source
        )
        self._stamps: dict[str, Stamp] = {}
        self._folders: dict[str, Stamp] = {}

    @classmethod
    def open(cls, settings: Settings, tell: Callable[[Told], None]) -> Guard | None:
        """The guard of this process; ``None`` where the settings name no manifest.

        Args:
            settings: As they were read.
            tell: See :class:`Guard`.

        Raises:
            ConfigurationError: Manifest or keys cannot be read.
            StatementError: The manifest does not verify.
        """
        if settings.integrity_manifest is None or settings.integrity_keys is None:
            return None
        text = read_small(Path(settings.integrity_manifest), 16 * 1024 * 1024, "no manifest")
        keys = read_manifest_keys(Path(settings.integrity_keys))
        try:
            return cls(verify_manifest(text.decode(), keys, time.time()), settings, tell)
        except UnicodeDecodeError:
            raise ConfigurationError(f"{settings.integrity_manifest} is no manifest: it is not UTF-8") from None

    def unavailable(self) -> str | None:
        """Why nothing may be authorized now, or ``None``."""
        return self.violation or self.unknown()

    def unknown(self) -> str | None:
        """Why it is not known what this process is, or ``None`` when it is."""
        if self.armed and self.problem is not None:  # [G7]
            return f"it is not known whether this worker is what its manifest says: {self.problem}"
        return self.lost()

    def lost(self) -> str | None:
        """Why it has not been known for so long that what runs must end, or ``None``."""
        patience = max(_SHORTEST_PATIENCE, _PATIENCE * self._settings.integrity_interval.total_seconds())
        if self.armed and time.monotonic() - self._looked > patience:  # [G7]
            return "it has not been known in time whether this worker is what its manifest says"
        return None

    @contextmanager
    def probing(self, probe: Probe) -> Iterator[None]:
        """Ask for more differences with each look, for as long as this lasts.

        Args:
            probe: Gives a sentence for each.
        """
        self._probes.append(probe)
        try:
            yield
        finally:
            self._probes.remove(probe)

    def arm(self) -> None:
        """From now on nothing may be authorized that was not verified."""
        if not self.armed:
            self.problem, self._looked, self.armed = "it has not been measured yet", time.monotonic(), True

    def begin(self) -> None:
        """Measure everything, and go on looking in a thread; only look at what it found if it has begun already.

        Raises:
            IntegrityError: This process is not what the manifest says.
        """
        with self._guarding:
            if self._thread is None and self.violation is None:
                self.arm()
                self._stop = threading.Event()
                self._examine(Reader(), full=True)
                self._thread = threading.Thread(
                    target=self._follow, args=(self._stop,), name="exequatur-integrity", daemon=True
                )
                self._thread.start()
        if self.violation is not None:
            raise IntegrityError(self.violation)

    def end(self) -> None:
        """Look no more."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=5)
            self._thread = None
        self.armed = False

    def look(self, *, full: bool = False) -> None:
        """Look once.

        Args:
            full: Whether to read everything again.
        """
        with self._guarding:
            self._examine(Reader(self._share, self._stop, self._look_meanwhile), full=full)

    def _look_meanwhile(self) -> None:
        """G2, while everything is read again.

        Raises:
            UnreadableError: Nothing more need be read.
        """
        if time.monotonic() - self._tried >= self._settings.integrity_interval.total_seconds():
            self._examine(Reader(self._share, self._stop), full=False)
        if self.violation is not None:
            raise UnreadableError("it is known already")

    def _follow(self, stop: threading.Event) -> None:
        settings = self._settings
        interval, whole = settings.integrity_interval.total_seconds(), settings.integrity_full_interval.total_seconds()
        while self.violation is None and not stop.wait(interval):
            self.look(full=self._owed or time.monotonic() - self._read >= whole)

    def _examine(self, reader: Reader, *, full: bool) -> None:
        """Look, and draw the consequences. Never raises."""
        full = full or self._measured is None
        found, why = [], None
        try:
            found = self._whole(reader) if full else self._quick(reader)
        except (UnreadableError, ConfigurationError, OSError) as err:
            why = _printable(str(err))
        except Exception as err:  # a look that fails shows nothing, and its thread must not end
            logger.exception("This worker could not be measured")
            why = f"{type(err).__name__} while it was measured"
        self._tried = time.monotonic()
        if full:
            self._owed, self._read = why is not None, self._tried  # [G7]
        if why is not None:
            self._uncertain(why)
        elif found:
            self._violated([_printable(each) for each in found])
        elif not self._owed:
            self._looked = self._tried
            if self.problem is not None:
                self.problem = None
                self._tell(Told("verified", self.manifest.digest))

    def _uncertain(self, why: str) -> None:
        if self._stop.is_set():
            return
        if self.problem != why and self.violation is None:
            self.problem = why
            self._tell(Told("unknown", self.manifest.digest, (why,)))

    def _violated(self, found: list[str]) -> None:
        self.problem = None
        if self.violation is not None:  # G6
            return
        more = f" ({len(found) - _SHOWN} more)" if len(found) > _SHOWN else ""
        self.violation = f"{ALTERED}: {'; '.join(found[:_SHOWN])}{more}"
        logger.error("%s", self.violation, extra={"manifest": self.manifest.digest})
        self._tell(Told("violated", self.manifest.digest, tuple(each[:500] for each in found[:100])))

    def _whole(self, reader: Reader) -> list[str]:
        """G1 and G3."""
        expected = self.manifest.measurement
        measured = measure(Plan.of(expected, self._settings.image_digest), reader)
        reader.meanwhile = lambda: None
        found = differences(expected, measured.measurement)  # G1
        keys = read_manifest_keys(Path(self._settings.integrity_keys or ""))
        if keys.find(self.manifest.key, time.time()) is None:  # [G3]
            found.append("the key that signed the manifest is no longer trusted")
        seen = measured.reader.seen
        roots = (*measured.sites.standard, *measured.sites.installed, *map(Path, expected.sources))
        self._measured, self._roots = measured, roots
        found += self._memory(reader)
        compiled = {path: self._stamps[path] for path in self._loaded.compiled}
        self._stamps = {path: each.stamp for path, each in seen.items() if self._often(path)} | compiled
        self._folders = dict(measured.folders)
        return found

    def _often(self, path: str) -> bool:
        """Whether a measured file is looked at every time: what is loaded, what may be, what configures."""
        configuration = self.manifest.measurement.configuration
        return path in self._loaded.files or path in configuration or self._is_source(path)

    def _is_source(self, path: str) -> bool:
        roots = self.manifest.measurement.sources
        return any(path == root or path.startswith(f"{root}/") for root in roots)

    def _known(self, path: str) -> bool:
        return self._measured is not None and path in self._measured.reader.seen

    def _quick(self, reader: Reader) -> list[str]:
        """G2, G4 and G5."""
        found = self._memory(reader)
        found += self._files(reader)
        found += self._new_files(reader)
        wanted = self.manifest.measurement.environment
        now = environment_of(wanted)
        return found + [f"environment variable {name} was changed" for name in wanted if wanted[name] != now[name]]

    def _memory(self, reader: Reader) -> list[str]:
        if self._measured is None:
            return []
        loaded, known = self._loaded, self._measured.reader.seen
        found = list(loaded.changes(reader))  # G4
        for path in {*loaded.files, *loaded.compiled} - self._stamps.keys():
            if seen := known.get(path) or reader.seen.get(path):
                known[path] = seen
                self._stamps[path] = seen.stamp
            elif path in loaded.compiled:
                self._stamps[path] = _ABSENT
        for name, module in loaded_modules().items():
            if not isinstance(module, ModuleType) or not _watched(name) or _is_being_loaded(module):
                continue
            if not self._watched.add(name, module):  # [G5]
                found.append(f"module {name} was replaced in memory")
        found += self._watched.changes()  # G5
        for probe in list(self._probes):
            found += probe()  # G5
        return found

    def _files(self, reader: Reader) -> Iterator[str]:
        measured = self._measured
        if measured is None:
            return
        for number, (path, was) in enumerate(list(self._stamps.items())):
            if number % 200 == 0:
                reader.pause()
            try:
                now = stamp_of(path)
                if now == was:
                    continue
                again = Reader()
                digest = again.digest(Path(path))
            except FileNotFoundError:
                if path not in self._loaded.compiled:
                    yield f"{path} is missing"  # [G2]
                self._stamps[path] = _ABSENT
                continue
            source = self._loaded.compiled.get(path)
            if source is not None and is_compiled_from(source, Path(path)):
                self._stamps[path] = again.seen[path].stamp
            elif source is not None or digest != measured.reader.seen[path].digest:  # [G2]
                yield f"{path} was changed"
            else:
                self._stamps[path] = again.seen[path].stamp

    def _new_files(self, reader: Reader) -> Iterator[str]:
        measured = self._measured
        if measured is None:
            return
        for folder, was in list(self._folders.items()):
            try:
                now = stamp_of(folder)
                if now == was:
                    continue
                with os.scandir(folder) as entries:
                    names = [each.name for each in entries]
            except FileNotFoundError:
                continue  # its files are missing, which is told of each
            self._folders[folder] = now
            for name in names:
                path = Path(folder) / name
                added = is_code(name) and str(path) not in measured.reader.seen and path.is_file()
                if path.is_dir() and str(path) not in self._folders and is_searched(path):
                    added = bool(code_below(path, self._folders, reader))
                if added:  # [G2]
                    yield f"{path} was added"
        reader.pause()


def _is_being_loaded(module: ModuleType) -> bool:
    """Whether its own code is running still, which may bind its names more than once."""
    return bool(getattr(module.__spec__, "_initializing", False))


def _printable(text: str) -> str:
    """Text that can be written down: names of files may be no text, or hold more than one line."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def _watched(name: str) -> bool:
    return any(name == each or name.startswith(f"{each}.") for each in PACKAGES)

"""Measures this process: interpreter, installed distributions, source files, configuration and environment.

Rules, numbered as the code marks them:

A1  Every file of a distribution is compared with its RECORD, and all of them make its digest, so that a changed RECORD
    shows as well.
A2  What lies beside the distributions and can be imported, or names what is to be, is measured by itself.
A3  An editable distribution is measured by its source.
A4  Of sources, every file that Python could import is measured.
A5  What cannot be read, or not be written down, makes no measurement.
A6  The interpreter is the file that runs, whatever the name under which it was started.
A7  What the system is told to load into this process besides is measured without being named.
"""

from __future__ import annotations

import ast
import base64
import hashlib
import importlib.machinery
import os
import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import Distribution as Installed
from importlib.metadata import PackagePath, distributions
from pathlib import Path

from pydantic import ValidationError

from exequatur.errors import ConfigurationError, UnreadableError
from exequatur.integrity.files import Reader, Stamp, stamp_of
from exequatur.integrity.manifest import Distribution, Interpreter, Measurement
from exequatur.settings import CONFIG_FILE, CONFIG_VARIABLE, PREFIX

CODE = (*importlib.machinery.all_suffixes(), ".pth")
"""How the names end of files that Python imports, or is told by what to import."""
OWN_VARIABLES = frozenset(
    {f"{PREFIX}{name}" for name in ("INTEGRITY_MANIFEST", "INTEGRITY_KEYS", "INSTANCE_DOCUMENT", "INSTANCE_TRUST")}
)
"""Those that say where the proof is; they cannot be part of it."""
LOADER_VARIABLES = frozenset({"LD_AUDIT", "LD_LIBRARY_PATH", "LD_PRELOAD"})
"""Those by which the system loads other code into this process, before Python begins."""
_BY_INSTALLERS = frozenset({"RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json"})
"""Files of a distribution's own folder that tell how it was installed, not what it is."""
_FLAGS = ("optimize", "isolated", "ignore_environment", "no_site", "no_user_site")


@dataclass(frozen=True)
class Plan:
    """What is measured besides interpreter and distributions.

    Args:
        sources: Folders of source files, or single files.
        configuration: Files.
        variables: Names of environment variables.
        image: Digest of the container image, as the process was told.
        build: Temporal build id.
    """

    sources: tuple[Path, ...] = ()
    configuration: tuple[Path, ...] = ()
    variables: tuple[str, ...] = ()
    image: str | None = None
    build: str | None = None

    @classmethod
    def of(cls, measurement: Measurement, image: str | None) -> Plan:
        """What to measure to compare it with a measurement.

        Args:
            measurement: The other one.
            image: Digest of the container image, as this process was told.
        """
        return cls(
            tuple(map(Path, measurement.sources)),
            tuple(map(Path, {*measurement.configuration, *map(str, settings_files())})),
            tuple({*measurement.environment, *own_variables()}),
            image,
            measurement.build,
        )


@dataclass(frozen=True)
class Sites:
    """Where Python finds what is not the application's.

    Args:
        standard: Folders of the standard library.
        installed: Folders in which distributions are installed.
    """

    standard: tuple[Path, ...]
    installed: tuple[Path, ...]

    @classmethod
    def here(cls) -> Sites:
        """Those of this process."""
        paths = sysconfig.get_paths()
        standard = _unique(Path(paths[name]) for name in ("stdlib", "platstdlib"))
        installed = _unique(Path(each) for each in sys.path if each and _holds_distributions(Path(each)))
        return cls(standard, installed)


@dataclass(frozen=True)
class Measured:
    """A measurement and what it was made from.

    Args:
        measurement: What can be compared and signed.
        reader: Has seen every file.
        sites: Where was looked.
        folders: Those in which a new file would be part of the measurement, as they looked before they were read.
    """

    measurement: Measurement
    reader: Reader
    sites: Sites
    folders: Mapping[str, Stamp] = field(default_factory=dict)


def measure(plan: Plan, reader: Reader, sites: Sites | None = None) -> Measured:
    """Measure this process.

    Args:
        plan: What besides interpreter and distributions.
        reader: Reads the files.
        sites: Where to look; those of this process if left out.

    Raises:
        UnreadableError: A5.
        ConfigurationError: The interpreter cannot be told.
    """
    try:
        return _measured(plan, reader, sites or Sites.here())
    except OSError as err:  # [A5]
        raise UnreadableError(f"{err.filename or 'a file'} cannot be read: {err.strerror or err}") from err
    except ValidationError as err:  # [A5] such as of a file whose name is no text
        where = ".".join(map(str, err.errors(include_input=False)[0]["loc"]))
        raise UnreadableError(f"what was measured cannot be written down: {where}") from None


def _measured(plan: Plan, reader: Reader, sites: Sites) -> Measured:
    found, extra = _distributions(sites, reader)
    folders = {str(each): stamp_of(each) for each in sites.installed}
    sources: dict[str, dict[str, str]] = {}
    for root in plan.sources:
        root = root.resolve()  # noqa: PLW2901 (the same place)
        sources[str(root)] = {
            name: reader.digest(path) for name, path in sorted(code_below(root, folders, reader).items())
        }
    measurement = Measurement(
        interpreter=_interpreter(sites, reader),
        distributions=found,
        extra=extra,
        sources=sources,
        configuration={str(each): reader.digest(each) for each in sorted(plan.configuration) if each.exists()},
        environment=environment_of(plan.variables),
        image=plan.image,
        build=plan.build,
    )
    return Measured(measurement, reader, sites, folders)


def settings_files() -> Iterator[Path]:
    """The file that settings are read from, where there is one."""
    named = os.environ.get(CONFIG_VARIABLE)
    path = Path(named) if named else Path.cwd() / CONFIG_FILE
    if path.exists():
        yield path.resolve()


def own_variables() -> Iterator[str]:
    """The variables that are measured without being named: settings, but those that say where the proof is, and what
    the system loads."""
    yield from (name for name in os.environ if name.startswith(PREFIX) and name not in OWN_VARIABLES)
    yield from LOADER_VARIABLES & os.environ.keys()  # [A7]


def environment_of(names: Iterable[str]) -> dict[str, str | None]:
    """Digests of variables' values as they are now; ``None`` for one that is not set."""
    return {name: _digest_of(os.environ.get(name)) for name in sorted(names)}


def sources_of(modules: Mapping[str, object], sites: Sites) -> tuple[Path, ...]:
    """The folders and files from which loaded modules came that are neither installed nor of the standard library.

    Args:
        modules: By name, such as ``sys.modules``.
        sites: Where the others come from.
    """
    roots: set[Path] = set()
    others = (*sites.standard, *sites.installed)
    for name, module in modules.items():
        if "." in name or name == "__main__":
            continue
        folders = [Path(each).resolve() for each in list(getattr(module, "__path__", None) or ())]
        file = getattr(module, "__file__", None)
        for each in folders or ([Path(file).resolve()] if isinstance(file, str) else []):
            if each.exists() and not any(each.is_relative_to(other) for other in others):
                roots.add(each)
    return outermost(roots)


def editable_sources(sites: Sites) -> tuple[Path, ...]:
    """A3: the folders that editable distributions refer to."""
    roots: set[Path] = set()
    for site in sites.installed:
        for file in sorted(site.glob("*.pth")):
            lines = file.read_text("utf-8", "replace").splitlines()
            roots.update(Path(each).resolve() for each in lines if each.startswith("/") and Path(each).is_dir())
        for file in sorted(site.glob("__editable___*_finder.py")):
            roots.update(Path(each).resolve() for each in _mapped(file.read_text("utf-8", "replace")))
    return outermost(roots)


def outermost(roots: Iterable[Path]) -> tuple[Path, ...]:
    """Of places within each other, the outer ones."""
    kept: list[Path] = []
    for each in sorted(set(roots)):
        if not any(each.is_relative_to(other) for other in kept):
            kept.append(each)
    return tuple(kept)


def is_searched(folder: Path) -> bool:
    """Whether what is in a folder within the sources is measured."""
    hidden = folder.name.startswith(".") or folder.name == "__pycache__"
    return not hidden and not (folder / "pyvenv.cfg").exists()


def is_code(name: str) -> bool:
    """Whether Python imports a file of this name, or is told by it what to import."""
    return name.endswith(CODE)


def _mapped(source: str) -> list[str]:
    """What setuptools' finder of an editable distribution maps packages to."""
    match = re.search(r"^MAPPING[^=]*=\s*(\{.*\})\s*$", source, re.MULTILINE)
    try:
        mapping = ast.literal_eval(match[1]) if match else {}
    except (ValueError, SyntaxError):
        return []
    return [each for each in mapping.values() if isinstance(each, str)]


def _unique(paths: Iterable[Path]) -> tuple[Path, ...]:
    return tuple(dict.fromkeys(each.resolve() for each in paths))


def _holds_distributions(path: Path) -> bool:
    return path.is_dir() and any(path.glob("*.dist-info"))


def _interpreter(sites: Sites, reader: Reader) -> Interpreter:
    if not sys.executable:
        raise ConfigurationError("This process does not know its interpreter; start it with python")
    standard: dict[str, list[str]] = {}
    for folder in sites.standard:
        for name, path in sorted(code_below(folder, {}, reader, ("site-packages", "dist-packages")).items()):
            first, _, rest = name.partition("/")
            standard.setdefault(first if rest else ".", []).append(f"{name}\0{reader.digest(path)}\n")
    library = Path(sysconfig.get_config_var("LIBDIR") or "/") / (sysconfig.get_config_var("INSTSONAME") or "-")
    shared = bool(sysconfig.get_config_var("Py_ENABLE_SHARED")) and library.exists()
    import _imp

    return Interpreter(
        implementation=sys.implementation.name,
        version=".".join(map(str, sys.version_info[:3])) + f"-{sys.version_info.releaselevel}",
        executable=_executable(reader),
        library=reader.digest(library.resolve()) if shared else None,
        standard={name: _digest_of("".join(lines)) or "" for name, lines in sorted(standard.items())},
        flags={
            **{name: int(getattr(sys.flags, name)) for name in _FLAGS},
            "check_hash_based_pycs": _imp.check_hash_based_pycs,
        },
    )


def _executable(reader: Reader) -> str:
    """The file that was started, and the one that runs if that is another: who starts a program says its name."""
    started, runs = Path(sys.executable).resolve(), Path("/proc/self/exe")
    digest = reader.digest(started)
    if not runs.exists() or runs.samefile(started):  # A6
        return digest
    other = reader.digest(runs)
    return digest if other == digest else _digest_of(f"{digest} {other}") or ""


def _distributions(sites: Sites, reader: Reader) -> tuple[dict[str, Distribution], dict[str, str]]:
    found: dict[str, Distribution] = {}
    known: set[str] = set()
    for site in sites.installed:
        each: Installed
        for each in distributions(path=[str(site)]):
            name = normal = re.sub(r"[-_.]+", "-", each.metadata["Name"] or "unnamed").lower()
            count = 1
            while name in found:  # of two with one name, the first is imported
                count += 1
                name = f"{normal} ({count})"
            found[name] = _distribution(each, site, reader, known)
    extra = {}
    for site in sites.installed:
        for name, path in sorted(code_below(site, {}, reader).items()):
            if str(path) not in known:  # [A2]
                extra[name] = reader.digest(path)
    return dict(sorted(found.items())), extra


def _distribution(installed: Installed, site: Path, reader: Reader, known: set[str]) -> Distribution:
    """A1."""
    lines, changed, missing = [], [], []
    for file in installed.files or ():
        path = Path(os.path.normpath(site / file))
        known.add(str(path))
        name = file.as_posix()
        if file.suffix == ".pyc" or (file.parent.suffix == ".dist-info" and file.name in _BY_INSTALLERS):
            continue
        try:
            digest = reader.digest(path)
        except FileNotFoundError:
            missing.append(name)
            continue
        if not _as_recorded(file, path, digest):
            changed.append(name)
        if not name.startswith("../"):  # scripts name the place of their interpreter
            lines.append(f"{name}\0{digest}\n")
    return Distribution(
        version=installed.version or "unknown",
        digest=_digest_of("".join(sorted(lines))) or "",
        files=len(lines),
        editable='"editable": true' in (installed.read_text("direct_url.json") or ""),
        changed=tuple(sorted(changed)),
        missing=tuple(sorted(missing)),
    )


def _as_recorded(file: PackagePath, path: Path, digest: str) -> bool:
    if file.hash is None:
        return True  # RECORD and what is written after it; part of the digest all the same
    found = bytes.fromhex(digest)
    if file.hash.mode != "sha256":
        if file.hash.mode not in ("sha384", "sha512"):
            return False
        found = hashlib.new(file.hash.mode, path.read_bytes()).digest()
    return base64.urlsafe_b64encode(found).decode().rstrip("=") == file.hash.value


def code_below(root: Path, folders: dict[str, Stamp], reader: Reader, without: tuple[str, ...] = ()) -> dict[str, Path]:
    """A4: the files of code in a folder, by their name below it; a single file is called ``.``.

    Args:
        root: The folder.
        folders: Gets what the folders looked like before they were read.
        reader: Gives way.
        without: Names of folders to leave out.
    """
    if not root.is_dir():
        return {".": root} if root.exists() else {}
    found: dict[str, Path] = {}
    waiting, visited = [root], set[tuple[int, int]]()
    while waiting:
        folder = waiting.pop()
        state = folder.stat()
        if (state.st_dev, state.st_ino) in visited:  # a link back
            continue
        visited.add((state.st_dev, state.st_ino))
        folders[str(folder)] = stamp_of(folder)
        reader.pause()
        with os.scandir(folder) as listed:
            entries = list(listed)
        for entry in entries:
            path = folder / entry.name
            if entry.is_dir():
                if entry.name not in without and is_searched(path):
                    waiting.append(path)
            elif is_code(entry.name) and entry.is_file():
                found[path.relative_to(root).as_posix()] = path
    return found


def _digest_of(text: str | None) -> str | None:
    return None if text is None else hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()

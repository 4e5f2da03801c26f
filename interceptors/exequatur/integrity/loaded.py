"""What Python has loaded, and where it would look for more: does it come from files that were measured?

Rules, numbered as the code marks them:

L1  A module that came from a file came from one that was measured.
L2  Where Python would rather load a compiled file than the source, that file holds what compiling the source gives.
L3  Nothing was added to ``sys.path`` that was not measured.
L4  What finds and loads modules are objects of measured classes, and their methods are those of the class.
L5  A source file from which a module was loaded was not changed between the look before and this one: what was loaded
    could be something else than what is there now. Of distributions this cannot be asked, because an installer that
    links their files into another place changes them as far as their times can tell.

"""

from __future__ import annotations

import marshal
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from exequatur.errors import UnreadableError
from exequatur.integrity.files import Reader

_HEADER = 16
"""Bytes before the code in a compiled file (PEP 552)."""
_COARSE = 20_000_000
"""Nanoseconds that the clock of a file system may be behind the clock of a process."""
_BEGAN = time.time_ns()
"""What was loaded before this cannot be told from what was loaded long ago."""


class Loaded:
    """Looks at what is loaded, at each module once.

    Args:
        known: Whether a file was measured, by its path.
        roots: Whether a folder is among those that were measured.
        source: Whether a file is one of the application's.
    """

    def __init__(
        self, known: Callable[[str], bool], roots: Callable[[Path], bool], source: Callable[[str], bool]
    ) -> None:
        self._known = known
        self._roots = roots
        self._source = source
        self._looked_at: dict[str, object] = {}
        self._since = _BEGAN - _COARSE
        self._places: set[str] | None = None
        self.files: set[str] = set()
        """Where the loaded modules came from."""
        self.compiled: dict[str, Path] = {}
        """The compiled files beside these, which need not be there, and what they are compiled from."""

    def changes(self, reader: Reader, modules: Mapping[str, object] | None = None) -> Iterator[str]:
        """What is loaded and was not measured, a sentence each.

        Args:
            reader: Reads compiled files.
            modules: By name; all that are loaded if left out.

        Raises:
            UnreadableError: A compiled file cannot be read now.
        """
        began = time.time_ns() - _COARSE
        for name, module in (loaded_modules() if modules is None else modules).items():
            if name in self._looked_at and self._looked_at[name] is module:
                continue
            yield from self._module(name, module, reader)
            self._looked_at[name] = module
            reader.pause()
        self._since = began
        places = {each for each in sys.path if isinstance(each, str)}
        for each in sorted(places - self._places) if self._places is not None else ():
            if not self._roots(Path(each or ".").resolve()):  # [L3]
                yield f"{each or '.'} was added to sys.path and is not measured"
        self._places = places | (self._places or set())
        yield from self._finders()

    def _module(self, name: str, module: object, reader: Reader) -> Iterator[str]:
        spec = getattr(module, "__spec__", None)
        file = getattr(module, "__file__", None) or getattr(spec, "origin", None)
        if not isinstance(file, str) or file in ("built-in", "frozen"):
            return
        path = Path(os.path.normpath(Path(file).absolute()))  # by the links under which it was measured
        if not self._known(str(path)):
            path = path.resolve()
        self.files.add(str(path))
        if not self._known(str(path)):  # [L1]
            yield f"module {name} was loaded from {path}, which is not measured"
            return
        if self._source(str(path)) and _changed_at(path) >= self._since:  # [L5]
            yield f"{path} was changed while module {name} was loaded"
        cached = getattr(spec, "cached", None)
        if not isinstance(cached, str) or path.suffix != ".py":
            return
        self.compiled[cached] = path
        try:
            reader.digest(Path(cached))
        except FileNotFoundError:
            return  # nothing was loaded from there
        if not is_compiled_from(path, Path(cached)):  # [L2]
            yield f"{cached} does not hold what its source is compiled to"

    def _finders(self) -> Iterator[str]:
        for each in (*sys.meta_path, *sys.path_hooks):
            place = getattr(each, "__module__", "") or ""
            module = sys.modules.get(place)
            file = getattr(module, "__file__", None)
            own = module is not None and (file is None or self._known(str(Path(file).resolve())))
            replaced = not isinstance(each, type) and {"find_spec", "find_module"} & set(getattr(each, "__dict__", ()))
            if not own or replaced:  # [L4]
                name = getattr(each, "__qualname__", type(each).__qualname__)
                yield f"{place}.{name} finds modules and is not measured"


def _changed_at(path: Path) -> int:
    try:
        return path.stat().st_ctime_ns  # which nobody can set back
    except OSError:
        return 0  # told when the files are looked at


def loaded_modules() -> dict[str, object]:
    """The modules that are loaded now, by name.

    Raises:
        UnreadableError: So many are being loaded that it cannot be told.
    """
    for _ in range(100):
        try:
            return dict(sys.modules)
        except RuntimeError:  # another thread imports
            continue
    raise UnreadableError("modules are being loaded")


def is_compiled_from(source: Path, compiled: Path) -> bool:
    """L2: whether a compiled file holds what compiling its source gives. One that is not there does no harm.

    Args:
        source: The source file.
        compiled: What Python would load instead.

    Raises:
        UnreadableError: One of them cannot be read now.
    """
    try:
        data = compiled.read_bytes()
        code = marshal.loads(data[_HEADER:])  # noqa: S302 (what Python itself would load)
        return bool(code == compile(source.read_bytes(), str(source), "exec", dont_inherit=True))
    except FileNotFoundError:
        return not compiled.exists()
    except OSError as err:
        raise UnreadableError(f"{compiled} cannot be read: {err.strerror}") from err
    except (ValueError, EOFError, TypeError, SyntaxError, RecursionError):
        return False

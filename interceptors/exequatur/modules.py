"""The user's own code, named by people as ``MODULE:NAME``."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from exequatur.errors import ConfigurationError


def imported(module: str) -> Any:
    """Import a module, also from the working directory.

    Raises:
        ConfigurationError: It cannot be imported, whatever it raised.
    """
    if "/" in module or module.endswith(".py"):
        parts = [part for part in module.removesuffix(".py").split("/") if part.strip(".")]
        step = f"did you mean {'.'.join(parts)}?" if parts else "name one, for example app.activities"
        raise ConfigurationError(f"{module} is a file, and a module is wanted; {step}")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(module)
    except (Exception, SystemExit) as error:
        step = _meant(module, error) if isinstance(error, ModuleNotFoundError) else ""
        raise ConfigurationError(f"{module}: cannot be imported: {type(error).__name__}: {error}{step}") from error


def _meant(module: str, error: ModuleNotFoundError) -> str:
    """The module that a misspelt name may mean, as the end of a sentence."""
    missing = error.name or ""
    if not f"{module}.".startswith(f"{missing}."):
        return ""  # It is there, and imports another one that is not.
    parent, _, last = missing.rpartition(".")
    places = list(getattr(sys.modules.get(parent), "__path__", ())) if parent else [str(Path.cwd())]
    known = [each.name for each in pkgutil.iter_modules(places)]
    if not parent:  # A folder of modules needs no __init__.py.
        known += [each.parent.name for each in Path.cwd().glob("*/*.py")]
    close = get_close_matches(last, known, 1)
    if not close:
        return "; name a module that can be imported from here"
    return f"; did you mean {parent}{'.' if parent else ''}{close[0]}{module.removeprefix(missing)}?"


def named(reference: str) -> Any:
    """What ``MODULE:NAME`` names.

    Raises:
        ConfigurationError: Nothing.
    """
    module, _, name = reference.partition(":")
    if not module or not name:
        raise ConfigurationError(f"{reference}: write it as MODULE:NAME, for example app.codec:converter")
    try:
        return getattr(imported(module), name)
    except AttributeError as error:
        raise ConfigurationError(f"{reference}: {module} has no {name}") from error

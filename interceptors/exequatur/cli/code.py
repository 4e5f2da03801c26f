"""The user's own code, named on the command line as ``MODULE:NAME``."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from temporalio.converter import DataConverter

from exequatur.audit.codec import load_converter
from exequatur.errors import ConfigurationError


def imported(module: str) -> Any:
    """Import a module, also from the working directory.

    Raises:
        ConfigurationError: It cannot be imported, whatever it raised.
    """
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(module)
    except Exception as error:
        raise ConfigurationError(f"{module}: cannot be imported: {type(error).__name__}: {error}") from error


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


def converter_of(reference: str) -> DataConverter:
    """The data converter that a reference names.

    Raises:
        ConfigurationError: It cannot be imported.
        EvidenceError: It names none.
    """
    imported(reference.partition(":")[0])
    return load_converter(reference)


def workflows_of(references: str) -> list[type]:
    """The workflow classes that ``MODULE[:CLASS],...`` names: of a module without a class, all that it has.

    Raises:
        ConfigurationError: There is none.
    """
    classes: dict[type, None] = {}
    for reference in filter(None, (part.strip() for part in references.split(","))):
        found = [named(reference)] if ":" in reference else list(vars(imported(reference)).values())
        workflows = [each for each in found if isinstance(each, type) and definition_of(each)]
        if not workflows:
            raise ConfigurationError(f"{reference}: has no class with @workflow.defn")
        classes |= dict.fromkeys(workflows)
    if not classes:
        raise ConfigurationError("--workflows names no module")
    return list(classes)


def definition_of(workflow: type) -> Any:
    """What ``@workflow.defn`` left on a class; its own, not that of a base class."""
    return vars(workflow).get("__temporal_workflow_definition")

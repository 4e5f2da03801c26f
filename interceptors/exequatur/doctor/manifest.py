"""The runtime manifest: whether it verifies, and whether it is of this machine's installation."""

from __future__ import annotations

from collections.abc import Iterator

from exequatur.doctor.finding import Finding, fine, problem, warning
from exequatur.errors import ConfigurationError, StatementError, UnreadableError
from exequatur.integrity.compare import differences
from exequatur.integrity.files import Reader
from exequatur.integrity.guard import Guard
from exequatur.integrity.measure import Plan, measure
from exequatur.settings import Settings

_SHOWN = 5


def examine_manifest(settings: Settings) -> Iterator[Finding]:
    """Measure this installation as a worker does at its start, where the settings name a manifest."""
    try:
        guard = Guard.open(settings, lambda _: None)
        if guard is None:
            return
        expected = guard.manifest.measurement
        found = differences(expected, measure(Plan.of(expected, settings.image_digest), Reader()).measurement)
    except (ConfigurationError, StatementError) as error:
        yield problem(
            "manifest", str(error), "Sign a manifest of this installation: exequatur integrity measure, sign."
        )
        return
    except (UnreadableError, OSError) as error:
        yield warning("manifest", f"what is installed could not be read: {error}", "Run this as the workers' user.")
        return
    step = "Find out who changed it. If it is meant: exequatur integrity measure, sign, and restart the workers."
    for text in found[:_SHOWN]:
        yield problem("manifest", text, step)
    if len(found) > _SHOWN:
        yield problem("manifest", f"{len(found) - _SHOWN} more differences", "Run: exequatur integrity verify")
    if not found:
        yield fine("manifest", f"this installation is what manifest {guard.manifest.digest[:12]} says")

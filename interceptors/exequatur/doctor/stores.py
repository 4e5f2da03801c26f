"""The databases: the evidence store and the shared state."""

from __future__ import annotations

from collections.abc import Iterator

from exequatur.doctor.deployment import Deployment
from exequatur.doctor.finding import Finding, fine, problem, warning
from exequatur.errors import ConfigurationError, EvidenceError, StoreUnavailableError


def examine_stores(deployment: Deployment) -> Iterator[Finding]:
    """Look at the databases that are configured; nothing is made or changed in them."""
    store = deployment.store or deployment.settings.evidence_store
    shared = deployment.settings.shared_state
    if store is None and shared is None:
        return
    try:
        from exequatur.lineage.ledger_schema import LAYOUT
        from exequatur.lineage.store_schema import STEPS, stored_version
    except ModuleNotFoundError as error:
        yield problem("store", f"{error.name} is not installed", "Run: pip install 'exequatur[store]'")
        return
    for check, setting, where, layout, newest in (
        ("store", "evidence_store", store, None, len(STEPS)),
        ("shared-state", "shared_state", shared, LAYOUT, len(LAYOUT.steps)),
    ):
        if where is None:
            continue
        try:
            name, version = stored_version(where, layout)
        except StoreUnavailableError as error:
            text, _, step = str(error).partition("; ")
            yield problem(check, text, f"{step[:1].upper()}{step[1:]}." if step else f"Correct {setting}.")
        except (ConfigurationError, EvidenceError) as error:
            yield problem(check, str(error), f"Correct {setting}.")
        else:
            yield _version(check, name, version, newest)


def _version(check: str, name: str, version: int, newest: int) -> Finding:
    if version == 0:
        return warning(check, f"{name}: is there, and has no tables yet", "The first worker that uses it makes them.")
    if version < newest:
        text = f"{name}: its tables are of version {version}, and this release has {newest}"
        return warning(check, text, "The next worker that opens it brings it up to date.")
    return fine(check, f"{name}: is there, with tables of version {version}")

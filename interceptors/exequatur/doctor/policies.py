"""The policies: whether they can be used, and whether they and the code know the same activities."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from exequatur.audit.wording import count
from exequatur.doctor.finding import Finding, fine, problem, warning
from exequatur.errors import ConfigurationError, PolicyError
from exequatur.policy.bundle import PolicyBundle
from exequatur.policy.conformance import unfit
from exequatur.policy.told import OWN_ACTIONS
from exequatur.release.file import BundleFile
from exequatur.release.keys import read_policy_keys
from exequatur.release.places import found, is_remote, place_of
from exequatur.release.signing import verify_bundle
from exequatur.settings import Settings

_SHOWN = 10
_SOON = 24 * 3600.0


def open_bundle(where: str, settings: Settings, now: float) -> tuple[PolicyBundle | None, list[Finding]]:
    """The policies that should be in force, verified as a worker does.

    Args:
        where: Folder, bundle file, or URL.
        settings: The policy keys and the name that is followed.
        now: Seconds since 1970.
    """
    try:
        if not is_remote(where) and Path(where).is_dir() and settings.policy_keys is None:
            bundle = PolicyBundle.from_folder(where)
            return bundle, list(_usable(bundle, where))
        with closing(place_of(where, settings.policy_name)) as place:
            place.look()
            data = found(place, "stable")
        if settings.policy_keys is None:
            bundle = PolicyBundle(BundleFile.read(data, where).open(where).source)
            return bundle, list(_usable(bundle, where))
        keys = read_policy_keys(Path(settings.policy_keys))
        leeway = settings.clock_leeway.total_seconds()
        bundle, released = verify_bundle(
            data, where, keys, follows=settings.policy_name, channel="stable", now=now, leeway=leeway
        )
    except (PolicyError, ConfigurationError) as error:
        return None, [
            problem("policies", str(error), "Correct it; workers keep what they have, and new ones do not start.")
        ]
    findings = list(_usable(bundle, where))
    if released.expires is not None and released.expires <= now + _SOON:
        text = f"the release of {where} ends within {max(0.0, released.expires - now) / 3600:.0f} hours"
        findings.append(warning("release", text, "Sign the bundle again."))
    return bundle, findings


def _usable(bundle: PolicyBundle, where: str) -> Iterator[Finding]:
    if bundle.fault:
        yield problem(
            "policies", f"{where} is not fit to decide: {bundle.fault}", f"Run: exequatur policy check {where}"
        )
        return
    yield fine("policies", f"{where}: {len(bundle.policies)} policies, bundle {bundle.digest[:12]}")
    for text in bundle.warnings:
        yield warning("policies", f"{where}: {text}", f"Run: exequatur policy check {where}")


def examine_actions(bundle: PolicyBundle, activities: Mapping[str, Callable[..., Any]]) -> Iterator[Finding]:
    """Compare the activities of the code with the actions of the policies."""
    try:
        model, differences = bundle.model, unfit(bundle, activities)
    except PolicyError as error:
        yield problem("actions", str(error), "Correct the schema.")
        return
    if model is None:
        text = "the policies have no schema, so nothing says which activities they know"
        yield warning("actions", text, "Run: exequatur policy schema --from MODULE")
    for text in differences[:_SHOWN]:
        yield problem(
            "actions", text.partition("; run:")[0], "Run: exequatur policy schema --from MODULE, and release it."
        )
    never = [name for name in sorted(activities) if not differences and not _permitted(bundle, name)]
    for name in never[:_SHOWN]:
        yield problem("actions", f"{name}: no policy permits it, so it is always denied", "Write a permit for it.")
    if model is not None:
        known = {name for name, action in model.actions.items() if action.principals is not None}
        for name in sorted(known - OWN_ACTIONS - activities.keys())[:_SHOWN]:
            text = f"{name}: the policies know it, and the code named here has no such activity"
            yield warning("actions", text, "Name all modules with activities, or take the action out of the schema.")
    if not differences and not never:
        said = "some policy permits each of" if model is None else "the policies know all"
        yield fine("actions", f"{said} {count(len(activities), 'activity', 'activities')}")


def unasked(activities: Mapping[str, Callable[..., Any]]) -> Finding:
    """That there is nothing to compare the activities with."""
    text = f"{count(len(activities), 'activity', 'activities')} of the code, and no policies to compare them with"
    return warning("actions", text, "Name what the workers follow: --policies FOLDER, bundle file or URL.")


def _permitted(bundle: PolicyBundle, action: str) -> bool:
    return any(bundle.policies[policy].effect == "permit" for policy in bundle.applicable(action))

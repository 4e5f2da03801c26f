"""What a run forbids itself: Cedar texts that came signed with a request or delegation, asked besides the bundle.

Rules:

L1  A text holds forbids and nothing else: no permit, no template, and at least one policy.
L2  It is read as strictly as the bundle in force: with that one's schema it has to validate.
L3  A text that breaks L1 or L2 denies, whatever it is about.
L4  It is decided as strictly as the bundle (rules E of :mod:`exequatur.policy.engine`), with its entities.
L5  Of the gate's own questions only those forbids count that name the action or a group of it: the others are about
    activities, and what they read is not there.
L6  A restriction allows nothing: where the bundle denies, that is the answer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from cedarpy import policies_to_pst

from exequatur.errors import PolicyError
from exequatur.policy.actions import scope_of
from exequatur.policy.arguments import Conversion
from exequatur.policy.bundle import PolicyBundle
from exequatur.policy.engine import MAX_ERROR_LENGTH, PolicyRef, Verdict, decide
from exequatur.policy.source import BundleSource, SourceFile
from exequatur.policy.told import OWN_ACTIONS

PREFIX = "restriction/"
"""Before the names of these policies, which are not in the bundle."""
HELD_TO, UNUSABLE = "The run is held to this restriction", "A restriction of the run cannot be used"
"""How a denial by one begins."""
_CACHED = 32
"""Each holds the entities of a bundle once more."""
_PERMIT = SourceFile("the permit beside it", "permit(principal, action, resource);")


@dataclass(frozen=True, slots=True)
class ForbidBundle:
    """A text, ready to be asked.

    Args:
        all: Its forbids beside a permit of everything.
        naming: Those of them that name actions, likewise; ``None`` if there is none.
        fault: Why it cannot be asked.
    """

    all: PolicyBundle | None = None
    naming: PolicyBundle | None = None
    fault: str | None = None


@dataclass(frozen=True)
class _Wanted:
    digest: str
    text: str
    source: BundleSource = field(compare=False)


def forbid_bundle(bundle: PolicyBundle, text: str) -> ForbidBundle:
    """Read a text against the schema and entities of a bundle.

    Args:
        bundle: The policies in force.
        text: Cedar policies.
    """
    return _read(_Wanted(bundle.digest, text, bundle.source))


def held_to(
    bundle: PolicyBundle,
    forbid: Sequence[str],
    verdict: Verdict,
    principal_entity: Mapping[str, Any],
    action: str,
    resource: Mapping[str, str],
    arguments: Conversion,
    facts: Mapping[str, Any],
) -> Verdict:
    """Return what becomes of the bundle's answer under a restriction.

    Args:
        bundle: The policies in force.
        forbid: Cedar texts.
        verdict: What the bundle says.
        principal_entity: As the bundle was given it, and so are the others.
        action: Id of the action.
        resource: What it is done to.
        arguments: The converted arguments.
        facts: The other attributes of the context.

    Returns:
        The same answer, or a denial; either with all of the arguments that were read for it.
    """
    if not verdict.allowed:  # [L6]
        return verdict
    reads = set(bundle.reads(action))
    for text in forbid:
        asked = forbid_bundle(bundle, text)
        if asked.fault is not None:  # [L3]
            return _denied(verdict, f"{UNUSABLE}: {asked.fault}", fault=True)
        rules = asked.naming if action in OWN_ACTIONS else asked.all  # [L5]
        if rules is None:
            continue
        reads |= rules.reads(action)
        said = decide(rules, principal_entity, {"type": "Action", "id": action}, resource, arguments, facts)  # L4
        verdict = replace(verdict, arguments=arguments.given(reads))
        if not said.allowed:
            refs = tuple(PolicyRef(PREFIX + ref.id, ref.reason) for ref in said.policies)
            why = ": ".join([HELD_TO, *said.errors])
            return _denied(verdict, why, refs, fault=said.fault is not None)
    return verdict


def _denied(verdict: Verdict, why: str, refs: tuple[PolicyRef, ...] = (), *, fault: bool) -> Verdict:
    why = why[:MAX_ERROR_LENGTH]
    return replace(verdict, allowed=False, policies=refs, errors=(why,), ttl=None, fault=why if fault else None)


@lru_cache(_CACHED)
def _read(wanted: _Wanted) -> ForbidBundle:
    try:
        return _checked(wanted)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # [L3] a panic in Cedar's native code is not an Exception
        known = isinstance(error, PolicyError)
        return ForbidBundle(fault=str(error) if known else f"it could not be read ({type(error).__name__})")


def _checked(wanted: _Wanted) -> ForbidBundle:
    whole = _beside_permit(wanted.source, wanted.text)
    count = len(whole.policies) - 1
    if count < 1 or len(whole.located) != count + 1:  # [L1]
        return ForbidBundle(fault="it holds no policy, or a template, which forbids nothing")
    ids = list(whole.policies)[:-1]
    if any(whole.policies[policy_id].effect != "forbid" for policy_id in ids):  # [L1]
        return ForbidBundle(fault="it holds something else than forbids")
    texts = (whole.located[policy_id].text for policy_id in ids)
    named = [text for text in texts if _names_actions(text)]
    return ForbidBundle(whole, _beside_permit(wanted.source, "\n".join(named)) if named else None)


def _beside_permit(source: BundleSource, text: str) -> PolicyBundle:
    files = (SourceFile("restriction", text), _PERMIT)
    return PolicyBundle(BundleSource(files, source.schema, source.entities))


def _names_actions(text: str) -> bool:
    [node] = policies_to_pst(text).static_policies.values()
    return scope_of(node).actions is not None

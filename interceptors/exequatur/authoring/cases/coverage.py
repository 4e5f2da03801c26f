"""What policy tests show of each policy: that it decides where it should, and stands aside where it should.

Rules:

G1  Only cases that passed count; one that fails shows nothing.
G2  A policy decided where the answer names it. It stood aside where its scope admits the action and its condition, or
    the rest of its scope, does not hold. A permit that holds and is overruled by a forbid did neither.
G3  A policy is covered if it did both, or if it did the one thing that it can do: one that is restricted in nothing but
    the action never stands aside.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import cedarpy
from cedarpy import pst

from exequatur.authoring.cases.case_entities import bundle_with
from exequatur.authoring.cases.results import CaseResult, Results
from exequatur.authoring.request import ask
from exequatur.policy.bundle import PolicyBundle
from exequatur.policy.source import SourceFile


@dataclass(frozen=True)
class PolicyCoverage:
    """What the cases show of one policy.

    Args:
        id: Its ``@id``.
        effect: permit or forbid.
        where: File, line and column.
        decided: Cases that it decided: an allow for a permit, a deny for a forbid.
        aside: Cases of its actions in which it does not hold.
        overruled: Cases in which a permit holds and a forbid decided.
        unrestricted: It holds whoever asks for its actions and in whatever circumstances.
    """

    id: str
    effect: Literal["permit", "forbid"]
    where: str
    decided: int
    aside: int
    overruled: int
    unrestricted: bool

    @property
    def covered(self) -> bool:
        """Whether the cases show both directions (G3)."""
        return self.decided > 0 and (self.aside > 0 or self.unrestricted)

    @property
    def missing(self) -> str | None:
        """The case that is missing, in words."""
        wanted = []
        if not self.decided:
            wanted.append("it allows" if self.effect == "permit" else "it denies")
        if not self.aside and not self.unrestricted:
            wanted.append("it stands aside")
        return f"no case in which {', and none in which '.join(wanted)}" if wanted else None


def coverage(bundle: PolicyBundle, results: Results) -> tuple[PolicyCoverage, ...]:
    """Return what the cases show of each policy, in the order of the bundle.

    Args:
        bundle: The bundle that the cases were asked of.
        results: What came of them.
    """
    permits = _permits(bundle)
    decided: Counter[str] = Counter()
    aside: Counter[str] = Counter()
    overruled: Counter[str] = Counter()
    for result in results.of("passed"):  # [G1]
        if result.asked is None or result.verdict is None or result.verdict.errors:
            continue
        named = {policy.id for policy in result.verdict.policies}
        # Where a forbid decides, the answer does not say which permits hold; without the forbids it does.
        holding = named if result.verdict.allowed else named | permits.holding(result)
        for policy_id in bundle.applicable(result.asked.action):  # [G2]
            name = bundle.policies[policy_id].id
            (decided if name in named else overruled if name in holding else aside)[name] += 1
    return tuple(
        PolicyCoverage(
            id=info.id,
            effect=info.effect,
            where=str(bundle.located.get(policy_id, policy_id)),
            decided=decided[info.id],
            aside=aside[info.id],
            overruled=overruled[info.id],
            unrestricted=_unrestricted(bundle, policy_id),
        )
        for policy_id, info in bundle.policies.items()
    )


@dataclass(frozen=True)
class _Permits:
    """The permits of a bundle without its forbids; ``names`` tells how they are called in the whole bundle."""

    bundle: PolicyBundle
    names: Mapping[str, str]

    def holding(self, result: CaseResult) -> frozenset[str]:
        """Return the permits that hold in a case."""
        if result.asked is None:
            return frozenset()
        answer = ask(bundle_with(self.bundle, result.case.entities), result.asked)
        return frozenset(self.names[policy.id] for policy in answer.policies)


def _permits(bundle: PolicyBundle) -> _Permits:
    ids = [each for each, info in bundle.policies.items() if info.effect == "permit" and each in bundle.located]
    texts = "\n".join(bundle.located[each].text for each in ids)
    alone = PolicyBundle(replace(bundle.source, policies=(SourceFile("permits", texts),)))
    # One without an @id is called by its position.
    names = {info.id: bundle.policies[each].id for each, info in zip(ids, alone.policies.values(), strict=True)}
    return _Permits(alone, names)


def _unrestricted(bundle: PolicyBundle, policy_id: str) -> bool:
    if policy_id not in bundle.located:
        return False
    (policy,) = cedarpy.policies_to_pst(bundle.located[policy_id].text).static_policies.values()
    return (
        not policy.clauses and isinstance(policy.principal, pst.ScopeAny) and isinstance(policy.resource, pst.ScopeAny)
    )

"""A bundle's policies by action: which can apply, what they can read, and a set of just those for Cedar.

Rules:

N1  A policy is left out only where its scope excludes the action: Cedar finds such a policy unsatisfied whatever its
    conditions say, so that the answer, its reasons and its errors are those of all policies.
N2  An action that was not foreseen, or that is written in a way not known here, is asked of all policies.
N3  What the known actions need is computed when the bundle is loaded, in steps that let other threads go on; a decision
    only looks it up.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from cedarpy import PolicySet, pst

from exequatur.policy.entities import ACTION_TYPE, Uid
from exequatur.policy.reads import Path, fact_reads, reads_and_contents

#: Distinct actions that are remembered; a worker has at most some hundred activity types.
_MAX_ACTIONS = 4096
#: The largest part of a bundle that is worth a slice: two sets in turn are further from the processor than one.
_WORTH = 0.75
#: What all slices may hold together, in times the bundle: a policy for a group of actions stands in many of them.
_MAX_COPIES = 4
#: Smaller slices are parsed in about a millisecond. To ask for the interpreter again would take longer than that.
_SHORT = 25

_PLAIN_ACTION = re.compile(r'Action::"([^"\\]*)"')
_FAILED = re.compile(r"(error while evaluating policy `)(policy\d+)(?=`)")


@dataclass(frozen=True, slots=True)
class Scope:
    """What is remembered of a policy.

    Args:
        actions: The actions and groups that its scope names; None where it may admit every action.
        reads: Argument paths that it can read; ``()`` means all of them.
        contents: Those of which it reads more than whether they are there.
        facts: Attributes of ``context`` that it can read; None means any.
    """

    actions: tuple[Uid, ...] | None
    reads: frozenset[Path]
    contents: frozenset[Path]
    facts: frozenset[str] | None


@dataclass(frozen=True, slots=True)
class ActionPolicies:
    """What decides about one action.

    Args:
        ids: Cedar ids of the policies that can apply, in the order of the bundle.
        reads: Argument paths that they can read; ``()`` means all of them.
        contents: Those of which they read more than whether they are there.
        facts: Attributes of ``context`` that they can read; None means any.
    """

    ids: tuple[str, ...]
    reads: frozenset[Path]
    contents: frozenset[Path]
    facts: frozenset[str] | None


@dataclass(frozen=True, slots=True)
class Slice:
    """Policies to ask Cedar with.

    Args:
        policies: The parsed set.
        ids: Their ids in the bundle, in order; None if they are the bundle's.
    """

    policies: PolicySet
    ids: tuple[str, ...] | None = None

    def reason(self, policy_id: str) -> str:
        """Return the bundle's id of a policy that Cedar names."""
        return policy_id if self.ids is None else self.ids[int(policy_id.removeprefix("policy"))]

    def error(self, message: str) -> str:
        """Return an error of Cedar's with the bundle's id of the policy."""
        return _FAILED.sub(lambda match: match[1] + self.reason(match[2]), message, count=1)


class ActionIndex:
    """The policies of a bundle by action.

    Args:
        scopes: What the policies are about, by Cedar id, in the order of the bundle; None where that cannot be told.
        whole: All of them, parsed.
        texts: The text of each, for slices; none where the texts cannot be told apart.
        groups_of: An action's id to itself and the groups that contain it.
        declared: Ids of the actions that are declared.
    """

    def __init__(
        self,
        scopes: Mapping[str, Scope] | None,
        whole: PolicySet,
        texts: Mapping[str, str],
        groups_of: Callable[[str], frozenset[Uid]],
        declared: Iterable[str],
    ) -> None:
        self._scopes = scopes
        self._whole = Slice(whole)
        self._groups_of = groups_of
        self._position = {policy_id: index for index, policy_id in enumerate(scopes or ())}
        self._always: list[str] = []
        self._by_action: defaultdict[Uid, list[str]] = defaultdict(list)
        for policy_id, scope in (scopes or {}).items():
            if scope.actions is None:  # [N1]
                self._always.append(policy_id)
            for uid in scope.actions or ():
                self._by_action[uid].append(policy_id)
        self.of = lru_cache(_MAX_ACTIONS)(self._of)
        named = {uid[1] for uid in self._by_action if uid[0] == ACTION_TYPE}
        self._slices = self._sliced(sorted(named | set(declared))[:_MAX_ACTIONS], texts)  # N3

    def slice_for(self, action: Any) -> Slice:
        """Return policies that answer as all of them do.

        Args:
            action: The action of a request: ``{"type": ..., "id": ...}`` or ``'Action::"..."'``.
        """
        if isinstance(action, str):
            match = _PLAIN_ACTION.fullmatch(action)
            return self._slices.get(match.group(1), self._whole) if match else self._whole  # N2
        try:
            return self._slices.get(action["id"], self._whole) if action["type"] == ACTION_TYPE else self._whole  # N2
        except (KeyError, TypeError):
            return self._whole

    def _of(self, action_id: str) -> ActionPolicies:
        """Return what decides about an action."""
        if self._scopes is None:
            return ActionPolicies((), frozenset({()}), frozenset({()}), None)
        found = set(self._always)
        for uid in self._groups_of(action_id):
            found.update(self._by_action.get(uid, ()))  # [N1]
        ids = tuple(sorted(found, key=self._position.__getitem__))
        scopes = [self._scopes[policy_id] for policy_id in ids]
        facts = [scope.facts for scope in scopes if scope.facts is not None]
        return ActionPolicies(
            ids,
            frozenset().union(*(scope.reads for scope in scopes)),
            frozenset().union(*(scope.contents for scope in scopes)),
            frozenset().union(*facts) if len(facts) == len(scopes) else None,
        )

    def reads_fact(self, name: str) -> bool:
        """Tell whether a policy can read an attribute of ``context``, whatever the action."""
        scopes = self._scopes
        return scopes is None or any(each.facts is None or name in each.facts for each in scopes.values())

    def _sliced(self, actions: list[str], texts: Mapping[str, str]) -> dict[str, Slice]:
        slices: dict[str, Slice] = {}
        shared: dict[tuple[str, ...], Slice] = {}
        left = _MAX_COPIES * len(texts)
        for action_id in actions if texts else ():
            ids = self.of(action_id).ids
            if ids not in shared and len(ids) <= min(_WORTH * len(texts), left):
                left -= len(ids)
                text = "\n".join(texts[policy_id] for policy_id in ids)
                shared[ids] = Slice(PolicySet.from_str(text, release_gil=len(ids) > _SHORT), ids)
            if ids in shared:
                slices[action_id] = shared[ids]
        return slices


def scope_of(policy: pst.Template) -> Scope:
    """Return what is remembered of a policy."""
    return Scope(_actions(policy.action), *reads_and_contents([policy]), fact_reads([policy]))


def _actions(constraint: pst.ActionConstraint) -> tuple[Uid, ...] | None:
    if isinstance(constraint, pst.ActionEq):
        return (_uid(constraint.entity),)
    if isinstance(constraint, pst.ActionIn):
        return tuple(map(_uid, constraint.entities))
    return None  # what a later Cedar adds among them


def _uid(entity: pst.EntityUid) -> Uid:
    return str(entity.type), entity.id

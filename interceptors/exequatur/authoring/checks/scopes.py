"""Rules about policies together: names, policies that others make superfluous, actions that nobody can run."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from cedarpy import pst

from exequatur.authoring.checks.findings import Finding, finding
from exequatur.authoring.checks.folding import Constant
from exequatur.authoring.checks.lint import never, unconditional
from exequatur.authoring.checks.reading import ReadPolicy
from exequatur.authoring.checks.texts import Text
from exequatur.authoring.checks.world import World, is_own, uid_of_node
from exequatur.authoring.expression import Part, reference
from exequatur.policy.entities import Uid
from exequatur.policy.told import START_ACTION

#: Policies that are compared with one; those of a kind are hardly ever more.
_MAX_COMPARED = 50

Constants = Mapping[Part, Constant]
_Key = tuple[str, Uid | None, int | None, pst.PrincipalOrResourceConstraint]


def names(policies: Sequence[ReadPolicy]) -> Iterator[Finding]:
    """Find ids that two policies share, or that are another policy's position."""
    positions = {policy.position: policy for policy in policies if policy.name == policy.position}
    first: dict[str, ReadPolicy] = {}
    for policy in policies:
        own = policy.node.annotations.get("id", "")
        if not own:
            continue
        place = policy.annotation("id")
        other = positions.get(own)
        if own in first:
            yield policy.found(
                "duplicate-id",
                f'@id("{own[:80]}") is already the id of {_where(first[own])}',
                "give it another @id",
                at=place,
            )
        elif other is not None and other is not policy:
            yield policy.found(
                "shadowed-id",
                f'@id("{own[:80]}") is what {_where(other)} is called by its position',
                "give it another @id, and the other one an @id",
                at=place,
            )
        first.setdefault(own, policy)


def shadowed(policies: Sequence[ReadPolicy], world: World, constants: Constants) -> Iterator[Finding]:
    """Find policies that make no difference because of another one."""
    index = _Index([policy for policy in policies if not policy.template], world, constants)
    for one in index.scoped:
        if never(one.policy, constants):
            continue
        for other in index.wider(one, one.policy.node.effect):
            if not _same_terms(one, other):
                continue
            equal = index.covers(one, other)
            if equal and one.policy.written.index < other.policy.written.index:
                continue
            says = "says the same" if equal else "says the same of more requests"
            yield one.policy.found("shadowed", f"{_where(other.policy)} {says}", "remove one of the two")
            break
        else:
            if one.policy.node.effect == "permit":
                wider = next(iter(index.wider(one, "forbid")), None)
                if wider is not None:
                    yield one.policy.found(
                        "shadowed",
                        f"this permit never allows anything: {_where(wider.policy)} forbids all of it",
                        "remove one of the two, or restrict the forbid",
                    )


def unused(policies: Sequence[ReadPolicy], world: World, constants: Constants, schema: Text) -> Iterator[Finding]:
    """Find activities that no permit can apply to, unless a forbid without conditions says that this is meant."""
    reachable: set[Uid] = set()
    for policy in policies:
        if policy.template:
            continue
        forbidden = policy.node.effect == "forbid" and not isinstance(policy.node.action, pst.ScopeAny)
        if forbidden and not (isinstance(policy.node.principal, pst.ScopeAny) and unconditional(policy, constants)):
            continue
        if (policy.node.effect == "permit" and not never(policy, constants)) or forbidden:
            reachable |= {uid for uid in world.covered(policy.node.action) if _acts(policy.node.principal, world, uid)}
    for uid, declared in world.actions.items():
        if uid in reachable or (is_own(uid) and uid[1] != START_ACTION):
            continue
        effect = "no workflow can be started" if uid[1] == START_ACTION else "nobody can ever run it"
        start = declared.offset if not schema.text.lstrip().startswith("{") else max(0, schema.text.find(f'"{uid[1]}"'))
        yield finding(
            "unused-action",
            schema,
            start,
            start + len(uid[1]),
            f"no permit can apply to {reference(*uid)}, so {effect}",
            "write a permit for it, or forbid it without conditions if that is meant",
        )


def _acts(scope: pst.PrincipalOrResourceConstraint, world: World, uid: Uid) -> bool:
    principals = world.actions[uid].principals or ()
    if isinstance(scope, pst.ScopeIs | pst.ScopeIsIn):
        return str(scope.entity_type) in principals
    if isinstance(scope, pst.ScopeEq) and isinstance(scope.entity, pst.EntityUid):
        return str(scope.entity.type) in principals
    return True


@dataclass(frozen=True, eq=False)
class _Scoped:
    """A policy with its conditions, except those that are always met, as numbers: a comparison is then cheap."""

    policy: ReadPolicy
    conditions: frozenset[int]


class _Index:
    """Policies by what a narrower one would look them up with."""

    def __init__(self, policies: Sequence[ReadPolicy], world: World, constants: Constants) -> None:
        self._world = world
        self._scopes: dict[pst.PrincipalOrResourceConstraint, frozenset[pst.PrincipalOrResourceConstraint]] = {}
        numbers: dict[Part, int] = {}
        self.scoped = [
            _Scoped(
                policy,
                frozenset(
                    numbers.setdefault(part, len(numbers))
                    for part, _ in policy.conditions
                    if constants.get(part) != "true"
                ),
            )
            for policy in policies
        ]
        often = Counter(number for each in self.scoped for number in each.conditions)
        self._by_key: defaultdict[_Key, list[_Scoped]] = defaultdict(list)
        for each in self.scoped:
            node = each.policy.node
            rarest = min(each.conditions, key=lambda number: (often[number], number), default=None)
            for action in _actions(node.action) or (None,):
                found = self._by_key[node.effect, action, rarest, node.principal]
                if len(found) < _MAX_COMPARED:
                    found.append(each)
        self._keys = {key[:3] for key in self._by_key}

    def wider(self, one: _Scoped, effect: str) -> list[_Scoped]:
        """Return the policies of an effect that apply wherever this one does, in the order of the bundle."""
        found = {each.policy.position: each for each in self._wider(one, effect)}
        return sorted(found.values(), key=lambda each: each.policy.written.index)

    def _wider(self, one: _Scoped, effect: str) -> Iterator[_Scoped]:
        node = one.policy.node
        named = _actions(node.action)
        principals = self._wider_scopes(node.principal)
        for action in (None, *(self._world.above(named[0]) if named else ())):
            for condition in (None, *one.conditions):
                if (effect, action, condition) not in self._keys:
                    continue
                for principal in principals:
                    for other in self._by_key.get((effect, action, condition, principal), ()):
                        if other is not one and self.covers(other, one):
                            yield other

    def covers(self, wide: _Scoped, narrow: _Scoped) -> bool:
        """Tell whether one policy applies wherever another one does."""
        first, second = wide.policy.node, narrow.policy.node
        return (
            wide.conditions <= narrow.conditions
            and first.principal in self._wider_scopes(second.principal)
            and first.resource in self._wider_scopes(second.resource)
            and self._covers_actions(first.action, second.action)
        )

    def _covers_actions(self, wide: pst.ActionConstraint, narrow: pst.ActionConstraint) -> bool:
        if isinstance(wide, pst.ScopeAny) or wide == narrow:
            return True
        targets = _actions(narrow)
        if not targets or isinstance(wide, pst.ActionEq):
            return False
        groups = set(_actions(wide))
        return all(groups & self._world.above(target) for target in targets)

    def _wider_scopes(self, scope: pst.PrincipalOrResourceConstraint) -> frozenset[pst.PrincipalOrResourceConstraint]:
        if scope not in self._scopes:
            self._scopes[scope] = frozenset(self._generalized(scope))
        return self._scopes[scope]

    def _generalized(self, scope: pst.PrincipalOrResourceConstraint) -> Iterator[pst.PrincipalOrResourceConstraint]:
        yield pst.ScopeAny()
        yield scope
        kind = getattr(scope, "entity_type", None)
        entity = getattr(scope, "entity", None)
        if isinstance(entity, pst.EntityUid):
            if isinstance(scope, pst.ScopeEq):
                kind = entity.type
            for uid in self._world.above(uid_of_node(entity)):
                yield pst.ScopeIn(_node(uid))
                if kind is not None:
                    yield pst.ScopeIsIn(kind, _node(uid))
        if kind is not None:
            yield pst.ScopeIs(kind)


def _node(uid: Uid) -> pst.EntityUid:
    *namespace, name = uid[0].split("::")
    return pst.EntityUid(pst.EntityType(name, tuple(namespace)), uid[1])


def _actions(scope: pst.ActionConstraint) -> tuple[Uid, ...]:
    if isinstance(scope, pst.ActionEq):
        return (uid_of_node(scope.entity),)
    return tuple(map(uid_of_node, scope.entities)) if isinstance(scope, pst.ActionIn) else ()


def _same_terms(narrow: _Scoped, wide: _Scoped) -> bool:
    """Whether the narrower policy also adds nothing by its annotations."""
    own, other = narrow.policy.node.annotations, wide.policy.node.annotations
    return all(own.get(name) in (None, other.get(name)) for name in ("ttl", "approval"))


def _where(policy: ReadPolicy) -> str:
    place = policy.written.file.place(policy.written.start)
    return f"{policy.name[:80]} ({policy.written.file.name}:{place})"

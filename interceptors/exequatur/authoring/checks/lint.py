"""Rules about one policy at a time: what it says is sound Cedar, and probably not meant."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from cedarpy import pst

from exequatur.authoring.checks.findings import Finding, did_you_mean, is_slip_of
from exequatur.authoring.checks.folding import Constant, contradiction
from exequatur.authoring.checks.guards import Guards
from exequatur.authoring.checks.locate import Span, accesses
from exequatur.authoring.checks.reading import ReadPolicy
from exequatur.authoring.checks.world import World, is_action, is_own, uid_of_node
from exequatur.authoring.expression import Part, chain_of, chains_in, reference, written
from exequatur.policy.approval import parse_approval
from exequatur.policy.entities import Uid
from exequatur.policy.reads import argument_reads
from exequatur.policy.syntax import unquoted

#: As the bundle reads it.
_TTL = re.compile(r"[1-9][0-9]{0,6}[smh]")
#: Annotations that the gate reads; others are the author's own.
_ANNOTATIONS = ("id", "reason", "ttl", "approval")
_ARITHMETIC = frozenset({"add", "sub", "mul", "neg"})
_EXTENSIONS = frozenset({"decimal", "ip", "datetime", "duration"})
#: Facts that the gate counts; they stay far below 64 bits.
_COUNTED = frozenset({"activity", "run", "worker", "behavior", "acting", "approvals"})
_MAX_SHOWN = 80

Lint = Callable[[ReadPolicy, World, Mapping[Part, Constant]], Iterator[Finding]]


def lint(policy: ReadPolicy, world: World, constants: Mapping[Part, Constant]) -> Iterator[Finding]:
    """Look at one policy.

    Args:
        policy: The policy.
        world: What it may refer to.
        constants: Conditions that are the same for every request.
    """
    for rule in _LINTS:
        yield from rule(policy, world, constants)


def unconditional(policy: ReadPolicy, constants: Mapping[Part, Constant]) -> bool:
    """Tell whether a policy has no condition that a request could fail."""
    return all(constants.get(part) == "true" for part, _ in policy.conditions)


def never(policy: ReadPolicy, constants: Mapping[Part, Constant]) -> bool:
    """Tell whether the conditions of a policy cannot all be met."""
    return any(constants.get(part) in ("false", "error") for part, _ in policy.conditions) or (
        contradiction([part for part, _ in policy.conditions]) is not None
    )


def _template(policy: ReadPolicy, _: World, __: Mapping[Part, Constant]) -> Iterator[Finding]:
    if policy.template:
        slots = " and ".join(f"?{name}" for name in ("principal", "resource") if _has_slot(getattr(policy.node, name)))
        yield policy.found(
            "template", f"{slots} is never filled in", "name the entity in its place, or remove the policy"
        )


def _missing_id(policy: ReadPolicy, _: World, __: Mapping[Part, Constant]) -> Iterator[Finding]:
    if not policy.node.annotations.get("id", ""):
        start = policy.written.start
        yield policy.found(
            "missing-id",
            f"without @id, denials and receipts call this policy {policy.position}",
            'write @id("…") above it',
            at=(start, policy.written.words[0].end),
        )


def _unknown_annotation(policy: ReadPolicy, _: World, __: Mapping[Part, Constant]) -> Iterator[Finding]:
    for written_name in sorted(policy.node.annotations.keys() - set(_ANNOTATIONS)):
        meant = next((each for each in _ANNOTATIONS if is_slip_of(written_name, each)), None)
        if meant is not None:
            yield policy.found(
                "unknown-annotation",
                f"@{written_name[:_MAX_SHOWN]} has no effect",
                f"did you mean @{meant}?",
                at=_annotation_name(policy, written_name),
            )


def _ttl(policy: ReadPolicy, _: World, __: Mapping[Part, Constant]) -> Iterator[Finding]:
    text = policy.node.annotations.get("ttl")
    if text is not None and _TTL.fullmatch(text) is None:
        yield policy.found(
            "ttl",
            f'@ttl("{text[:_MAX_SHOWN]}") is no duration',
            'write for example "30s", "5m" or "1h"',
            at=policy.annotation("ttl"),
        )


def _approval(policy: ReadPolicy, world: World, _: Mapping[Part, Constant]) -> Iterator[Finding]:
    text = policy.node.annotations.get("approval")
    if text is None:
        return
    place = policy.annotation("approval")
    try:
        wanted = parse_approval(text)
    except ValueError as error:
        yield policy.found("approval", f"@approval {error}", at=place)
        return
    vouched = "or allow this rule here if grants vouch for its members"
    if not world.has_entities:
        yield policy.found(
            "approval",
            f"without entities.json nobody is known to be in {wanted.group}",
            f"add entities.json with the group and its members, {vouched}",
            at=place,
            warning=True,
        )
        return
    named = [uid for uid in world.entities if wanted.group in (uid[1], f"{uid[0]}::{uid[1]}")]
    groups = [uid for uid in named if uid[0] in world.group_types] or named
    if not groups:
        known = sorted(uid[1] for uid in world.entities if uid[0] in world.group_types)
        close = get_close_matches(wanted.group, known, 1)
        yield policy.found(
            "approval",
            f"nobody can give this approval: entities.json has no {wanted.group}",
            f"did you mean {close[0]}?" if close else f"add the group and its members to entities.json, {vouched}",
            at=place,
        )
        return
    members = {uid for group in groups for uid in world.members(group)}
    if len(members) < wanted.quorum:
        have = f"{len(members) or 'nobody'} {'is' if len(members) < 2 else 'are'}"
        yield policy.found(
            "approval",
            f"nobody can give this approval: it takes {wanted.quorum} of {wanted.group}, and {have} in it",
            f"add principals to {reference(*groups[0])} in entities.json, {vouched}",
            at=place,
        )


def _unrestricted(policy: ReadPolicy, world: World, constants: Mapping[Part, Constant]) -> Iterator[Finding]:
    node = policy.node
    if node.effect != "permit" or policy.template or not unconditional(policy, constants):
        return
    if _restricts(node.principal, world, "principals") or _restricts(node.resource, world, "resources"):
        return
    everything = {uid for uid in world.actions if not is_own(uid)}
    if isinstance(node.action, pst.ScopeAny) or (
        isinstance(node.action, pst.ActionIn) and len(everything) > 1 and everything <= world.covered(node.action)
    ):
        yield policy.found(
            "unrestricted-permit",
            "nothing restricts this permit: everybody may do everything",
            "name a principal or an action in the scope, or add a condition",
        )


def _never_applies(policy: ReadPolicy, _: World, constants: Mapping[Part, Constant]) -> Iterator[Finding]:
    hole = "; a forbid that never applies is a hole" if policy.node.effect == "forbid" else ""
    if policy.node.action == pst.ActionIn(()):
        yield policy.found("never-applies", f"the scope names no action{hole}", "name one, or remove the policy")
        return
    for part, place in policy.conditions:
        constant = constants.get(part)
        if constant in ("false", "error"):
            verb = "fails" if constant == "error" else "is true" if part.origin == "unless" else "is false"
            yield policy.found(
                "never-applies",
                f"this condition {verb} for every request{hole}",
                "correct the condition, or remove the policy",
                at=policy.span_of(place),
            )
            return
    ruled_out = contradiction([part for part, _ in policy.conditions])
    for part, place in policy.conditions:
        if part is ruled_out:
            yield policy.found(
                "never-applies",
                f"the conditions before this one rule it out{hole}",
                "correct one of them, or remove the policy",
                at=policy.span_of(place),
            )
            return


def _unguarded(policy: ReadPolicy, world: World, _: Mapping[Part, Constant]) -> Iterator[Finding]:
    if world.model is not None:
        return  # Cedar's validation is exact there.
    guards = Guards()
    said: set[str] = set()
    forbid = policy.node.effect == "forbid"
    for part, place in policy.conditions:
        for read in guards.read(part.expr, met=part.origin != "unless"):
            if str(read) in said:
                continue
            said.add(str(read))
            name = f"a tag of {read}" if read.tag else str(read)
            base, attribute = ".".join((read.variable, *read.path[:-1])), read.path[-1] if read.path else ""
            yield policy.found(
                "optional-unguarded",
                f"{name} may be absent, and Cedar then skips this {policy.node.effect}"
                + (", which is a hole" if forbid else ""),
                "ask hasTag first" if read.tag else f"write {base} has {attribute} && … before it",
                at=_place_of(policy, (read.variable, *read.path)) or policy.span_of(place),
                warning=not forbid,
            )
    if isinstance(policy.node.action, pst.ScopeAny) and argument_reads([policy.node]) - {()}:
        yield policy.found(
            "optional-unguarded",
            "this policy reads arguments of every action, and a start of a workflow has none",
            'name its activities in the scope, for example action == Action::"…"',
            warning=True,
        )


def _unknown_has(policy: ReadPolicy, world: World, _: Mapping[Part, Constant]) -> Iterator[Finding]:
    """Cedar's validation takes ``has`` with a misspelt name for false."""
    if world.model is None:
        return
    for part, place in policy.conditions:
        for node in _nodes(part.expr):
            base = chain_of(node.base) if isinstance(node, pst.HasAttr) else None
            if base is None or not isinstance(node, pst.HasAttr):
                continue
            (variable, path), name = base, node.attrs[0]
            records = list(world.records(policy.node, variable, path))
            if not records or any(each.get(name) for each in records):
                continue
            argument = variable == "context" and path[:1] == ("args",)
            whole = ".".join((variable, *path))
            args = world.records(policy.node, variable, ("args",)) if (variable, path) == ("context", ()) else ()
            left_out = any(each.get(name) for each in args)
            yield policy.found(
                "unknown-argument" if argument else "type",
                f"{whole[:_MAX_SHOWN]} never has {name[:_MAX_SHOWN]}",
                f"write context.args has {name[:_MAX_SHOWN]}"
                if left_out
                else did_you_mean(name, [known.name for each in records for known in each.attributes]),
                at=_has_place(policy, name) or policy.span_of(place),
            )


def _may_overflow(policy: ReadPolicy, _: World, __: Mapping[Part, Constant]) -> Iterator[Finding]:
    for part, place in policy.conditions:
        for node in _outermost(part.expr, _ARITHMETIC):
            outside = [
                (variable, *path)
                for variable, path in chains_in(node)
                if not (variable == "context" and path[:1] and path[0] in _COUNTED)
            ]
            if outside:
                yield policy.found(
                    "may-overflow",
                    f"{written(node)[:_MAX_SHOWN]} fails beyond 64 bits, "
                    f"and Cedar then skips this {policy.node.effect}",
                    "compare the number itself with a bound that is calculated beforehand",
                    at=_place_of(policy, outside[0]) or policy.span_of(place),
                )


def _may_error(policy: ReadPolicy, world: World, _: Mapping[Part, Constant]) -> Iterator[Finding]:
    if world.model is not None:
        return
    for part, place in policy.conditions:
        for node in _nodes(part.expr):
            if isinstance(node, pst.UnaryOp) and node.op in _EXTENSIONS and not isinstance(node.arg, pst.StringLit):
                chain = chain_of(node.arg)
                yield policy.found(
                    "may-error",
                    f"{written(node)[:_MAX_SHOWN]} fails for a string that is none, "
                    f"and Cedar then skips this {policy.node.effect}",
                    "let the activity take the argument in its own type",
                    at=(chain and _place_of(policy, (chain[0], *chain[1]))) or policy.span_of(place),
                    warning=True,
                )


def _role_unknown(policy: ReadPolicy, world: World, _: Mapping[Part, Constant]) -> Iterator[Finding]:
    if not world.has_entities:
        return
    for uid in sorted({uid_of_node(each) for each in pst.entity_uids(policy.node)}):
        if is_action(uid[0]) or uid[0] not in world.group_types or uid in world.entities:
            continue
        known = sorted(each[1] for each in world.entities if each[0] == uid[0])
        if not known:
            continue  # Entities of this type come with grants alone.
        close = get_close_matches(uid[1], known, 1)
        yield policy.found(
            "role-unknown",
            f"entities.json has no {reference(*uid)[:_MAX_SHOWN]}",
            f"did you mean {reference(uid[0], close[0])}?"
            if close
            else "add it there, or allow this rule here if grants vouch for it",
            at=_literal(policy, uid),
        )


_LINTS: Sequence[Lint] = (
    _template,
    _missing_id,
    _unknown_annotation,
    _ttl,
    _approval,
    _unrestricted,
    _never_applies,
    _unguarded,
    _unknown_has,
    _may_overflow,
    _may_error,
    _role_unknown,
)


def _restricts(scope: pst.PrincipalOrResourceConstraint, world: World, side: str) -> bool:
    """Whether a scope leaves anything out; naming the only type that there is does not."""
    if isinstance(scope, pst.ScopeAny):
        return False
    if not isinstance(scope, pst.ScopeIs):
        return True
    kinds = {kind for each in world.actions.values() for kind in getattr(each, side) or ()}
    return kinds != {str(scope.entity_type)}


def _has_slot(scope: Any) -> bool:
    return isinstance(getattr(scope, "entity", None), pst.Slot)


def _place_of(policy: ReadPolicy, path: tuple[str, ...]) -> Span | None:
    """The last word of an attribute access."""
    for access in accesses(policy.written.words):
        if access.path[: len(path)] == path:
            word = access.words[len(path) - 1]
            return word.start, word.end
    return None


def _has_place(policy: ReadPolicy, name: str) -> Span | None:
    """The name behind a ``has``."""
    words = policy.written.words
    for index, word in enumerate(words[1:], 1):
        value = unquoted(word.text) if word.kind == "string" else word.text
        if value == name and words[index - 1].text == "has":
            return word.start, word.end
    return None


def _annotation_name(policy: ReadPolicy, name: str) -> Span | None:
    words = policy.written.words
    for index, word in enumerate(words[1:], 1):
        if word.text == name and words[index - 1].text == "@":
            return word.start, word.end
    return None


def _literal(policy: ReadPolicy, uid: Uid) -> Span | None:
    words = policy.written.words
    for index, word in enumerate(words[2:], 2):
        named = uid[0].rpartition("::")[2] == words[index - 2].text and words[index - 1].text == "::"
        if word.kind == "string" and named and unquoted(word.text) == uid[1]:
            return word.start, word.end
    return None


def _outermost(node: Any, ops: frozenset[str]) -> Iterator[Any]:
    if isinstance(node, pst.UnaryOp | pst.BinaryOp) and node.op in ops:
        yield node
        return
    for each in _members(node):
        yield from _outermost(each, ops)


def _nodes(node: Any) -> Iterator[Any]:
    waiting = [node]
    while waiting:
        each = waiting.pop()
        yield each
        waiting += _members(each)


def _members(node: Any) -> list[Any]:
    if isinstance(node, pst.Record):
        return list(node.fields.values())
    if isinstance(node, pst.Set):
        return list(node.elements)
    if isinstance(node, pst.UnaryOp):
        return [node.arg]
    if isinstance(node, pst.BinaryOp):
        return [node.left, node.right]
    if isinstance(node, pst.IfThenElse):
        return [node.cond, node.then_expr, node.else_expr]
    if isinstance(node, pst.GetAttr | pst.HasAttr | pst.Like | pst.Is):
        return [node.base]
    return []

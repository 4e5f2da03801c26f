"""Cedar's strict validation of policies against the schema, with a place and a next step for each message."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cedarpy
from cedarpy import Schema, pst

from exequatur.authoring.checks.findings import Finding, did_you_mean
from exequatur.authoring.checks.locate import Span, locate, spans_of
from exequatur.authoring.checks.reading import ReadPolicy
from exequatur.authoring.checks.world import World, uid_of_node
from exequatur.authoring.expression import reference
from exequatur.policy.schema import ActionDeclaration
from exequatur.policy.syntax import unquoted
from exequatur.policy.types import CedarType, EntityType, RecordType

#: Policies that are validated at once; Cedar takes longer than twice the time for twice as many that are wrong.
_BATCH = 100
#: Policies for which Cedar is asked again which condition it means; more only cost time.
MAX_NARROWED = 200

_PREFIX = re.compile(r"for policy `[^`]*`[,:] ")
_FOR_ACTION = re.compile(r' for ((?:\w+::)*Action::"(?:\\.|[^"\\])*")')
_PATH = re.compile(r"attribute `(.+?)` (in context|on entity type `([\w:]+)`)", re.DOTALL)
_PLAIN_PATH = re.compile(r"\w+(?:\.\w+)*")
_NO_ACTION = "unable to find an applicable action"
_MAX_MESSAGE = 300


@dataclass(frozen=True)
class _Complaint:
    """A message, and the actions for which Cedar repeats it."""

    text: str
    actions: tuple[str, ...]


class Validation:
    """The validation of policies.

    Args:
        schema: The schema as Cedar has it.
        world: The schema as data, for suggestions.
    """

    def __init__(self, schema: Schema, world: World) -> None:
        self._schema = schema
        self._world = world
        self._narrowed = 0

    def findings(self, policies: Sequence[ReadPolicy]) -> Iterator[Finding]:
        """Validate policies; every message becomes a finding."""
        for start in range(0, len(policies), _BATCH):
            batch = policies[start : start + _BATCH]
            wrong = self._messages("\n".join(each.written.source for each in batch))
            for index in sorted(wrong):
                yield from self._explained(batch[index], wrong[index])

    def _messages(self, text: str) -> dict[int, list[str]]:
        found: dict[int, list[str]] = {}
        for error in cedarpy.validate_policies(text, self._schema, release_gil=True).errors:
            number = error.policy_id.removeprefix("policy")
            index = int(number) if number.isdecimal() else 0
            found.setdefault(index, []).append(_PREFIX.sub("", error.error, count=1))
        return found

    def _explained(self, policy: ReadPolicy, messages: list[str]) -> Iterator[Finding]:
        # A scope with an unknown name admits no action, which says nothing more.
        unknown = any(each.startswith("unrecognized") for each in messages)
        for complaint in _together(each for each in messages if not (unknown and each.startswith(_NO_ACTION))):
            yield self._finding(policy, complaint)

    def _finding(self, policy: ReadPolicy, complaint: _Complaint) -> Finding:
        message = complaint.text
        shown = message[:_MAX_MESSAGE]
        if message.startswith(_NO_ACTION):
            why, fix, place = self._no_action(policy)
            return policy.found("never-applies", why, fix, at=place, binding=True)
        place = self._place(policy, message)
        if message.startswith("unrecognized action"):
            known = [uid[1] for uid in self._world.actions] + [uid[1] for uid in self._groups()]
            wanted = message.partition('::"')[2].rstrip('`"')
            fix = did_you_mean(wanted, known)
            return policy.found("unknown-activity", f'there is no action "{wanted[:80]}"', fix, at=place)
        if match := _PATH.search(message):
            return self._attribute(policy, complaint, match, place)
        rule, fix = "type", ""
        if message.startswith("unrecognized entity type"):
            model = self._world.model
            fix = did_you_mean(message.partition("`")[2].rstrip("`"), model.entities if model else ())
        elif "non-literal" in message:
            rule, fix = "may-error", "let the activity take the argument in its own type"
        elif "not declared as a valid eid" in message:
            kind = message.partition("`")[2].partition("::")[0]
            declared = self._world.model.entities.get(kind) if self._world.model else None
            written = unquoted('"' + message.partition('::"')[2].partition('"`')[0] + '"')
            fix = did_you_mean(written, (declared.choices or ()) if declared else ())
        elif "are not compatible" in message or "unexpected type" in message:
            fix = "compare values of one type"
            if "decimal" in message:
                fix = 'write a decimal as decimal("1.00"), and compare it with .lessThan(…), .greaterThan(…) or =='
        elif "argument validation" in message:
            fix = 'correct the literal, for example decimal("1.50"), ip("10.0.0.0/8") or datetime("2026-01-31")'
        elif "empty set literals" in message:
            fix = "write .isEmpty() to ask for an empty set"
        return policy.found(rule, shown, fix, at=place, binding=True)

    def _attribute(self, policy: ReadPolicy, complaint: _Complaint, match: re.Match[str], place: Span) -> Finding:
        message, path = complaint.text, match.group(1)
        names = tuple(path.split(".")) if _PLAIN_PATH.fullmatch(path) else ()
        where = match.group(2).replace("`", "")
        of = f" of {_listed(complaint.actions)}" if complaint.actions else ""
        if "unable to guarantee safety" in message:
            text = self._text(policy, place)
            hole = "; Cedar skips a forbid that fails, which is a hole" if policy.node.effect == "forbid" else ""
            return policy.found(
                "optional-unguarded",
                f"{path[:80]} {where}{of} may be absent{hole}",
                f"ask for it first: … has {text} && …",
                at=place,
                binding=True,
            )
        known = self._members(names, match.group(3), complaint.actions)
        rule = "unknown-argument" if match.group(3) is None and names[:1] == ("args",) else "type"
        fix = did_you_mean(names[-1], known) if names else ""
        argument = self._argument(names, match.group(3), complaint.actions)
        covered = {reference(*uid) for uid in self._world.covered(policy.node.action)}
        if complaint.actions and covered - set(complaint.actions):
            fix = "other actions in the scope have it: name those alone" + (f"; {fix}" if fix else "")
        fix = argument or fix
        what = f"{of.removeprefix(' of ')} has no argument {'.'.join(names[1:])[:80]}" if rule != "type" and of else ""
        return policy.found(rule, what or f"there is no attribute {path[:80]} {where}{of}", fix, at=place, binding=True)

    def _argument(self, names: tuple[str, ...], entity: str | None, actions: Sequence[str]) -> str:
        """The next step where ``args`` was left out of the way to an argument; empty elsewhere."""
        if entity is None and names and names[0] in self._members(("args", names[0]), None, actions):
            return f"write context.args.{names[0]}"
        return ""

    def _members(self, names: tuple[str, ...], entity: str | None, actions: Sequence[str]) -> list[str]:
        """The names that stand where one does not exist."""
        model = self._world.model
        if model is None or not names:
            return []
        roots: list[CedarType] = []
        if entity is not None:
            roots = [model.entities[entity].attributes] if entity in model.entities else []
        else:
            declared: list[ActionDeclaration] = [
                each for uid, each in self._world.actions.items() if reference(*uid) in actions
            ]
            roots = [each.context for each in declared]
        found: set[str] = set()
        for root in roots:
            at: CedarType | None = root
            for name in names[:-1]:
                if isinstance(at, EntityType):
                    at = model.entities[at.name].attributes if at.name in model.entities else None
                attribute = at.get(name) if isinstance(at, RecordType) else None
                at = attribute.type if attribute else None
            if isinstance(at, RecordType):
                found.update(each.name for each in at.attributes)
        return sorted(found)

    def _no_action(self, policy: ReadPolicy) -> tuple[str, str, Span | None]:
        """Why no action fits a scope."""
        node, words = policy.node, policy.written.words
        hole = "; a forbid that never applies is a hole" if node.effect == "forbid" else ""
        if isinstance(node.action, pst.ActionEq):
            uid = uid_of_node(node.action.entity)
            place = next(iter(spans_of(words, f"unrecognized action `{reference(*uid)}`")), None)
            if uid not in self._world.actions:
                fix = f"write action in {reference(*uid)}"
                return f"{reference(*uid)} is a group, and no activity is a group{hole}", fix, place
        covered = self._world.covered(node.action)
        if not covered:
            return f"the scope admits no action{hole}", "name an activity, or a group that has one", None
        declared = [self._world.actions[uid] for uid in covered]
        for side, scope in (("principal", node.principal), ("resource", node.resource)):
            kind = getattr(scope, "entity_type", None) or getattr(getattr(scope, "entity", None), "type", None)
            allowed = sorted({name for each in declared for name in getattr(each, f"{side}s") or ()})
            exact = not isinstance(scope, pst.ScopeIn)
            if kind is not None and exact and str(kind) not in allowed:
                place = next(iter(spans_of(words, f"unrecognized entity type `{kind}`")), None)
                return (
                    f"no {side} of these actions is of the type {kind}{hole}",
                    f"there is {', '.join(allowed)}",
                    place,
                )
        return f"no action fits principal and resource of the scope{hole}", "compare the scope with the schema", None

    def _groups(self) -> set[tuple[str, str]]:
        return {group for uid in self._world.actions for group in self._world.above(uid)}

    def _place(self, policy: ReadPolicy, message: str) -> Span:
        def complains(text: str) -> bool:
            # The same for another action is the same place.
            wanted = _FOR_ACTION.sub("", message)
            found = self._messages(text)
            return any(_FOR_ACTION.sub("", each) == wanted for each in found.get(0, ()))

        def never(_: str) -> bool:
            return False

        words = policy.written.words
        ambiguous = len(spans_of(words, message)) != 1
        self._narrowed += ambiguous
        asked = complains if self._narrowed <= MAX_NARROWED else never
        return locate(words, policy.written.file.text, message, asked)

    def _text(self, policy: ReadPolicy, place: Span) -> str:
        return policy.written.file.text[place[0] : place[1]][:80]


def _together(messages: Iterator[str]) -> list[_Complaint]:
    """Cedar repeats a message for every kind of request; once is enough."""
    found: dict[str, list[str]] = {}
    for message in messages:
        action = _FOR_ACTION.search(message)
        actions = found.setdefault(_FOR_ACTION.sub("", message), [])
        if action and action.group(1) not in actions:
            actions.append(action.group(1))
    return [_Complaint(text, tuple(sorted(actions))) for text, actions in found.items()]


def _listed(actions: Sequence[str]) -> str:
    more = f" and {len(actions) - 3} more" if len(actions) > 3 else ""
    return ", ".join(actions[:3]) + more

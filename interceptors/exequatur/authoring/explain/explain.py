"""Why the gate answers as it does: what decided, what nearly did, and what is missing.

Rules:

X1  The verdict is the gate's own; nothing here decides.
X2  Whether a part of a policy is met is Cedar's answer, for the same request and entities.
X3  A part that Cedar does not reach is never called unmet: its own condition may guard it.
X4  Values of the request are shown only where a part that is not met reads them, and are bounded in length.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from cedarpy import pst

from exequatur.authoring.explain.opened import JudgedPolicy, OpenBundle, Outcome, documents_of
from exequatur.authoring.expression import TURNED, Path, chain_of, chains_in, literal, operands, reference, written
from exequatur.authoring.request import Question, ask
from exequatur.policy.approval import parse_approval
from exequatur.policy.bundle import PolicyBundle, PolicyInfo
from exequatur.policy.engine import Verdict
from exequatur.policy.entities import Uid, uid_of
from exequatur.policy.types import attribute_name

#: Characters of one value; enough for any amount, name or region.
MAX_VALUE = 120
#: Groups of a principal that are named.
_MAX_PARENTS = 10
_ABSENT = "not given"

Kind = Literal["role", "approval", "argument", "principal", "resource", "circumstance", "error", "policy"]

_COMPARED: Final[Mapping[str, tuple[str, str]]] = {
    "eq": ("must be", "must not be"),
    "not_eq": ("must not be", "must be"),
    "less": ("must be less than", "must be at least"),
    "less_eq": ("must be at most", "must be more than"),
    "greater": ("must be more than", "must be at most"),
    "greater_eq": ("must be at least", "must be less than"),
    "decimal_less_than": ("must be less than", "must be at least"),
    "decimal_less_eq": ("must be at most", "must be more than"),
    "decimal_greater": ("must be more than", "must be at most"),
    "decimal_greater_eq": ("must be at least", "must be less than"),
    "contains": ("must contain", "must not contain"),
}


@dataclass(frozen=True, slots=True)
class Read:
    """A value of the request that a part read.

    Args:
        path: For example ``context.args.refund.amount``.
        value: In Cedar syntax, cut if it is long.
    """

    path: str
    value: str


@dataclass(frozen=True, slots=True)
class Missing:
    """What would have to be otherwise.

    Args:
        kind: What it is about.
        sentence: What must be so.
        policy: The name of the policy that asks for it.
    """

    kind: Kind
    sentence: str
    policy: str | None


@dataclass(frozen=True, slots=True)
class ExplainedPart:
    """A part of a policy: its clause, its text, what Cedar says of it, and the values it read if it is not met."""

    origin: str
    text: str
    outcome: Outcome
    error: str | None
    values: tuple[Read, ...]


@dataclass(frozen=True, slots=True)
class ExplainedPolicy:
    """A policy for people.

    Args:
        id: Its name.
        effect: permit or forbid.
        place: File, line and column.
        text: As it is written.
        reason: Its ``@reason``.
        approval: Its ``@approval``.
        parts: Each of its conditions, in the order of evaluation.
    """

    id: str
    effect: str
    place: str
    text: str
    reason: str | None
    approval: str | None
    parts: tuple[ExplainedPart, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why the gate answers as it does.

    Args:
        principal: Who asks, as Cedar writes it.
        action: What is to be done.
        resource: What it is done to.
        verdict: The gate's answer.
        bundle: Digest of the policies.
        determining: The policies that decided.
        overruled: Permits that apply and do not count, because a forbid applies too or because something failed.
        near: Policies that would have changed the answer: permits after a deny, forbids after an allow; the nearest
            first.
        failed: Policies that Cedar could not evaluate; the gate denies then.
        missing: What would have to be otherwise for an allow.
    """

    principal: str
    action: str
    resource: str
    verdict: Verdict
    bundle: str
    determining: tuple[ExplainedPolicy, ...]
    overruled: tuple[ExplainedPolicy, ...]
    near: tuple[ExplainedPolicy, ...]
    failed: tuple[ExplainedPolicy, ...]
    missing: tuple[Missing, ...]


def explain(bundle: PolicyBundle, asked: Question) -> Explanation:
    """Explain the gate's answer to a question.

    Args:
        bundle: The policies.
        asked: The question.

    Returns:
        The explanation.

    Raises:
        PolicyError: The principal cannot be used with this bundle.
    """
    verdict = ask(bundle, asked)  # [X1]
    opened = OpenBundle(bundle)
    entities = opened.with_principal(asked.principal)
    principal = uid_of(asked.principal["uid"])
    context = {**asked.facts, "args": asked.arguments.value}
    judged = opened.judge(entities, principal, asked.action, asked.resource, context)  # [X2]
    request = _Request(documents_of(entities), principal, uid_of(asked.resource), context)
    named = {ref.id for ref in verdict.policies}

    def policies(found: Sequence[JudgedPolicy]) -> tuple[ExplainedPolicy, ...]:
        return tuple(_explained(bundle, each, request) for each in found)

    permits = [each for each in judged if bundle.policies[each.id].effect == "permit"]
    forbids = [each for each in judged if bundle.policies[each.id].effect == "forbid"]
    # When something fails, Cedar names permits although the answer is no.
    determining = [each for each in (permits if verdict.allowed else forbids) if bundle.policies[each.id].id in named]
    overruled = [each for each in permits if each.applies and each not in determining]
    applies = any(each.applies for each in permits)
    near: list[JudgedPolicy] = forbids if verdict.allowed else [] if applies else permits
    near = sorted((each for each in near if not each.applies), key=lambda each: len(each.unmet))
    failed = [each for each in judged if each.error is not None]
    return Explanation(
        principal=reference(*principal),
        action=asked.action,
        resource=reference(asked.resource["type"], asked.resource["id"]),
        verdict=verdict,
        bundle=bundle.digest,
        determining=policies(determining),
        overruled=policies(overruled),
        near=policies([each for each in near if each not in failed]),
        failed=policies(failed),
        missing=()
        if verdict.allowed
        else tuple(_missing(bundle, verdict, failed, [each for each in forbids if each.applies], near, request)),
    )


@dataclass(frozen=True, slots=True)
class _Request:
    """What the parts read from."""

    entities: Mapping[Uid, Mapping[str, Any]]
    principal: Uid
    resource: Uid
    context: Mapping[str, Any]

    def value(self, variable: pst.VarName, path: Path) -> Any:
        """Return the value at a path in Cedar JSON, or None."""
        if variable == "action":
            return None
        if variable == "context":
            node: Any = self.context
        else:
            uid = self.principal if variable == "principal" else self.resource
            node = {"__entity": {"type": uid[0], "id": uid[1]}}
        for name in path:
            if isinstance(node, Mapping) and "__entity" in node:
                node = self.entities.get(uid_of(node), {}).get("attrs", {})
            if not isinstance(node, Mapping) or "__extn" in node or name not in node:
                return None
            node = node[name]
        return node

    def shown(self, variable: pst.VarName, path: Path) -> str:
        found = self.value(variable, path)
        return _ABSENT if found is None else _cut(written(literal(found)))

    def parents(self, uid: Uid) -> str:
        found = sorted(reference(*uid_of(each)) for each in self.entities.get(uid, {}).get("parents", []))
        more = f" and {len(found) - _MAX_PARENTS} more" if len(found) > _MAX_PARENTS else ""
        return _cut(", ".join(found[:_MAX_PARENTS]), 600) + more if found else "no group"


def _explained(bundle: PolicyBundle, judged: JudgedPolicy, request: _Request) -> ExplainedPolicy:
    info, place = bundle.policies[judged.id], bundle.located[judged.id]
    return ExplainedPolicy(
        id=info.id,
        effect=info.effect,
        place=str(place),
        text=place.text,
        reason=info.reason,
        approval=info.approval,
        parts=tuple(
            ExplainedPart(
                part.origin,
                part.text,
                part.outcome,
                part.error,
                () if part.outcome in ("met", "unreached") else tuple(_reads(part.expr, request)),  # [X3] [X4]
            )
            for part in judged.parts
        ),
    )


def _reads(expr: pst.Expr, request: _Request) -> Iterator[Read]:
    for variable, path in dict.fromkeys(chains_in(expr)):
        if variable == "action":
            continue
        if not path and variable != "context":
            uid = request.principal if variable == "principal" else request.resource
            yield Read(variable, f"{_cut(reference(*uid))}, which is in {request.parents(uid)}")
        elif path:
            yield Read(_dotted(variable, path), request.shown(variable, path))


def _missing(
    bundle: PolicyBundle,
    verdict: Verdict,
    failed: Sequence[JudgedPolicy],
    forbids: Sequence[JudgedPolicy],
    near: Sequence[JudgedPolicy],
    request: _Request,
) -> Iterator[Missing]:
    """What stands against an allow, from what weighs most."""
    if verdict.fault is not None:
        yield Missing("argument", verdict.fault, None)
        return
    for policy in failed:
        info = bundle.policies[policy.id]
        yield Missing("error", f"{info.id} must not fail: {policy.error}", info.id)
    for policy in forbids:
        yield _lifted(bundle.policies[policy.id], policy, request)
    if near:
        nearest = near[0]
        info = bundle.policies[nearest.id]
        if info.approval is not None:
            yield _approval(info)
        for part in nearest.unmet:
            if part.outcome == "unmet":
                yield replace(_wanted(part.expr, part.origin != "unless", request), policy=info.id)
    elif not forbids and not failed and not verdict.errors and not verdict.policies:
        yield Missing("policy", "no policy permits this to anybody; write a permit for it", None)
    if verdict.errors and not failed:
        yield Missing("error", " ".join(verdict.errors), None)


def _lifted(info: PolicyInfo, policy: JudgedPolicy, request: _Request) -> Missing:
    """What would keep a forbid from applying: any one of its parts not being met."""
    if info.approval is not None:
        return _approval(info)
    ways = [_wanted(part.expr, part.origin == "unless", request) for part in policy.parts]
    if not ways:
        return Missing("policy", "it forbids this to everybody", info.id)
    return Missing(_common(ways, "policy"), ", or ".join(way.sentence for way in ways), info.id)


def _approval(info: PolicyInfo) -> Missing:
    text = info.approval or ""
    try:
        text = f"an approval by {parse_approval(text)}"
    except ValueError:
        text = f"an approval: {_cut(text)}"
    return Missing("approval", text, info.id)


def _wanted(expr: pst.Expr, want: bool, request: _Request) -> Missing:
    """Say what must be so for an expression to become true, or false if it is not wanted."""
    if isinstance(expr, pst.UnaryOp) and expr.op == "not":
        return _wanted(expr.arg, not want, request)
    if isinstance(expr, pst.BinaryOp) and expr.op in ("and", "or"):
        ways = [_wanted(each, want, request) for each in operands(expr, "and" if expr.op == "and" else "or")]
        either = ", or " if (expr.op == "or") == want else ", and "
        return Missing(_common(ways, "circumstance"), f"({either.join(way.sentence for way in ways)})", None)
    chains = list(chains_in(expr))
    if any(variable == "context" and path[:1] == ("approvals",) for variable, path in chains):
        return Missing("approval", f"an approval, so that `{written(expr)}` is {str(want).lower()}", None)
    if isinstance(expr, pst.BinaryOp):
        found = _relation(expr, want, request)
        if found is not None:
            return found
    if isinstance(expr, pst.Is) and isinstance(expr.base, pst.Var):
        verb = "must be" if want else "must not be"
        inside = f" in {written(expr.in_expr)}" if expr.in_expr is not None else ""
        sentence = f"the {expr.base.name} {verb} of type {expr.entity_type}{inside}"
        return Missing(_kind(expr.base.name, ()), sentence, None)
    if isinstance(expr, pst.HasAttr):
        base = chain_of(expr.base)
        if base is not None:
            path = base[1] + expr.attrs
            verb = "must be given" if want else "must not be given"
            return Missing(_kind(base[0], path), f"{_dotted(base[0], path)} {verb}", None)
    kind = _kind(*chains[0]) if chains else "circumstance"
    return Missing(kind, f"`{written(expr)}` must be {str(want).lower()}", None)


def _relation(expr: pst.BinaryOp, want: bool, request: _Request) -> Missing | None:
    left, right, op = chain_of(expr.left), chain_of(expr.right), expr.op
    if op == "in" and left is not None and not left[1]:
        kind: Kind = "role" if left[0] == "principal" else _kind(*left)
        return Missing(kind, f"the {left[0]} {'must' if want else 'must not'} be in {written(expr.right)}", None)
    if op == "contains" and left is None and right is not None:
        return _compared(*right, "must be one of" if want else "must be none of", expr.left, request)
    about: tuple[pst.VarName, Path] | None = left
    other, name = expr.right, str(op)
    if op in TURNED and right is not None and (left is None or (left[0] != "context" and right[0] == "context")):
        # What is asked about is the request; the other side is its bound.
        about, other, name = right, expr.left, TURNED[op]
    if about is None or name not in _COMPARED:
        return None
    return _compared(*about, _COMPARED[name][0 if want else 1], other, request)


def _compared(variable: pst.VarName, path: Path, verb: str, other: pst.Expr, request: _Request) -> Missing:
    if not path:
        return Missing(_kind(variable, path), f"the {variable} {verb} {written(other)}", None)
    found = request.value(variable, path)
    value = _ABSENT if found is None else _plain(literal(found))
    sentence = f"{_dotted(variable, path)} {verb} {_plain(other)}, and is {value}"
    return Missing(_kind(variable, path), sentence, None)


def _plain(expr: pst.Expr) -> str:
    """A value in a sentence: of ``decimal("500.00")`` the number."""
    if isinstance(expr, pst.UnaryOp) and isinstance(expr.arg, pst.StringLit):
        return _cut(expr.arg.value)
    return _cut(written(expr))


def _common(ways: Sequence[Missing], otherwise: Kind) -> Kind:
    return ways[0].kind if len({way.kind for way in ways}) == 1 else otherwise


def _kind(variable: str, path: Path) -> Kind:
    if variable == "principal":
        return "principal"
    if variable == "resource":
        return "resource"
    return "argument" if path[:1] == ("args",) else "circumstance"


def _dotted(variable: str, path: Path) -> str:
    names = map(attribute_name, path)
    return variable + "".join(f"[{name}]" if name.startswith('"') else f".{name}" for name in names)


def _cut(text: str, longest: int = MAX_VALUE) -> str:
    return text if len(text) <= longest else f"{text[:longest]}… ({len(text)} characters)"

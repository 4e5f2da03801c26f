"""What is left of the policies when not everything of a question is known.

Cedar's partial evaluation does it (docs.cedarpolicy.com, "Partial evaluation"); it is a preview and no decision.

Rules:

Y1  What is known of the context stands in the policies as constants before Cedar sees them; the rest is unknown.
Y2  An entity that the bundle does not have has no attributes and no parents, as for the gate; Cedar's partial
    evaluation alone would call it unknown.
Y3  What a grant would vouch for, of somebody who is only supposed to exist, is unknown.
Y4  What cannot be simplified stays as it is written, and counts as unknown.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Final, Literal

import cedarpy
from cedarpy import Entities, PolicySet, pst

from exequatur.authoring.explain.opened import OpenBundle, documents_of, references_in
from exequatur.authoring.expression import (
    FALSE,
    TRUE,
    Part,
    Path,
    chain_of,
    literal,
    mapped,
    negated,
    operands,
    parts_of,
    reference,
    turned,
    written,
)
from exequatur.policy.entities import ACTION_TYPE, Uid, uid_of

State = Literal["applies", "never", "depends", "fails"]

_ERROR = re.compile(r"error while evaluating policy `([^`]*)`: (.*)", re.DOTALL)
#: Stands for the principal where what it has is unknown; no attribute of a context is called that.
_SUPPOSED: Final = "exequatur principal"
#: Facts that the gate adds to, so that what is given of them is not all.
_OPEN: Final = frozenset({"activity", "run", "worker"})
_CONTEXT, _PRINCIPAL, _RESOURCE = pst.Var("context"), pst.Var("principal"), pst.Var("resource")


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a question.

    Args:
        args: The converted arguments; None if they are not known.
        facts: What is known of the rest of the context, as Cedar JSON.
        resource: What it is done to; None if it is not known.
        resource_type: The type of what it is done to, where only that is known.
    """

    args: Mapping[str, Any] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    resource: Uid | None = None
    resource_type: str | None = None


@dataclass(frozen=True, slots=True)
class Residual:
    """What is left of a policy.

    Args:
        policy: Cedar's id of it.
        state: Whether it applies whatever is not known, never does, depends on that, or fails.
        conditions: What must all be true, as Cedar text, if it depends.
        error: Why it fails.
    """

    policy: str
    state: State
    conditions: tuple[str, ...] = ()
    error: str | None = None


class Partial:
    """The policies for one action, with what is known.

    Args:
        opened: The bundle.
        action: The action's id.
        known: What is known.
    """

    def __init__(self, opened: OpenBundle, action: str, known: Known) -> None:
        self._action = action
        self._known = known
        self._policies = opened.applicable(action)
        self._sets: dict[bool, PolicySet] = {}

    def evaluate(self, principal: Uid, entities: Entities, *, supposed: bool) -> list[Residual]:
        """Evaluate as far as possible.

        Args:
            principal: Who acts.
            entities: From :func:`closed`, the principal among them.
            supposed: The principal's attributes are unknown (Y3).

        Returns:
            What is left of each policy, in the order of the bundle.
        """
        request = {"principal": reference(*principal), "action": reference(ACTION_TYPE, self._action)}
        if self._known.resource is not None:
            request["resource"] = reference(*self._known.resource)
        result = cedarpy.is_authorized_partial(request, self._bound(supposed), entities)
        errors = {}
        for error in result.diagnostics.errors:
            match = _ERROR.fullmatch(error)
            if match is not None:
                errors[match.group(1)] = match.group(2)
        return [
            self._residual(policy_id, set(result.diagnostics.reasons), errors, result.residuals.get(policy_id))
            for policy_id in self._policies
        ]

    def _residual(self, policy_id: str, applying: set[str], errors: Mapping[str, str], left: Any) -> Residual:
        if policy_id in applying:
            return Residual(policy_id, "applies")
        if policy_id in errors:
            return Residual(policy_id, "fails", error=errors[policy_id])
        try:
            expr = _left_of(json.dumps(left))
        except (ValueError, KeyError, TypeError, IndexError, RecursionError):  # [Y4]
            parts = (part.required for part in parts_of(self._policies[policy_id]) if part.origin != "action")
            return Residual(policy_id, "depends", tuple(map(written, parts)))
        if expr == TRUE:
            return Residual(policy_id, "applies")
        if expr == FALSE:
            return Residual(policy_id, "never")
        return Residual(policy_id, "depends", tuple(dict.fromkeys(map(written, operands(expr, "and")))))

    def _bound(self, supposed: bool) -> PolicySet:
        if supposed not in self._sets:
            bound = {policy_id: self._rewritten(policy, supposed) for policy_id, policy in self._policies.items()}
            try:
                self._sets[supposed] = _policy_set(bound)
            except ValueError:
                # A constant can make a policy too deep for Cedar's nodes; it is then asked as it is written.
                whole = {
                    policy_id: self._policies[policy_id] if _too_deep(each) else each
                    for policy_id, each in bound.items()
                }
                self._sets[supposed] = _policy_set(whole)
        return self._sets[supposed]

    def _rewritten(self, policy: pst.Template, supposed: bool) -> pst.Template:
        return replace(
            policy,
            principal=pst.ScopeAny(),
            action=pst.ScopeAny(),
            resource=pst.ScopeAny(),
            clauses=tuple(self._clause(part, supposed) for part in parts_of(policy)),
            annotations=pst.FrozenMap(),
        )

    def _clause(self, part: Part, supposed: bool) -> pst.Clause:
        return replace(part, expr=self._bind(part.expr, supposed)).clause

    def _bind(self, expr: pst.Expr, supposed: bool) -> pst.Expr:
        """Put in what is known (Y1, Y3)."""
        chain = chain_of(expr)
        if chain is not None and chain[0] == "context":
            return self._value(chain[1]) or expr
        if isinstance(expr, pst.HasAttr):
            base = chain_of(expr.base)
            if base is not None and base[0] == "context":
                found = self._has(base[1] + expr.attrs)
                return expr if found is None else pst.BoolLit(found)
        if isinstance(expr, pst.Is) and expr.base == _RESOURCE and self._known.resource_type is not None:
            if str(expr.entity_type) != self._known.resource_type:
                return FALSE
            return TRUE if expr.in_expr is None else pst.BinaryOp("in", _RESOURCE, expr.in_expr)
        if supposed:
            place = pst.GetAttr(_CONTEXT, _SUPPOSED)
            if isinstance(expr, pst.GetAttr | pst.HasAttr) and expr.base == _PRINCIPAL:
                return replace(expr, base=place)
            if isinstance(expr, pst.BinaryOp) and expr.op in ("get_tag", "has_tag") and expr.left == _PRINCIPAL:
                return replace(expr, left=place, right=self._bind(expr.right, supposed))
        return mapped(expr, lambda each: self._bind(each, supposed))

    def _value(self, path: Path) -> pst.Expr | None:
        node: Any = self._tree
        for length, name in enumerate(path):
            if not _is_record(node) or (name not in node and self._closed(path[:length])):
                # Cedar itself says what is wrong with reading on.
                return _access(literal(node), path[length:])
            if name not in node:
                return None
            node = node[name]
        return literal(node) if not _is_record(node) or self._closed(path) else None

    def _has(self, path: Path) -> bool | None:
        node: Any = self._tree
        for length, name in enumerate(path):
            if not _is_record(node):
                return None
            if name not in node:
                return False if self._closed(path[:length]) else None
            node = node[name]
        return True

    @property
    def _tree(self) -> dict[str, Any]:
        known = dict(self._known.facts)
        return known if self._known.args is None else {**known, "args": self._known.args}

    def _closed(self, path: Path) -> bool:
        """Whether all members of the record there are known."""
        return bool(path) and path[0] not in _OPEN


def closed(opened: OpenBundle, principal: Mapping[str, Any] | None = None, *others: Uid) -> Entities:
    """Return a bundle's entities with an empty one for each that is only referred to (Y2).

    Args:
        opened: The bundle.
        principal: A vouched entity to add.
        others: Further entities that must be among them.

    Raises:
        PolicyError: The principal is malformed or does not conform to the schema.
    """
    documents = documents_of(opened.with_principal(principal))
    referred = set(others)
    for document in documents.values():
        referred.update(uid_of(parent) for parent in document.get("parents", []))
        referred.update(references_in(document.get("attrs", {})))
        referred.update(references_in(document.get("tags", {})))
    referred.update(opened.named)
    empty = [
        {"uid": {"type": kind, "id": name}, "attrs": {}, "parents": []}
        for kind, name in sorted(referred - documents.keys())
    ]
    return Entities.from_json_str(json.dumps([*documents.values(), *empty]))


def _policy_set(policies: Mapping[str, pst.Template]) -> PolicySet:
    return PolicySet.from_pst(pst.PolicySet({}, policies, ()))


def _too_deep(policy: pst.Template) -> bool:
    try:
        _policy_set({policy.id: policy})
    except ValueError:
        return True
    return False


def _is_record(node: Any) -> bool:
    return isinstance(node, Mapping) and "__extn" not in node and "__entity" not in node


def _access(base: pst.Expr, path: Path) -> pst.Expr:
    for name in path:
        base = pst.GetAttr(base, name)
    return base


@lru_cache(maxsize=4096)
def _left_of(text: str) -> pst.Expr:
    """The one condition of a residual policy; that of many principals is the same."""
    document = {"staticPolicies": {"left": _with_variables(json.loads(text))}, "templates": {}, "templateLinks": []}
    policy = PolicySet.from_json_str(json.dumps(document)).to_pst().static_policies["left"]
    expr: pst.Expr = TRUE
    for clause in policy.clauses:
        inner = negated(clause.expr) if isinstance(clause, pst.Unless) else clause.expr
        expr = inner if expr == TRUE else pst.BinaryOp("and", expr, inner)
    return _simplified(expr)


def _with_variables(node: Any) -> Any:
    """A residual in Cedar's JSON with its unknowns as the variables that they are."""
    if isinstance(node, list):
        return [_with_variables(each) for each in node]
    if not isinstance(node, dict):
        return node
    if node.keys() == {"unknown"}:
        return {"Var": node["unknown"][0]["Value"]}
    return {name: each if name == "Value" else _with_variables(each) for name, each in node.items()}


def _simplified(expr: pst.Expr) -> pst.Expr:
    """Take out what is constant; an operand that would fail beside a false one does not matter, for the gate denies."""
    if expr == pst.GetAttr(_CONTEXT, _SUPPOSED):
        return _PRINCIPAL
    expr = mapped(expr, _simplified)
    if isinstance(expr, pst.UnaryOp) and expr.op == "not":
        return negated(expr.arg)
    if isinstance(expr, pst.BinaryOp) and expr.op in ("and", "or"):
        neutral, final = (TRUE, FALSE) if expr.op == "and" else (FALSE, TRUE)
        if final in (expr.left, expr.right):
            return final
        if neutral in (expr.left, expr.right):
            return expr.right if expr.left == neutral else expr.left
    if isinstance(expr, pst.IfThenElse) and isinstance(expr.cond, pst.BoolLit):
        return expr.then_expr if expr.cond.value else expr.else_expr
    return turned(expr)

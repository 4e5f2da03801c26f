"""Conditions that are the same for every request: Cedar's partial evaluation, with everything unknown, says which."""

from collections.abc import Iterator, Sequence
from decimal import Decimal, InvalidOperation
from typing import Literal

import cedarpy
from cedarpy import PolicySet, pst

from exequatur.authoring.expression import Part, chain_of

Constant = Literal["true", "false", "error"]

#: Conditions that are evaluated at once.
_BATCH = 500
_ANY = pst.ScopeAny()
_FLIPPED = {"less": "greater", "less_eq": "greater_eq", "greater": "less", "greater_eq": "less_eq", "eq": "eq"}
_DECIMALS = {
    "decimal_less_than": "less",
    "decimal_less_eq": "less_eq",
    "decimal_greater": "greater",
    "decimal_greater_eq": "greater_eq",
}

Value = Decimal | str | bool


def constants(parts: Sequence[Part]) -> dict[Part, Constant]:
    """Return the conditions that are met by every request, by none, or that fail for all.

    Args:
        parts: Conditions.

    Returns:
        Those that are constant; ``true`` means that the condition is met.
    """
    asked = [part for part in dict.fromkeys(parts) if _may_fold(part.expr)]
    found: dict[Part, Constant] = {}
    for start in range(0, len(asked), _BATCH):
        found.update(_fold(asked[start : start + _BATCH]))
    return found


def contradiction(parts: Sequence[Part]) -> Part | None:
    """Return the first condition that those before it rule out, such as ``x < 3`` behind ``x > 5``, or None.

    Args:
        parts: The conditions of a policy, all of which must be met.
    """
    bounds: dict[tuple[object, ...], _Bounds] = {}
    for part in parts:
        for chain, op, value in _comparisons(part):
            if not bounds.setdefault((*chain, type(value)), _Bounds()).narrow(op, value):
                return part
    return None


class _Bounds:
    """What a value may still be."""

    def __init__(self) -> None:
        self._low: tuple[Decimal, bool] | None = None
        self._high: tuple[Decimal, bool] | None = None
        self._equal: Value | None = None

    def narrow(self, op: str, value: Value) -> bool:
        """Take a comparison into account; false if nothing is left."""
        if op == "eq":
            if self._equal is not None and self._equal != value:
                return False
            self._equal = value
        if isinstance(value, Decimal):
            # A strict bound is above an equal one that is not: (5, True) > (5, False).
            if op in ("greater", "greater_eq", "eq"):
                low = (value, op == "greater")
                self._low = low if self._low is None else max(self._low, low)
            if op in ("less", "less_eq", "eq"):
                high = (value, op != "less")
                self._high = high if self._high is None else min(self._high, high)
        if self._low is None or self._high is None:
            return True
        strict = self._low[1] or not self._high[1]
        return self._low[0] < self._high[0] if strict else self._low[0] <= self._high[0]


def _comparisons(part: Part) -> Iterator[tuple[tuple[str, ...], str, Value]]:
    """Comparisons of an attribute with a literal, one level deep."""
    expr = part.required
    if not isinstance(expr, pst.BinaryOp):
        return
    op = _DECIMALS.get(expr.op, expr.op)
    if op not in _FLIPPED:
        return
    for left, right, sign in ((expr.left, expr.right, op), (expr.right, expr.left, _FLIPPED[op])):
        chain, value = chain_of(left), _value(right)
        if chain is not None and value is not None:
            yield (chain[0], *chain[1]), sign, value


def _value(expr: pst.Expr) -> Value | None:
    if isinstance(expr, pst.LongLit):
        return Decimal(expr.value)
    if isinstance(expr, pst.StringLit | pst.BoolLit):
        return expr.value
    if isinstance(expr, pst.UnaryOp) and expr.op == "decimal" and isinstance(expr.arg, pst.StringLit):
        try:
            return Decimal(expr.arg.value)
        except InvalidOperation:
            return None
    return None


def _fold(parts: Sequence[Part]) -> Iterator[tuple[Part, Constant]]:
    names = {f"c{index}": part for index, part in enumerate(parts)}
    nodes = {
        name: pst.Template(name, "permit", _ANY, _ANY, _ANY, (part.clause,), pst.FrozenMap())
        for name, part in names.items()
    }
    try:
        policies = PolicySet.from_pst(pst.PolicySet(pst.FrozenMap(), pst.FrozenMap(nodes), ()))
    except ValueError:
        return
    result = cedarpy.is_authorized_partial({}, policies, [])
    diagnostics = result.diagnostics
    failed = {error.partition("policy `")[2].partition("`")[0] for error in diagnostics.errors}
    open_ = set(diagnostics.nontrivial_residuals)
    met = set(diagnostics.reasons)
    if not result.residuals and not met:
        return
    for name, part in names.items():
        if name not in open_:
            yield part, "error" if name in failed else "true" if name in met else "false"


def _may_fold(expr: pst.Expr) -> bool:
    """Whether anything in an expression does not depend on the request; most conditions cost no evaluation."""
    return _fixed(expr)[1]


def _fixed(node: object) -> tuple[bool, bool]:
    """Whether an expression is made of literals alone, and whether a part with an operator, or a boolean, is."""
    if isinstance(node, pst.BoolLit):
        return True, True
    if isinstance(node, pst.LongLit | pst.StringLit):
        return True, False
    if isinstance(node, pst.UnaryOp):
        inner = [_fixed(node.arg)]
    elif isinstance(node, pst.BinaryOp):
        inner = [_fixed(node.left), _fixed(node.right)]
    elif isinstance(node, pst.IfThenElse):
        inner = [_fixed(each) for each in (node.cond, node.then_expr, node.else_expr)]
    elif isinstance(node, pst.Set):
        return _of_members(node.elements)
    elif isinstance(node, pst.Record):
        return _of_members(tuple(node.fields.values()))
    elif isinstance(node, pst.GetAttr | pst.HasAttr | pst.Like | pst.Is):
        inner = [_fixed(node.base)]
    else:
        return False, False
    whole = all(each[0] for each in inner)
    # A literal of an extension type, such as decimal("1.0"), is no finding.
    literal = isinstance(node, pst.UnaryOp) and node.op in ("decimal", "ip", "datetime", "duration")
    return whole, (whole and not literal) or any(each[1] for each in inner)


def _of_members(members: Sequence[object]) -> tuple[bool, bool]:
    inner = [_fixed(each) for each in members]
    return all(each[0] for each in inner), any(each[1] for each in inner)

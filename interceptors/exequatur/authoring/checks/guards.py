"""Attributes that a condition reads though they may be absent, where no schema says what is there.

With a schema, Cedar's strict validation finds these. Without one, this is known: the gate denies when an argument that
a policy reads is missing, and it always supplies some facts. Everything else needs ``has`` first.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

from cedarpy import pst

from exequatur.authoring.expression import Path, chain_of

#: What the gate always supplies about an activity (docs/policies.md).
_FACTS: dict[str, frozenset[str]] = {
    "activity": frozenset({"type", "id", "attempt", "task_queue", "local"}),
    "run": frozenset({"namespace", "workflow_id", "workflow_type", "run_id", "governed"}),
    "worker": frozenset({"id", "integrity"}),
    "now": frozenset(),
}
_Chain = tuple[str, Path]


@dataclass(frozen=True, slots=True)
class Unguarded:
    """A read of what may be absent: a variable and the path below it."""

    variable: str
    path: Path
    tag: bool = False

    def __str__(self) -> str:
        return ".".join((self.variable, *self.path))


class Guards:
    """What is known to be there, from condition to condition of one policy."""

    def __init__(self) -> None:
        self._known: frozenset[_Chain] = frozenset()

    def read(self, expr: pst.Expr, *, met: bool) -> list[Unguarded]:
        """Return what a condition reads unguarded, and remember what it guards.

        Args:
            expr: The condition as it is written.
            met: Whether it is then true; false for one in an ``unless``.
        """
        found: list[Unguarded] = []
        when_true, when_false = _walk(expr, self._known, found)
        self._known |= when_true if met else when_false
        return found


def _walk(expr: Any, known: frozenset[_Chain], found: list[Unguarded]) -> tuple[frozenset[_Chain], frozenset[_Chain]]:
    """Collect unguarded reads; return what is there if the expression is true, and if it is false."""
    nothing: frozenset[_Chain] = frozenset()
    if isinstance(expr, pst.BinaryOp) and expr.op in ("and", "or"):
        true_left, false_left = _walk(expr.left, known, found)
        reached = true_left if expr.op == "and" else false_left
        true_right, false_right = _walk(expr.right, known | reached, found)
        if expr.op == "and":
            return true_left | true_right, false_left & false_right
        return true_left & true_right, false_left | false_right
    if isinstance(expr, pst.UnaryOp) and expr.op == "not":
        when_true, when_false = _walk(expr.arg, known, found)
        return when_false, when_true
    if isinstance(expr, pst.IfThenElse):
        true, false = _walk(expr.cond, known, found)
        first = _walk(expr.then_expr, known | true, found)
        second = _walk(expr.else_expr, known | false, found)
        return first[0] & second[0], first[1] & second[1]
    if isinstance(expr, pst.HasAttr):
        _walk(expr.base, known, found)
        base = chain_of(expr.base)
        if base is None:
            return nothing, nothing
        there = {(base[0], base[1] + expr.attrs[: end + 1]) for end in range(len(expr.attrs))}
        return frozenset(there), nothing
    if isinstance(expr, pst.BinaryOp) and expr.op in ("has_tag", "get_tag"):
        return _tag(expr, known, found)
    chain = chain_of(expr)
    if chain is not None:
        found.extend(_unguarded(chain, known))
        return nothing, nothing
    for each in _children(expr):
        _walk(each, known, found)
    return nothing, nothing


def _tag(
    expr: pst.BinaryOp, known: frozenset[_Chain], found: list[Unguarded]
) -> tuple[frozenset[_Chain], frozenset[_Chain]]:
    _walk(expr.left, known, found)
    _walk(expr.right, known, found)
    base = chain_of(expr.left)
    # Tags and attributes never share a name here: none begins with a space.
    name = f" {expr.right!r}"
    there = frozenset({(base[0], (*base[1], name))} if base is not None else ())
    if expr.op == "has_tag":
        return there, frozenset()
    if not there or not there <= known:
        found.append(Unguarded(base[0] if base else "", base[1] if base else (), tag=True))
    return frozenset(), frozenset()


def _unguarded(chain: _Chain, known: frozenset[_Chain]) -> Iterator[Unguarded]:
    variable, path = chain
    if variable == "context":
        if not path or path[0] == "args":
            return
        if path[0] in _FACTS:
            if len(path) == 1 or path[1] in _FACTS[path[0]] or (variable, path[:2]) in known:
                return
            yield Unguarded(variable, path[:2])
            return
    for end in range(1, len(path) + 1):
        if (variable, path[:end]) not in known:
            yield Unguarded(variable, path[:end])
            return


def _children(node: Any) -> Iterator[Any]:
    if isinstance(node, pst.Record):
        yield from node.fields.values()
    elif isinstance(node, pst.Set):
        yield from node.elements
    elif isinstance(node, pst.UnaryOp | pst.BinaryOp | pst.GetAttr | pst.Like | pst.Is):
        yield from (getattr(node, field.name) for field in fields(node))

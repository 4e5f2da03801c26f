"""Cedar expressions as data: as text, split at their conjunctions, and made from values.

What is written here parses back to the same expression. Precedence is that of docs.cedarpolicy.com, "Policy grammar".
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final, Literal, cast

from cedarpy import pst

from exequatur.policy.syntax import quoted
from exequatur.policy.types import attribute_name

Path = tuple[str, ...]
Origin = Literal["principal", "action", "resource", "when", "unless"]

_IF, _OR, _AND, _RELATION, _ADD, _MULTIPLY, _UNARY, _MEMBER = range(8)
#: Sign, precedence, and that of the operand on either side.
_INFIX: Final[Mapping[str, tuple[str, int, int, int]]] = {
    "or": ("||", _OR, _OR, _AND),
    "and": ("&&", _AND, _AND, _RELATION),
    "eq": ("==", _RELATION, _ADD, _ADD),
    "not_eq": ("!=", _RELATION, _ADD, _ADD),
    "less": ("<", _RELATION, _ADD, _ADD),
    "less_eq": ("<=", _RELATION, _ADD, _ADD),
    "greater": (">", _RELATION, _ADD, _ADD),
    "greater_eq": (">=", _RELATION, _ADD, _ADD),
    "in": ("in", _RELATION, _ADD, _ADD),
    "add": ("+", _ADD, _ADD, _MULTIPLY),
    "sub": ("-", _ADD, _ADD, _MULTIPLY),
    "mul": ("*", _MULTIPLY, _MULTIPLY, _UNARY),
}
_METHODS: Final[Mapping[str, str]] = {
    "contains": "contains",
    "contains_all": "containsAll",
    "contains_any": "containsAny",
    "get_tag": "getTag",
    "has_tag": "hasTag",
    "is_in_range": "isInRange",
    "offset": "offset",
    "duration_since": "durationSince",
    "decimal_less_than": "lessThan",
    "decimal_less_eq": "lessThanOrEqual",
    "decimal_greater": "greaterThan",
    "decimal_greater_eq": "greaterThanOrEqual",
    "is_empty": "isEmpty",
    "is_ipv4": "isIpv4",
    "is_ipv6": "isIpv6",
    "is_loopback": "isLoopback",
    "is_multicast": "isMulticast",
    "to_date": "toDate",
    "to_time": "toTime",
    "to_milliseconds": "toMilliseconds",
    "to_seconds": "toSeconds",
    "to_minutes": "toMinutes",
    "to_hours": "toHours",
    "to_days": "toDays",
}
#: What is left of a comparison when its negation is taken; decimals have no order that Cedar writes with signs.
_OPPOSITES: Final[Mapping[str, pst.BinaryOpName]] = {
    "eq": "not_eq",
    "not_eq": "eq",
    "less": "greater_eq",
    "less_eq": "greater",
    "greater": "less_eq",
    "greater_eq": "less",
    "decimal_less_than": "decimal_greater_eq",
    "decimal_less_eq": "decimal_greater",
    "decimal_greater": "decimal_less_eq",
    "decimal_greater_eq": "decimal_less_than",
}
#: How a comparison reads from its right side.
TURNED: Final[Mapping[str, pst.BinaryOpName]] = {
    "eq": "eq",
    "not_eq": "not_eq",
    "less": "greater",
    "less_eq": "greater_eq",
    "greater": "less",
    "greater_eq": "less_eq",
    "decimal_less_than": "decimal_greater",
    "decimal_less_eq": "decimal_greater_eq",
    "decimal_greater": "decimal_less_than",
    "decimal_greater_eq": "decimal_less_eq",
}
TRUE, FALSE = pst.BoolLit(True), pst.BoolLit(False)


@dataclass(frozen=True, slots=True)
class Part:
    """One of the conditions that must all be met for a policy to apply.

    Args:
        origin: Where it stands: in the scope, in a ``when`` or in an ``unless``.
        expr: What is written there; it must be true, or false in an ``unless``.
    """

    origin: Origin
    expr: pst.Expr

    @property
    def clause(self) -> pst.Clause:
        """The part as a condition of its own."""
        return pst.Unless(self.expr) if self.origin == "unless" else pst.When(self.expr)

    @property
    def required(self) -> pst.Expr:
        """What must be true."""
        return negated(self.expr) if self.origin == "unless" else self.expr


def parts_of(policy: pst.Template) -> tuple[Part, ...]:
    """Take a policy apart.

    Args:
        policy: A policy without slots.

    Returns:
        Its parts in the order in which Cedar evaluates them: scope, then the conjuncts of each ``when`` and the
        disjuncts of each ``unless``, for "unless a or b" means "not a, and not b".
    """
    found = [
        *_scope("principal", policy.principal),
        *_action(policy.action),
        *_scope("resource", policy.resource),
    ]
    for clause in policy.clauses:
        if isinstance(clause, pst.Unless):
            found += [Part("unless", each) for each in operands(clause.expr, "or")]
        else:
            found += [Part("when", each) for each in operands(clause.expr, "and")]
    return tuple(found)


def operands(expr: pst.Expr, op: Literal["and", "or"]) -> list[pst.Expr]:
    """Split an expression at one connective, from left to right."""
    found: list[pst.Expr] = []
    waiting = [expr]
    while waiting:
        each = waiting.pop()
        if isinstance(each, pst.BinaryOp) and each.op == op:
            waiting += [each.right, each.left]
        else:
            found.append(each)
    return found


def negated(expr: pst.Expr) -> pst.Expr:
    """Return the negation of an expression, without a ``!`` where another comparison says it."""
    if isinstance(expr, pst.BoolLit):
        return pst.BoolLit(not expr.value)
    if isinstance(expr, pst.UnaryOp) and expr.op == "not":
        return expr.arg
    if isinstance(expr, pst.BinaryOp) and expr.op in _OPPOSITES:
        return replace(expr, op=_OPPOSITES[expr.op])
    return pst.UnaryOp("not", expr)


def turned(expr: pst.Expr) -> pst.Expr:
    """Return a comparison with what is read on the left and the constant on the right."""
    if not isinstance(expr, pst.BinaryOp) or expr.op not in TURNED:
        return expr
    if any(chains_in(expr.left)) or not any(chains_in(expr.right)):
        return expr
    return pst.BinaryOp(TURNED[expr.op], expr.right, expr.left)


def chain_of(expr: object) -> tuple[pst.VarName, Path] | None:
    """Return variable and path of an attribute access such as ``context.args.amount``, or None."""
    path: list[str] = []
    while isinstance(expr, pst.GetAttr):
        path.append(expr.attr)
        expr = expr.base
    return (expr.name, tuple(reversed(path))) if isinstance(expr, pst.Var) else None


def chains_in(expr: object) -> Iterator[tuple[pst.VarName, Path]]:
    """Yield what an expression reads, from left to right: each variable with the longest path below it."""
    if isinstance(expr, pst.HasAttr):
        base = chain_of(expr.base)
        if base is not None:
            yield base[0], base[1] + expr.attrs
            return
    chain = chain_of(expr)
    if chain is not None:
        yield chain
        return
    for each in _children(expr):
        yield from chains_in(each)


def groups_in(expr: object) -> Iterator[pst.EntityUid]:
    """Yield the entities that an expression asks the principal to be in."""
    inside: object = None
    if isinstance(expr, pst.BinaryOp) and expr.op == "in" and expr.left == pst.Var("principal"):
        inside = expr.right
    elif isinstance(expr, pst.Is) and expr.base == pst.Var("principal"):
        inside = expr.in_expr
    for each in inside.elements if isinstance(inside, pst.Set) else (inside,):
        if isinstance(each, pst.EntityLit):
            yield each.value
    for child in _children(expr):
        yield from groups_in(child)


def mapped(expr: pst.Expr, change: Callable[[pst.Expr], pst.Expr]) -> pst.Expr:
    """Return an expression with each of its direct parts changed."""
    match expr:
        case pst.UnaryOp():
            return replace(expr, arg=change(expr.arg))
        case pst.BinaryOp():
            return replace(expr, left=change(expr.left), right=change(expr.right))
        case pst.GetAttr() | pst.HasAttr() | pst.Like():
            return replace(expr, base=change(expr.base))
        case pst.Is():
            return replace(expr, base=change(expr.base), in_expr=None if expr.in_expr is None else change(expr.in_expr))
        case pst.IfThenElse():
            return pst.IfThenElse(change(expr.cond), change(expr.then_expr), change(expr.else_expr))
        case pst.Set():
            return pst.Set(tuple(map(change, expr.elements)))
        case pst.Record():
            return pst.Record(pst.FrozenMap({name: change(each) for name, each in expr.fields.items()}))
    return expr


def literal(value: Any) -> pst.Expr:
    """Return a value in Cedar JSON as an expression.

    Raises:
        ValueError: It is none.
    """
    if isinstance(value, bool):
        return pst.BoolLit(value)
    if isinstance(value, int):
        return pst.LongLit(value)
    if isinstance(value, str):
        return pst.StringLit(value)
    if isinstance(value, list):
        return pst.Set(tuple(map(literal, value)))
    if not isinstance(value, Mapping):
        raise ValueError(f"a {type(value).__name__} is no value of Cedar")
    if "__extn" in value:
        extension = value["__extn"]
        return pst.UnaryOp(cast(pst.UnaryOpName, str(extension["fn"])), pst.StringLit(str(extension["arg"])))
    if "__entity" in value:
        return pst.EntityLit(entity_uid(str(value["__entity"]["type"]), str(value["__entity"]["id"])))
    return pst.Record(pst.FrozenMap({str(name): literal(each) for name, each in value.items()}))


def entity_uid(kind: str, name: str) -> pst.EntityUid:
    """Return an entity's name as a node."""
    *namespace, basename = kind.split("::")
    return pst.EntityUid(pst.EntityType(basename, tuple(namespace)), name)


def reference(kind: str, name: str) -> str:
    """Return an entity's name as Cedar writes it."""
    return f"{kind}::{quoted(name)}"


def written(expr: object, outside: int = _IF) -> str:
    """Return an expression as Cedar text, with no more parentheses than it needs.

    Args:
        expr: A node of :mod:`cedarpy.pst`.
        outside: The least precedence that needs no parentheses where the text is to stand.
    """
    text, own = _written(expr)
    return f"({text})" if own < outside else text


def _written(expr: object) -> tuple[str, int]:
    match expr:
        case pst.Var():
            return expr.name, _MEMBER
        case pst.Slot():
            return f"?{expr.name}", _MEMBER
        case pst.BoolLit():
            return str(expr.value).lower(), _MEMBER
        case pst.LongLit():
            return str(expr.value), _MEMBER if expr.value >= 0 else _UNARY
        case pst.StringLit():
            return quoted(expr.value), _MEMBER
        case pst.EntityLit():
            return reference(str(expr.value.type), expr.value.id), _MEMBER
        case pst.GetAttr():
            name = attribute_name(expr.attr)
            access = f"[{name}]" if name.startswith('"') else f".{name}"
            return f"{written(expr.base, _MEMBER)}{access}", _MEMBER
        case pst.HasAttr():
            return f"{written(expr.base, _ADD)} has {'.'.join(map(attribute_name, expr.attrs))}", _RELATION
        case pst.Like():
            return f"{written(expr.base, _ADD)} like {_pattern(expr)}", _RELATION
        case pst.Is():
            text = f"{written(expr.base, _ADD)} is {expr.entity_type}"
            return (text if expr.in_expr is None else f"{text} in {written(expr.in_expr, _ADD)}"), _RELATION
        case pst.IfThenElse():
            inner = (written(each) for each in (expr.cond, expr.then_expr, expr.else_expr))
            return "if {} then {} else {}".format(*inner), _IF
        case pst.Set():
            return f"[{', '.join(map(written, expr.elements))}]", _MEMBER
        case pst.Record():
            inner = (f"{attribute_name(name)}: {written(each)}" for name, each in expr.fields.items())
            return f"{{{', '.join(inner)}}}", _MEMBER
        case pst.UnaryOp():
            return _unary(expr)
        case pst.BinaryOp():
            return _binary(expr)
    raise TypeError(f"{type(expr).__name__} is no expression")


def _unary(expr: pst.UnaryOp) -> tuple[str, int]:
    if expr.op in ("not", "neg"):
        # A minus before digits would be a part of the number.
        least = _UNARY + 1 if expr.op == "not" or not isinstance(expr.arg, pst.LongLit) else _MEMBER + 1
        return f"{'!' if expr.op == 'not' else '-'}{written(expr.arg, least)}", _UNARY
    if expr.op in _METHODS:
        return f"{written(expr.arg, _MEMBER)}.{_METHODS[expr.op]}()", _MEMBER
    return f"{expr.op}({written(expr.arg)})", _MEMBER


def _binary(expr: pst.BinaryOp) -> tuple[str, int]:
    if expr.op in _METHODS:
        return f"{written(expr.left, _MEMBER)}.{_METHODS[expr.op]}({written(expr.right)})", _MEMBER
    sign, own, left, right = _INFIX[expr.op]
    return f"{written(expr.left, left)} {sign} {written(expr.right, right)}", own


def _pattern(expr: pst.Like) -> str:
    inner = ""
    for each in expr.pattern:
        if isinstance(each, pst.Wildcard):
            inner += "*"
        else:
            inner += "\\*" if each.value == "*" else quoted(each.value)[1:-1]
    return f'"{inner}"'


def _scope(origin: Literal["principal", "resource"], constraint: pst.PrincipalOrResourceConstraint) -> list[Part]:
    variable = pst.Var(origin)
    match constraint:
        case pst.ScopeEq(pst.EntityUid() as entity):
            return [Part(origin, pst.BinaryOp("eq", variable, pst.EntityLit(entity)))]
        case pst.ScopeIn(pst.EntityUid() as entity):
            return [Part(origin, pst.BinaryOp("in", variable, pst.EntityLit(entity)))]
        case pst.ScopeIs(kind):
            return [Part(origin, pst.Is(variable, kind, None))]
        case pst.ScopeIsIn(kind, pst.EntityUid() as entity):
            return [Part(origin, pst.Is(variable, kind, pst.EntityLit(entity)))]
    return []


def _action(constraint: pst.ActionConstraint) -> list[Part]:
    variable = pst.Var("action")
    match constraint:
        case pst.ActionEq():
            return [Part("action", pst.BinaryOp("eq", variable, pst.EntityLit(constraint.entity)))]
        case pst.ActionIn():
            group = pst.Set(tuple(map(pst.EntityLit, constraint.entities)))
            return [Part("action", pst.BinaryOp("in", variable, group))]
    return []


def _children(node: object) -> Iterator[object]:
    if isinstance(node, pst.Record):
        yield from node.fields.values()
    elif isinstance(node, pst.Set):
        yield from node.elements
    elif isinstance(node, pst.UnaryOp | pst.BinaryOp | pst.GetAttr | pst.HasAttr | pst.Like | pst.Is | pst.IfThenElse):
        yield from (getattr(node, field.name) for field in fields(node))

"""Which arguments, and which other facts, a policy can read.

Rules:

R1  Every attribute access or ``has`` on a chain from ``context.args`` is a read of that path; a chain is followed
    through the branches of an if-then-else and the fields of a record literal.
R2  A value on such a chain that is used as a whole (compared, put in a set, given to an operator) is a read of all of
    it.
R3  ``context`` used as a whole is a read of every argument, the empty path.
R4  A node type that is not known here is a read of every argument: a newer Cedar can at worst be stricter.
R5  A ``has`` asks only whether something is there. Every other read is one of what is there, too.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from typing import Any, get_args

from cedarpy import pst

Path = tuple[str, ...]

_EVERYTHING: Path = ()


class _Presence(tuple[str, ...]):
    """A path of which only is asked whether it is there (R5)."""

    __slots__ = ()


_CONTEXT = pst.Var("context")
_KNOWN: frozenset[type] = frozenset(
    cls
    for union in (pst.Expr, pst.Clause, pst.PrincipalOrResourceConstraint, pst.ActionConstraint, pst.PatternElem)
    for cls in get_args(union)
) | {pst.Template, pst.EntityUid, pst.EntityType, pst.Slot}
_MEMBERS = {cls: tuple(field.name for field in fields(cls)) for cls in _KNOWN}


def argument_reads(policies: Iterable[pst.Template]) -> frozenset[Path]:
    """Return every argument path that policies can read.

    Args:
        policies: Policies as ``cedarpy.pst`` nodes.

    Returns:
        Paths below ``context.args``; ``()`` means that a policy can read all of them.
    """
    return reads_and_contents(policies)[0]


def reads_and_contents(policies: Iterable[pst.Template]) -> tuple[frozenset[Path], frozenset[Path]]:
    """Return every argument path that policies can read, and those of which they read more than whether it is there.

    Args:
        policies: Policies as ``cedarpy.pst`` nodes.
    """
    found = [path for policy in policies for path in _reads(policy)]
    return frozenset(map(tuple, found)), frozenset(path for path in found if type(path) is not _Presence)


def fact_reads(policies: Iterable[pst.Template]) -> frozenset[str] | None:
    """Return the attributes of ``context`` that policies can read, by the first name of each path.

    Args:
        policies: Policies as ``cedarpy.pst`` nodes.

    Returns:
        Names such as ``run``; None where a policy uses ``context`` in a way that may read any of them.
    """
    names: set[str] = set()
    stack: list[Any] = list(policies)
    while stack:
        node = stack.pop()
        if node is None or isinstance(node, str | bool | int):
            continue
        if isinstance(node, Mapping):
            stack.extend(node.values())
        elif isinstance(node, tuple | list | frozenset):
            stack.extend(node)
        elif type(node) not in _KNOWN or isinstance(node, pst.Var):
            if type(node) not in _KNOWN or node.name == "context":
                return None
        elif isinstance(node, pst.GetAttr) and node.base == _CONTEXT:
            names.add(node.attr)
        elif isinstance(node, pst.HasAttr) and node.base == _CONTEXT:
            names.add(node.attrs[0])
        else:
            stack.extend(getattr(node, name) for name in _MEMBERS[type(node)])
    return frozenset(names)


def _reads(node: Any) -> Iterator[Path]:
    if node is None or isinstance(node, str | bool | int):
        return
    if isinstance(node, Mapping):
        for value in node.values():
            yield from _reads(value)
    elif isinstance(node, tuple | list | frozenset):
        for value in node:
            yield from _reads(value)
    elif type(node) not in _KNOWN:  # [R4]
        yield _EVERYTHING
    elif isinstance(node, pst.Var):
        if node.name == "context":  # [R3]
            yield _EVERYTHING
    elif isinstance(node, pst.GetAttr):  # R2
        yield from (path for origin in _origins(node) for path in _argument_path(origin))  # [R1]
        yield from _side_reads(node.base)
    elif isinstance(node, pst.HasAttr):
        for origin in _origins(node.base):
            found = (path for end in _follow(origin, node.attrs) for path in _argument_path(end, has=True))
            yield from (_Presence(path) if path else path for path in found)  # [R1] R5
        yield from _side_reads(node.base)
    else:
        for name in _MEMBERS[type(node)]:
            yield from _reads(getattr(node, name))


def _origins(node: Any) -> list[Path | pst.Record]:
    """What an expression may denote: a path below ``context``, or a record literal; nothing else holds arguments."""
    if isinstance(node, pst.Var):
        return [()] if node.name == "context" else []
    if isinstance(node, pst.Record):
        return [node]
    if isinstance(node, pst.IfThenElse):
        return _origins(node.then_expr) + _origins(node.else_expr)
    if isinstance(node, pst.GetAttr):
        return [end for origin in _origins(node.base) for end in _follow(origin, (node.attr,))]
    return []


def _follow(origin: Path | pst.Record, attrs: tuple[str, ...]) -> list[Path | pst.Record]:
    if isinstance(origin, tuple):
        return [origin + attrs]
    if not attrs:
        return [origin]
    if attrs[0] not in origin.fields:
        return []
    return [end for inner in _origins(origin.fields[attrs[0]]) for end in _follow(inner, attrs[1:])]


def _argument_path(origin: Path | pst.Record, *, has: bool = False) -> list[Path]:
    if not isinstance(origin, tuple):
        return []
    if origin[:1] == ("args",):
        # ``context has args`` asks nothing about any argument: the record is always there.
        return [] if has and len(origin) == 1 else [origin[1:]]
    return [] if origin else [_EVERYTHING]


def _side_reads(base: Any) -> Iterator[Path]:
    """Reads in the base of an attribute access, other than of the chain itself."""
    if isinstance(base, pst.GetAttr):
        yield from _side_reads(base.base)
    elif isinstance(base, pst.IfThenElse):
        yield from _reads(base.cond)
        yield from _side_reads(base.then_expr)
        yield from _side_reads(base.else_expr)
    elif not isinstance(base, pst.Var):
        yield from _reads(base)

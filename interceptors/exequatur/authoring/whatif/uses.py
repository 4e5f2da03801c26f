"""What of a request a policy looks at, in more detail than :mod:`exequatur.policy.reads` tells the gate.

This never decides what is denied. It says which parts of two requests may differ without another answer, and which
values to show beside one; so it names too much where it cannot tell, never too little.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from cedarpy import PolicySet, pst

from exequatur.errors import PolicyError
from exequatur.policy.bundle import PolicyBundle
from exequatur.policy.reads import Path

_KNOWN: frozenset[type] = frozenset(
    each for each in vars(pst).values() if isinstance(each, type) and each.__module__ == pst.__name__
)


@dataclass(frozen=True, slots=True)
class Uses:
    """What policies look at.

    Args:
        context: Paths below ``context``, without any that another one covers; ``()`` is all of it.
        resource: Whether it makes a difference what the activity is done to.
    """

    context: frozenset[Path]
    resource: bool

    def facts(self) -> frozenset[Path]:
        """The paths that are not below ``context.args``."""
        return frozenset(path for path in self.context if path[:1] != ("args",))


def uses_by_policy(bundle: PolicyBundle) -> Mapping[str, tuple[pst.Template, Uses]]:
    """Return each policy of a bundle, by its Cedar id, with what it looks at.

    Raises:
        PolicyError: A condition is nested too deeply to be analysed.
    """
    try:
        nodes = PolicySet.from_str(bundle.source.policy_text).to_pst().static_policies
    except ValueError as error:
        raise PolicyError(f"The policies cannot be analysed: {error}. Split the condition into several.") from None
    return {policy_id: (node, _uses(node)) for policy_id, node in nodes.items()}


def together(uses: Iterable[Uses]) -> Uses:
    """What several policies look at."""
    uses = list(uses)
    return Uses(_shortest(path for each in uses for path in each.context), any(each.resource for each in uses))


def meaning_of(policy: pst.Template) -> tuple[Any, ...]:
    """What a policy says, without its place among others."""
    notes = tuple(sorted(policy.annotations.items()))
    return policy.effect, policy.principal, policy.action, policy.resource, policy.clauses, notes


def _uses(policy: pst.Template) -> Uses:
    paths: set[Path] = set()
    resource = not isinstance(policy.resource, pst.ScopeAny)
    stack: list[Any] = [policy.clauses]
    while stack:
        node = stack.pop()
        if node is None or isinstance(node, str | bool | int):
            continue
        if isinstance(node, Mapping):
            stack.extend(node.values())
        elif isinstance(node, tuple | list | frozenset):
            stack.extend(node)
        elif type(node) not in _KNOWN:
            return Uses(frozenset({()}), True)
        elif isinstance(node, pst.Var):
            resource = resource or node.name == "resource"
            if node.name == "context":
                paths.add(())
        else:
            path = _chain(node)
            if path is not None:
                paths.add(path)
            else:
                stack.extend(getattr(node, field.name) for field in fields(node))
    return Uses(_shortest(paths), resource)


def _chain(node: Any) -> Path | None:
    """The path of ``context.a.b`` or ``context.a has b``; None for everything else."""
    path: Path = ()
    while isinstance(node, pst.GetAttr | pst.HasAttr):
        path = (tuple(node.attrs) if isinstance(node, pst.HasAttr) else (node.attr,)) + path
        node = node.base
    return path if path and isinstance(node, pst.Var) and node.name == "context" else None


def _shortest(paths: Iterable[Path]) -> frozenset[Path]:
    kept: set[Path] = set()
    for path in sorted(paths, key=len):
        if not any(path[:length] in kept for length in range(len(path) + 1)):
            kept.add(path)
    return frozenset(kept)

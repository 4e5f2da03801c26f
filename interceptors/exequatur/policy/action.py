"""The decorator with which an activity names its action groups, the Cedar resource that it acts on, and its cost.

Rules:

R1  A resource is told by the activity's own arguments, before it runs, and is of the declared type; else there is none,
    and the gate denies.
R2  Whatever a resolver does, the answer is a resource or a sentence, never an exception.
R3  A cost is told in the same way and is a whole number from 0 to 10^12; else the gate denies.
"""

import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from exequatur.errors import ConfigurationError
from exequatur.policy.hints import hinted_function
from exequatur.policy.scalars import Unrepresentable

WORKFLOW_TYPE = "Workflow"
"""What an activity acts on unless it says otherwise: the workflow."""
MAX_ID_BYTES = 4096

MAX_COST = 10**12
"""Of one activity: nine million of them still fit Cedar's 64 bits."""

Resolver = Callable[..., str]
Cost = Callable[..., int]

_MARK = "__exequatur_action__"
_ENTITY_TYPE = re.compile(r"[A-Za-z_]\w*(::[A-Za-z_]\w*)*", re.ASCII)

_T = TypeVar("_T", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class ActionMark:
    """What an activity says about its Cedar action.

    Args:
        groups: Ids of the action groups that it is in, besides ``activity``.
        resolver: Names the resource from the activity's arguments; without it that is the workflow.
        resource_type: The entity type of the resource.
        cost: Names the cost from the activity's arguments; without it there is none.
    """

    groups: tuple[str, ...] = ()
    resolver: Resolver | None = None
    resource_type: str = WORKFLOW_TYPE
    cost: Cost | None = None


UNMARKED = ActionMark()
"""Of an activity without the decorator."""


def action(
    *,
    groups: Iterable[str] = (),
    resource: Resolver | None = None,
    resource_type: str | None = None,
    cost: Cost | None = None,
) -> Callable[[_T], _T]:
    """Say which groups of actions an activity is in and what it acts on; the activity itself stays as it is.

    Example::

        @action(groups=["money"], resource=lambda refund: refund.order_id, resource_type="Order")
        @activity.defn
        async def refund_order(refund: Refund) -> str: ...

    Args:
        groups: Ids of Cedar action groups, so that a policy can speak of ``Action::"money"``.
        resource: Gets the activity's arguments, those with a default included, and returns the id of the resource. It
            is called before the activity is authorized, on the worker's event
            loop: it must be quick, must not wait and must not change anything. If it raises, or returns something else,
            the activity is denied.
        resource_type: The entity type of the resource; the schema is generated with it.
        cost: Gets the same and returns what the activity costs, in a unit of your own: a whole number, for example of
            cents or tokens, that budgets in ``context.behavior`` add up. The same holds for it; it is called where
            behaviour is counted.

    Returns:
        A decorator for functions, methods and classes with ``__call__``, above or below ``@activity.defn``.

    Raises:
        ConfigurationError: A group is no name, the resolver is a coroutine function, or only one of resolver and type
            is given, or the cost is told by one.
    """
    named = (groups,) if isinstance(groups, str) else tuple(dict.fromkeys(groups))
    for group in named:
        if not isinstance(group, str) or not group:
            raise ConfigurationError(f"@action: {group!r} is no name of a group; groups are non-empty strings")
    if (resource is None) != (resource_type is None):
        raise ConfigurationError("@action: give resource and resource_type together")
    if resource_type is not None and not _ENTITY_TYPE.fullmatch(resource_type):
        raise ConfigurationError(f"@action: {resource_type!r} is no entity type; write it as Order or Shop::Order")
    if resource is not None and (not callable(resource) or inspect.iscoroutinefunction(resource)):
        raise ConfigurationError("@action: resource must be a plain function; it cannot wait for anything")
    if cost is not None and (not callable(cost) or inspect.iscoroutinefunction(cost)):
        raise ConfigurationError("@action: cost must be a plain function; it cannot wait for anything")
    mark = ActionMark(named, resource, resource_type or WORKFLOW_TYPE, cost)

    return lambda fn: marked(fn, mark)


def marked(fn: _T, mark: ActionMark) -> _T:
    """Put a mark on a callable, and return it."""
    setattr(fn, _MARK, mark)
    return fn


def mark_of(fn: Callable[..., Any]) -> ActionMark:
    """Return what an activity says about its action.

    Args:
        fn: A function, bound method, ``functools.partial`` or object with ``__call__``.
    """
    for each in (fn, hinted_function(fn)):
        mark = getattr(each, _MARK, None)
        if isinstance(mark, ActionMark):
            return mark
    return UNMARKED


def resource_of(mark: ActionMark, args: Sequence[Any]) -> dict[str, str]:
    """Return the resource that a resolver names.

    Args:
        mark: Of an activity that has a resolver.
        args: The arguments as the body will get them, defaults included.

    Returns:
        ``{"type": ..., "id": ...}``.

    Raises:
        Unrepresentable: There is none (R1); the reason follows ``the resource``.
    """
    if mark.resolver is None:
        raise Unrepresentable("is not named by the activity")
    try:
        return {"type": mark.resource_type, "id": _id(mark.resolver(*args))}
    except (KeyboardInterrupt, Unrepresentable):
        raise
    except BaseException as error:  # [R2]
        raise Unrepresentable(f"could not be told: its resolver raised {type(error).__name__[:60]}") from None


def cost_of(mark: ActionMark, args: Sequence[Any]) -> int:
    """Return what an activity costs; 0 where it does not say.

    Args:
        mark: Of the activity.
        args: The arguments as the body will get them, defaults included.

    Raises:
        Unrepresentable: It cannot be told (R3); the reason follows ``the cost``.
    """
    if mark.cost is None:
        return 0
    try:
        told: object = mark.cost(*args)
        if inspect.iscoroutine(told):
            told.close()
        if type(told) is not int or not 0 <= told <= MAX_COST:  # [R3]
            raise Unrepresentable(f"could not be told: its resolver returned no whole number from 0 to {MAX_COST}")
    except (KeyboardInterrupt, Unrepresentable):
        raise
    except BaseException as error:  # [R2]
        raise Unrepresentable(f"could not be told: its resolver raised {type(error).__name__[:60]}") from None
    return told


def _id(named: object) -> str:
    if inspect.iscoroutine(named):
        named.close()
    if not issubclass(type(named), str):  # [R1]
        raise Unrepresentable("could not be told: its resolver returned no id")
    name = str.__str__(cast(str, named))
    if not name:  # [R1]
        raise Unrepresentable("could not be told: its resolver returned an empty id")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise Unrepresentable("has an id that is not valid Unicode (a lone surrogate)") from None
    if size > MAX_ID_BYTES:
        raise Unrepresentable(f"has an id of more than {MAX_ID_BYTES} bytes")
    return name

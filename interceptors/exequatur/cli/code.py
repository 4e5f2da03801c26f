"""Workflows and activities that are named on the command line."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import Any

from exequatur.errors import ConfigurationError
from exequatur.modules import imported, named
from exequatur.policy.action import mark_of, marked


def workflows_of(references: str) -> list[type]:
    """The workflow classes that ``MODULE[:CLASS],...`` names: of a module without a class, all that it has.

    Raises:
        ConfigurationError: There is none.
    """
    classes: dict[type, None] = {}
    for reference in filter(None, (part.strip() for part in references.split(","))):
        found = [named(reference)] if ":" in reference else list(vars(imported(reference)).values())
        workflows = [each for each in found if isinstance(each, type) and definition_of(each)]
        if not workflows:
            raise ConfigurationError(f"{reference}: has no class with @workflow.defn")
        classes |= dict.fromkeys(workflows)
    if not classes:
        raise ConfigurationError("--workflows names no module")
    return list(classes)


def definition_of(workflow: type) -> Any:
    """What ``@workflow.defn`` left on a class; its own, not that of a base class."""
    return vars(workflow).get("__temporal_workflow_definition")


def activities_of(references: Iterable[str]) -> dict[str, Callable[..., Any]]:
    """The activities that ``MODULE[:NAME],...`` names, by activity type: of a module without a name, all that it has.

    A name can be that of a function, of a class or an object with activity methods, of a list of activities, or of a
    worker. Methods of classes come without their ``self``. Dynamic activities have no type and are left out.

    Raises:
        ConfigurationError: There is none, or two activities share a type.
    """
    found: dict[str, tuple[Callable[..., Any], Any]] = {}
    for reference in (part.strip() for each in references for part in each.split(",")):
        if not reference:
            continue
        target = named(reference) if ":" in reference else imported(reference)
        activities = list(_activities(target))
        if not activities:
            raise ConfigurationError(f"{reference}: has no activity; decorate its functions with @activity.defn")
        for name, fn, origin in activities:
            if name in found and found[name][1] is not origin:
                raise ConfigurationError(f"{reference}: there is another activity of the type {name}; rename one")
            found[name] = fn, origin
    if not found:
        raise ConfigurationError("--from names no module")
    return {name: fn for name, (fn, _) in sorted(found.items())}


_Found = tuple[str, Callable[..., Any], Any]
"""Activity type, the callable without ``self``, and the function that tells one activity from another."""


def _activities(target: Any) -> Iterator[_Found]:
    from temporalio.worker import Worker

    if isinstance(target, ModuleType):
        for each in list(vars(target).values()):
            yield from _defined(each)
    elif isinstance(target, Worker):
        yield from _activities(list(target.config(active_config=True).get("activities") or ()))
    elif isinstance(target, list | tuple | set | frozenset):
        for each in target:
            yield from _defined(each)
    elif inspect.isroutine(target) or isinstance(target, type):
        yield from _defined(target)
    else:
        yield from _defined(target)
        for name in dir(type(target)):
            static = inspect.getattr_static(target, name, None)
            if inspect.isfunction(static) or isinstance(static, staticmethod | classmethod):
                yield from _defined(getattr(target, name))


def _defined(target: Any) -> Iterator[_Found]:
    """What a function, bound method, class or object with ``__call__`` defines."""
    if not isinstance(target, type):
        called = target if inspect.isroutine(target) else inspect.getattr_static(type(target), "__call__", None)
        if (name := _type_of(called)) is not None:
            yield name, target, getattr(called, "__func__", called)
        return
    for attribute in dir(target):
        static = inspect.getattr_static(target, attribute, None)
        fn = static.__func__ if isinstance(static, staticmethod | classmethod) else static
        if not inspect.isfunction(fn) or (name := _type_of(fn)) is None:
            continue
        if isinstance(static, staticmethod):
            yield name, fn, fn
        else:
            bound = functools.partial(fn, None)
            yield name, marked(bound, mark_of(target if attribute == "__call__" else fn)), fn


def _type_of(fn: Any) -> str | None:
    """The activity type that ``@activity.defn`` gave a function; a dynamic activity has none."""
    return getattr(getattr(fn, "__temporal_activity_definition", None), "name", None)

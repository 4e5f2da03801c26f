"""What decides, in memory: were functions, classes or objects exchanged since they were looked at first?

It compares identities: which function a name of a module or class stands for, and which code the function has. It sees
what a library, a plugin or a debugging aid replaces. Whoever runs code in this process and knows of this module can
also change what it sees: docs/integrity.md says what follows from that.

Rules, numbered as the code marks them:

K1  A name of a watched module stands for the function, class, module or constant that it stood for.
K2  So does a name of a class that the module defines; its bases are the same, and nothing callable was added to it.
K3  A function has the code and the defaults that it had, and the functions that it was made around.
K4  An object that is watched has no attribute of its own where its class has a method.
K5  An attribute of an object that must stay is the object that it was.
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator, Mapping
from functools import _lru_cache_wrapper, cached_property, partial
from typing import Any

_CONSTANTS = (str, bytes, int, float, bool, tuple, frozenset, types.MappingProxyType, type(None))
_HOLDERS = (property, classmethod, staticmethod, cached_property)
"""What is not called itself and holds a function that is."""
_Function = tuple[types.FunctionType, types.CodeType, object, object, object]


class Watched:
    """Modules as they were when they were added, one by one."""

    def __init__(self) -> None:
        self._names: dict[str, dict[str, object]] = {}
        self._classes: dict[type, tuple[tuple[type, ...], dict[str, object]]] = {}
        self._functions: dict[int, tuple[str, _Function]] = {}
        self._modules: dict[str, types.ModuleType] = {}

    def add(self, name: str, module: types.ModuleType) -> bool:
        """Watch a module from now on; one that is watched already stays as it was.

        Returns:
            Whether the name stands for the module that it stood for.
        """
        if name in self._modules:
            return self._modules[name] is module
        self._modules[name] = module
        self._names[name] = {key: each for key, each in _copied(vars(module)).items() if _constant(key, each)}
        for key, each in self._names[name].items():
            where = f"{name}.{key}"
            if isinstance(each, type) and each.__module__ == name:
                self._add_class(where, each)
            else:
                self._add_function(where, each)
        return True

    def _add_class(self, where: str, kind: type) -> None:
        if kind in self._classes:
            return
        members = {key: each for key, each in _copied(vars(kind)).items() if _callable(key, each)}
        self._classes[kind] = (kind.__bases__, members)
        for key, each in members.items():
            self._add_function(f"{where}.{key}", each)

    def _add_function(self, where: str, value: object) -> None:
        for each in functions_in(value):
            self._functions.setdefault(id(each), (where, print_of(each)))

    def changes(self) -> Iterator[str]:
        """What has been exchanged since, a sentence each."""
        for name, names in self._names.items():
            now = vars(self._modules[name])
            for key, each in names.items():
                if now.get(key, _GONE) is not each:  # [K1]
                    yield f"{name}.{key} was replaced in memory"
        for kind, (bases, members) in self._classes.items():
            where, now = f"{kind.__module__}.{kind.__qualname__}", _copied(vars(kind))
            if kind.__bases__ != bases:  # [K2]
                yield f"the bases of {where} were replaced in memory"
            for key, each in members.items():
                if now.get(key, _GONE) is not each:  # [K2]
                    yield f"{where}.{key} was replaced in memory"
            for key, each in now.items():
                if key not in members and _callable(key, each):  # [K2]
                    yield f"{where}.{key} was added in memory"
        for where, was in self._functions.values():
            if print_of(was[0]) != was:  # [K3]
                yield f"the code of {where} was replaced in memory"


class Kept:
    """An object whose methods and some of whose attributes must stay what they are.

    Args:
        name: What it is called in a sentence.
        target: The object.
        attributes: Names of attributes that stay the same object.
    """

    def __init__(self, name: str, target: object, attributes: Iterable[str] = ()) -> None:
        self._name = name
        self._target = target
        self._attributes = {each: getattr(target, each) for each in attributes}

    def changes(self) -> Iterator[str]:
        """What has been exchanged since, a sentence each."""
        own: Mapping[str, object] = getattr(self._target, "__dict__", {})
        for name in list(own):
            method = getattr(type(self._target), name, None)
            if isinstance(method, types.FunctionType | property):  # [K4]
                yield f"{name} of {self._name} was replaced in memory"
        for name, each in self._attributes.items():
            if getattr(self._target, name, _GONE) is not each:  # [K5]
                yield f"{name} of {self._name} was replaced in memory"


_GONE = object()


def functions_in(value: object) -> Iterator[types.FunctionType]:
    """The functions that run when a name is called, as far as they can be told."""
    if isinstance(value, types.FunctionType):
        yield value
        for inner in (getattr(value, "__wrapped__", None), *_enclosed(value)):
            if isinstance(inner, types.FunctionType) and inner is not value:
                yield inner
    elif isinstance(value, _lru_cache_wrapper):
        yield from functions_in(value.__wrapped__)
    elif isinstance(value, partial):
        yield from functions_in(value.func)
    elif isinstance(value, classmethod | staticmethod | types.MethodType):
        yield from functions_in(value.__func__)
    elif isinstance(value, property):
        yield from (each for part in (value.fget, value.fset) for each in functions_in(part))
    elif isinstance(value, cached_property):
        yield from functions_in(value.func)


def print_of(function: types.FunctionType) -> _Function:
    """What must stay the same about a function."""
    defaults = _same(function.__defaults__), _same(function.__kwdefaults__)
    return function, function.__code__, *defaults, tuple(_enclosed(function))


def _enclosed(function: types.FunctionType) -> Iterator[object]:
    """The functions that a function was made around, as a decorator does."""
    for cell in function.__closure__ or ():
        try:
            value = cell.cell_contents
        except ValueError:  # it holds nothing yet
            continue
        if isinstance(value, types.FunctionType | types.MethodType):
            yield value


def _same(value: Any) -> object:
    """Something that is equal only for the very same defaults."""
    if isinstance(value, dict):
        return tuple((name, id(each)) for name, each in value.items())
    return None if value is None else tuple(map(id, value))


def _copied(names: Mapping[str, Any]) -> dict[str, Any]:
    for _ in range(100):
        try:
            return dict(names)
        except RuntimeError:  # another thread adds to them
            continue
    return {}


def _constant(name: str, value: object) -> bool:
    if name.startswith("__"):
        return False
    return callable(value) or isinstance(value, (types.ModuleType, *_HOLDERS, *_CONSTANTS))


def _callable(name: str, value: object) -> bool:
    # Python and Pydantic exchange their own when annotations are read.
    own = name.startswith(("__pydantic", "__annot"))
    return not own and (callable(value) or isinstance(value, _HOLDERS))

"""What is exchanged in memory is noticed, and what merely runs is not."""

import functools
import types
from collections.abc import Callable
from typing import Any

import pytest

from exequatur.integrity.objects import Kept, Watched

SOURCE = """
from functools import cached_property, lru_cache
import json

LIMIT = 5
cache = {}

def decide(amount, limit=LIMIT, *, strict=True):
    cache[amount] = True
    return amount < limit

@lru_cache
def remembered():
    return 1

def around(function):
    def inner(*arguments):
        return function(*arguments)
    return inner

@around
def decorated(amount):
    return amount < LIMIT

class Base:
    pass

class Engine(Base):
    kind = "usual"

    def ask(self):
        return False

    @property
    def ready(self):
        return False

    @classmethod
    def make(cls):
        return cls()

    @staticmethod
    def check():
        return False

    @cached_property
    def parsed(self):
        return 1
"""


@pytest.fixture
def module() -> types.ModuleType:
    made = types.ModuleType("engine")
    exec(SOURCE, vars(made))
    return made


def changes(module: types.ModuleType, change: Callable[[Any], object]) -> list[str]:
    watched = Watched()
    watched.add("engine", module)
    assert list(watched.changes()) == []
    change(module)
    watched.add("engine", module)  # it stays as it was
    return list(watched.changes())


def test_what_merely_runs_changes_nothing(module: types.ModuleType) -> None:
    def run(module: Any) -> None:
        module.decide(3)
        module.remembered()
        engine = module.Engine.make()
        assert (engine.parsed, engine.ready, engine.ask()) == (1, False, False)
        module.cache["more"] = 1
        module.later = 1

    assert changes(module, run) == []


@pytest.mark.rule("objects.K1")
@pytest.mark.parametrize("name", ["decide", "remembered", "Engine", "json", "LIMIT"])
def test_a_name_of_a_module_that_stands_for_something_else_is_noticed(module: types.ModuleType, name: str) -> None:
    assert f"engine.{name} was replaced in memory" in changes(module, lambda each: setattr(each, name, print))


@pytest.mark.rule("objects.K1")
def test_a_name_that_is_gone_is_noticed(module: types.ModuleType) -> None:
    assert changes(module, lambda each: delattr(each, "decide")) == ["engine.decide was replaced in memory"]


@pytest.mark.rule("objects.K2")
@pytest.mark.parametrize("name", ["ask", "ready", "make", "check", "parsed"])
def test_a_member_of_a_class_that_is_exchanged_is_noticed(module: types.ModuleType, name: str) -> None:
    found = changes(module, lambda each: setattr(each.Engine, name, property(lambda self: True)))
    assert f"engine.Engine.{name} was replaced in memory" in found


@pytest.mark.rule("objects.K2")
def test_a_member_that_is_added_to_a_class_is_noticed(module: types.ModuleType) -> None:
    found = changes(module, lambda each: setattr(each.Engine, "__getattribute__", object.__getattribute__))
    assert found == ["engine.Engine.__getattribute__ was added in memory"]


@pytest.mark.rule("objects.K2")
def test_other_bases_of_a_class_are_noticed(module: types.ModuleType) -> None:
    class Other(module.Base):  # type: ignore[name-defined]
        pass

    assert changes(module, lambda each: setattr(each.Engine, "__bases__", (Other,))) == [
        "the bases of engine.Engine were replaced in memory"
    ]


@pytest.mark.rule("objects.K3")
@pytest.mark.parametrize(
    "pick",
    [
        lambda module: module.decide,
        lambda module: module.Engine.ask,
        lambda module: vars(module.Engine)["ready"].fget,
        lambda module: vars(module.Engine)["make"].__func__,
        lambda module: vars(module.Engine)["check"].__func__,
        lambda module: vars(module.Engine)["parsed"].func,
        lambda module: module.remembered.__wrapped__,
        lambda module: module.decorated.__closure__[0].cell_contents,
    ],
)
def test_other_code_in_a_function_is_noticed(
    module: types.ModuleType, pick: Callable[[Any], types.FunctionType]
) -> None:
    found = changes(module, lambda each: setattr(pick(each), "__code__", (lambda *_, **__: True).__code__))
    assert len(found) == 1
    assert found[0].startswith("the code of engine.")


@pytest.mark.rule("objects.K3")
@pytest.mark.parametrize(("name", "value"), [("__defaults__", (10**9,)), ("__kwdefaults__", {"strict": False})])
def test_other_defaults_of_a_function_are_noticed(module: types.ModuleType, name: str, value: object) -> None:
    found = changes(module, lambda each: setattr(each.decide, name, value))
    assert found == ["the code of engine.decide was replaced in memory"]


@pytest.mark.rule("objects.K3")
def test_another_function_within_a_decorated_one_is_noticed(module: types.ModuleType) -> None:
    found = changes(module, lambda each: setattr(each.decorated.__closure__[0], "cell_contents", lambda amount: True))
    assert found == ["the code of engine.decorated was replaced in memory"]


@pytest.mark.rule("objects.K4")
def test_an_object_with_a_method_of_its_own_is_noticed(module: Any) -> None:
    engine = module.Engine()
    kept = Kept("the engine", engine)
    assert engine.parsed == 1
    assert list(kept.changes()) == []
    engine.ask = functools.partial(bool, 1)
    assert list(kept.changes()) == ["ask of the engine was replaced in memory"]


@pytest.mark.rule("objects.K5")
def test_a_part_of_an_object_that_is_exchanged_is_noticed(module: Any) -> None:
    engine = module.Engine()
    engine.policies, engine.count = object(), 0
    kept = Kept("the engine", engine, ["policies"])
    engine.count += 1
    assert list(kept.changes()) == []
    engine.policies = object()
    assert list(kept.changes()) == ["policies of the engine was replaced in memory"]

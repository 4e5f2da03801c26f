"""An archived bundle is the same bundle: its digest names the very bytes, and it decides the same."""

import json
from pathlib import Path

import pytest

from exequatur.errors import PolicyError
from exequatur.policy.arguments import ActivitySignature, convert_arguments
from exequatur.policy.bundle import PolicyBundle
from exequatur.policy.source import MAX_BUNDLE_BYTES, BundleSource, SourceFile
from exequatur.statements.encoding import digest

POLICY = '@id("grün") permit(principal in Role::"ops", action, resource); // no newline at the end'
ENTITIES = [{"uid": {"type": "User", "id": "ann"}, "attrs": {}, "parents": [{"type": "Role", "id": "ops"}]}]


def test_a_bundle_comes_back_from_its_archive() -> None:
    bundle = PolicyBundle.from_parts(POLICY, entities=ENTITIES)
    archive = bundle.source.archive
    again = PolicyBundle(BundleSource.from_archive(archive))
    assert digest(archive) == bundle.digest == again.digest
    assert again.source.archive == archive
    for user in ("ann", "bob"):
        asked = (f'User::"{user}"', 'Action::"a"', 'Workflow::"w"', {})
        assert again.evaluate(*asked) == bundle.evaluate(*asked)


def test_the_reference_policies_come_back_with_their_schema() -> None:
    bundle = PolicyBundle.from_folder(Path(__file__).parents[2] / "policies")
    again = PolicyBundle(BundleSource.from_archive(bundle.source.archive))
    assert again.digest == bundle.digest
    assert again.policies == bundle.policies


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b'{"format":"exequatur policy bundle v2","schema":null,"policies":"","entities":[]}',
        b'{"format":"exequatur policy bundle v1","schema":1,"policies":"","entities":[]}',
        b'{"format":"exequatur policy bundle v1","schema":null,"policies":null,"entities":[]}',
        b'{"format":"exequatur policy bundle v1","schema":null,"policies":"","entities":[],"more":1}',
        b"[" * 100_000,
    ],
)
def test_what_is_no_archive_is_refused(data: bytes) -> None:
    with pytest.raises(PolicyError):
        BundleSource.from_archive(data)


def test_an_archive_that_is_too_large_is_refused() -> None:
    text = "x" * MAX_BUNDLE_BYTES
    archive = {"format": "exequatur policy bundle v1", "schema": None, "policies": text, "entities": []}
    with pytest.raises(PolicyError, match="more than"):
        BundleSource.from_archive(json.dumps(archive).encode())


def test_a_bundle_whose_archive_would_be_too_large_is_refused() -> None:
    text = POLICY + "\n" + "//" + "\n" * (MAX_BUNDLE_BYTES // 2 + 1)
    with pytest.raises(PolicyError, match="larger than"):
        PolicyBundle(BundleSource((SourceFile("policies", text),)))


ORDER = {"total": 10, "lines": {"first": "a", "second": "b"}, "iban": "DE"}


@pytest.mark.parametrize(
    ("reads", "given"),
    [
        ([()], {"order": ORDER, "note": "n"}),
        ([("order", "total")], {"order": {"total": 10}}),
        ([("order", "lines", "first"), ("note",)], {"order": {"lines": {"first": "a"}}, "note": "n"}),
        ([("order", "lines"), ("order", "lines", "first")], {"order": {"lines": ORDER["lines"]}}),
        ([("order", "lines", "first"), ("order", "lines")], {"order": {"lines": ORDER["lines"]}}),
        ([("order", "absent")], {"order": {}}),
        ([("absent",)], {}),
        ([("note", "length")], {"note": "n"}),
        ([], {}),
    ],
)
def test_what_is_given_to_cedar_is_what_the_reads_can_see(reads: list[tuple[str, ...]], given: object) -> None:
    def pay(order: dict[str, object], note: str) -> None: ...

    arguments = convert_arguments(ActivitySignature.of(pay), [ORDER, "n"])
    before = json.dumps(arguments.value)
    assert arguments.given(reads) == given
    assert json.dumps(arguments.value) == before

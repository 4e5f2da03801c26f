"""The bundle file: the same bytes for the same policies, and nothing taken that is not exactly one."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exequatur.errors import PolicyError
from exequatur.policy.bundle import PolicyBundle
from exequatur.policy.source import BundleSource, SourceFile, read_folder
from exequatur.release.file import MAX_FILE_BYTES, BundleFile, Manifest, build, manifest_of
from tests.release.parties import PERMIT, PolicyTeam, made

MANIFEST = Manifest(name="policies", version="1", author="ana", time="2026-11-01T00:00:00Z")


def refusal(data: bytes) -> str:
    with pytest.raises(PolicyError) as raised:
        BundleFile.read(data, "a.bundle").open("a.bundle")
    assert "a.bundle" in str(raised.value)
    return str(raised.value)


def of(document: object) -> bytes:
    """A file whose content is this document, in canonical form."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return b'{"content":' + text.encode("utf-8", "surrogatepass") + b',"releases":[]}'


def content(**changes: Any) -> dict[str, Any]:
    return json.loads(made().content) | changes


def test_the_same_policies_give_the_same_bytes_in_whatever_folder(tmp_path):
    files = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        (folder / "b.cedar").write_text(PERMIT)
        (folder / "a.cedar").write_text('@id("no") forbid(principal, action, resource is Secret);')
        (folder / "entities.json").write_text('[{"uid": {"type": "A", "id": "ü"}, "attrs": {"n": 1}, "parents": []}]')
        files.append(build(read_folder(folder), MANIFEST)[0].to_bytes())
    assert files[0] == files[1]
    assert b"one" not in files[0]


def test_a_bundle_file_makes_the_same_bundle_as_its_folder(tmp_path):
    (tmp_path / "b.cedar").write_text(PERMIT)
    (tmp_path / "a.cedar").write_text('@id("no") forbid(principal, action, resource is Secret);')
    (tmp_path / "schema.cedarschema").write_text(
        'entity User; entity Secret; action "act" appliesTo { principal: [User], resource: [Secret] };'
    )
    (tmp_path / "entities.json").write_text('[{"uid": {"type": "User", "id": "u"}, "attrs": {}, "parents": []}]')
    file, bundle = build(read_folder(tmp_path), MANIFEST)
    opened = BundleFile.read(file.to_bytes(), "x").open("x")
    assert PolicyBundle(opened.source).digest == bundle.digest == PolicyBundle.from_folder(tmp_path).digest
    assert opened.manifest == MANIFEST
    assert [each.name for each in opened.source.policies] == ["a.cedar", "b.cedar"]


def test_a_release_beside_the_content_does_not_change_its_address(team: PolicyTeam):
    file = made()
    signed = BundleFile.read(team.release(file).to_bytes(), "x")
    assert signed.address == file.address
    assert len(signed.releases) == 1
    assert BundleFile.read(signed.to_bytes(), "x") == signed


@pytest.mark.parametrize(
    "policies", ["permit(", "permit(principal, action, resource) when { 1 };x", '@ttl("soon") ' + PERMIT]
)
def test_policies_that_a_worker_would_refuse_are_not_built(policies: str):
    with pytest.raises(PolicyError, match=r"main\.cedar"):
        made(policies)


def test_policies_that_do_not_validate_are_not_built():
    schema = SourceFile("schema.cedarschema", "entity User;")
    with pytest.raises(PolicyError, match="Missing"):
        made('permit(principal, action == Action::"Missing", resource);', schema=schema)


@pytest.mark.parametrize(
    "entities", ['[{"uid": 1, "uid": {"type": "A", "id": "a"}, "attrs": {}, "parents": []}]', "[NaN]", "{}", "["]
)
def test_entities_that_can_be_read_in_two_ways_are_not_built(entities: str):
    with pytest.raises(PolicyError):
        made(PERMIT, entities=SourceFile("entities.json", entities))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "a/b"),
        ("name", "../up"),
        ("name", "team.canary"),
        ("name", ""),
        ("name", "x" * 101),
        ("version", ""),
        ("version", "1\n2"),
        ("author", "\x1b[31m"),
        ("time", "yesterday"),
        ("time", "2026-02-30T00:00:00Z"),
        ("time", "2026-11-01T00:00:00+01:00"),
        ("time", "2026-1-1T0:0:0Z"),
    ],
)
def test_a_manifest_says_nothing_that_misleads(field: str, value: str):
    with pytest.raises(PolicyError, match=f"The {field} "):
        manifest_of(MANIFEST.model_dump() | {field: value})


@pytest.mark.rule("J11")
def test_a_file_that_is_too_large_is_refused():
    assert "larger than" in refusal(b" " * (MAX_FILE_BYTES + 1))


@pytest.mark.rule("J11")
def test_a_file_with_too_many_releases_is_refused():
    releases = ",".join(['"a.b.c"'] * 9).encode()
    assert "9 releases" in refusal(made().to_bytes().replace(b'"releases":[]', b'"releases":[' + releases + b"]"))


@pytest.mark.rule("J12")
@pytest.mark.parametrize("cut", [1, 2, 3, 15, 40])
def test_a_file_that_did_not_arrive_whole_is_refused(cut: int, team: PolicyTeam):
    data = team.release(made()).to_bytes()
    assert "not a whole bundle file" in refusal(data[:-cut])
    assert "not a whole bundle file" in refusal(data[cut:])


@pytest.mark.rule("J12")
@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"null", b"\xff\xfe", b'{"content":{}}', b'{"content":{},"releases":["a b"]}', b"<html></html>"],
)
def test_what_is_no_bundle_file_is_refused(data: bytes):
    assert "not a whole bundle file" in refusal(data)


@pytest.mark.rule("J13")
def test_a_second_spelling_of_a_content_is_refused():
    data = made().to_bytes()
    assert "canonical" in refusal(data.replace(b'"schema":null', b'"schema": null'))
    assert "canonical" in refusal(data.replace(b'"author":"ana"', b'"author":"\\u0061na"'))


@pytest.mark.rule("J13")
def test_a_member_that_appears_twice_is_refused():
    assert "twice" in refusal(made().to_bytes().replace(b'"schema":null', b'"schema":null,"schema":null'))


@pytest.mark.rule("J13")
@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"more": 1}, "more"),
        ({"format": "exequatur policy bundle file v2"}, "format"),
        ({"schema": 7}, "schema"),
        ({"policies": []}, "policies"),
        ({"policies": [{"name": "a.cedar", "text": None}]}, "policies"),
        ({"policies": [{"name": "a.cedar", "text": "", "more": 1}]}, "policies"),
        ({"entities": {}}, "entities"),
        ({"entities": ["x"]}, "entities"),
        ({"manifest": {}}, "manifest"),
        ({"manifest": None}, "manifest"),
    ],
)
def test_a_content_with_anything_missing_unknown_or_ill_typed_is_refused(changes: dict[str, Any], field: str):
    assert field in refusal(of(content(**changes)))


@pytest.mark.parametrize("document", [[], None, 7, "x", {}])
def test_a_content_of_another_kind_is_refused(document: object):
    refusal(of(document))


@pytest.mark.rule("J14")
@pytest.mark.parametrize(
    "names", [["b.cedar", "a.cedar"], ["a.cedar", "a.cedar"], ["../a.cedar"], ["a.txt"], ["a\n.cedar"]]
)
def test_policies_that_are_not_named_files_in_order_are_refused(names: list[str]):
    policies = [{"name": name, "text": PERMIT} for name in names]
    assert "named files" in refusal(of(content(policies=policies)))


@pytest.mark.parametrize("depth", [500, 100_000, 3_000_000])
def test_a_content_that_is_nested_deeply_is_refused(depth: int):
    refusal(b'{"content":' + b"[" * depth + b"]" * depth + b',"releases":[]}')
    refusal(b'{"content":' + b'{"a":' * depth + b"1" + b"}" * depth + b',"releases":[]}')


def test_text_that_is_no_unicode_is_refused():
    refusal(of(content(schema="\ud800")))
    refusal(made().to_bytes().replace(b"ana", b"\\ud800"))
    refusal(made().to_bytes().replace(b"ana", b"\xff"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)


@given(st.binary(max_size=300) | JSON.map(of))
def test_no_bytes_crash_or_are_taken_by_accident(data: bytes):
    with pytest.raises(PolicyError):
        BundleFile.read(data, "x").open("x")


@given(st.sampled_from(["format", "manifest", "schema", "policies", "entities"]), JSON)
def test_no_value_of_a_member_crashes(member: str, value: object):
    with suppress(PolicyError):
        BundleFile.read(of(content(**{member: value})), "x").open("x")


@given(st.data())
def test_no_changed_byte_leaves_the_same_content(data: st.DataObject):
    whole = made().to_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != whole[at]))
    with suppress(PolicyError):
        assert BundleFile.read(whole[:at] + bytes([byte]) + whole[at + 1 :], "x").address != made().address


def test_a_source_that_is_no_folder_has_no_file_names_and_is_refused():
    with pytest.raises(PolicyError, match="named files"):
        build(BundleSource((SourceFile("policies", PERMIT),)), MANIFEST)

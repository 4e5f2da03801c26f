"""Evidence as a document: it brings what a store holds, or a part of it, and nothing unverified gets in."""

from __future__ import annotations

import io
import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exequatur.errors import EvidenceError
from exequatur.lineage.checkpoint import Checkpoint, run_origin, sign
from exequatur.lineage.link import check_link, genesis_of
from exequatur.lineage.record import Record
from exequatur.lineage.store import EvidenceStore, Imported, Run
from exequatur.statements.encoding import digest, to_base64url
from exequatur.statements.keys import SigningKey
from tests.lineage.chained import LOG, OTHER, bundle, chained, decision, decisions, receipt, records_of

START = genesis_of(LOG)
Bend = Callable[[dict[str, Any]], object]


def exported(store: EvidenceStore, workflow_id: str | None = None, **members: Any) -> bytes:
    out = io.BytesIO()
    store.export(out, workflow_id, **members)
    return out.getvalue()


def import_into(store: EvidenceStore, data: bytes, **limits: int) -> Imported:
    return store.import_(io.BytesIO(data), **limits)


def all_of(store: EvidenceStore) -> list[Record]:
    return [record for log in store.logs() for record in records_of(store.records(log.log_id))]


def note(workflow_id: str = "refund-1") -> str:
    origin = run_origin("example.org/main", "default", workflow_id, "run-1")
    return sign(Checkpoint(origin, 3, b"\1" * 32), "example.org/notary", SigningKey.generate())


def keep(store: EvidenceStore, signed: str) -> None:
    origin, size, _ = signed.split("\n", 2)
    store.add_checkpoint(signed, origin, int(size), b"\1" * 32)


@pytest.fixture(scope="module")
def document() -> bytes:
    """Two logs of one workflow, a bundle and a checkpoint."""
    with EvidenceStore.open("sqlite://") as store:
        store.append(LOG, chained(decision(bundle=digest("text")), receipt(run_id="run-1"), bundle("text")), START)
        store.append(OTHER, decisions(1, OTHER), genesis_of(OTHER))
        keep(store, note())
        return exported(store, trust={"keys": []}, proofs=[{"any": "JSON"}])


# What is written.


def test_a_document_brings_all_that_the_store_holds(store: EvidenceStore, document: bytes) -> None:
    brought = import_into(store, document)
    assert brought == Imported(4, 1, {"keys": []}, [{"any": "JSON"}])
    assert import_into(store, document) == Imported(0, 0, {"keys": []}, [{"any": "JSON"}])
    assert exported(store, trust=brought.trust, proofs=brought.proofs) == document
    assert [log.size for log in store.logs()] == [3, 1]
    assert store.bundle(digest("text")) == b"text"


def test_an_empty_store_is_a_document_too(store: EvidenceStore) -> None:
    assert json.loads(exported(store)) == {"version": "exequatur evidence v1", "logs": [], "checkpoints": []}
    assert import_into(store, exported(store)) == Imported(0, 0, None, None)


def test_a_document_looks_as_documented(store: EvidenceStore) -> None:
    (record,) = decisions(1)
    store.append(LOG, [record], START)
    content = json.loads(exported(store))
    assert content["logs"] == [
        {
            "log_id": LOG,
            "records": [
                {
                    "index": 0,
                    "at": record.at,
                    "kind": "decision",
                    "request": record.request,
                    "run": "run",
                    "attempt": 1,
                    "body": to_base64url(record.body),
                    "previous": START,
                    "head": record.head,
                }
            ],
        }
    ]


def test_a_file_is_replaced_when_all_is_written_and_is_its_owners(store: EvidenceStore, tmp_path: Path) -> None:
    store.append(LOG, decisions(3), START)
    (tmp_path / "out").mkdir()
    target = tmp_path / "out" / "evidence.json"
    target.write_text("before")
    assert store.export(target) == 3
    assert target.read_bytes() == exported(store)
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    with pytest.raises(ValueError, match="serialize"):
        store.export(target, proofs=object())
    assert target.read_bytes() == exported(store)
    assert [file.name for file in target.parent.iterdir()] == ["evidence.json"]
    with pytest.raises(EvidenceError, match="nowhere"):
        store.export(tmp_path / "nowhere" / "evidence.json")


def test_one_workflow_is_exported_with_its_bundles_and_checkpoints_and_nothing_else(
    store: EvidenceStore, tmp_path: Path
) -> None:
    mine = chained(
        bundle("mine"),
        bundle("theirs"),
        decision("refund-1", "run-1", bundle=digest("mine")),
        decision("refund-2", "run-2", bundle=digest("theirs")),
        receipt(run_id="run-1"),
        decision("refund-1", "run-3"),
    )
    store.append(LOG, mine, START)
    store.append(OTHER, decisions(2, OTHER), genesis_of(OTHER))
    keep(store, note("refund-1"))
    keep(store, note("refund-2"))
    with EvidenceStore.open(tmp_path / "part.db") as part:
        assert import_into(part, exported(store, "refund-1")).records == 6
        assert [(record.log_id, record.index) for record in all_of(part)] == [
            *((LOG, index) for index in (0, 2, 4, 5)),
            *((OTHER, index) for index in (0, 1)),
        ]
        for log in part.logs():
            for link in part.records(log.log_id):
                check_link(link)
        assert list(part.runs()) == [Run("refund-1", "run-1"), Run("refund-1", "run-3")]
        assert part.bundle(digest("mine")) == b"mine"
        assert [text.split("\n")[0] for text in part.checkpoints()] == [
            run_origin("example.org/main", "default", "refund-1", "run-1")
        ]
        assert part.log(LOG).size == 1, "what comes after a gap does not count as known"


# What is read.


def test_a_part_of_a_log_is_kept_and_completed_later(store: EvidenceStore, tmp_path: Path) -> None:
    records = decisions(6)
    with EvidenceStore.open(tmp_path / "whole.db") as whole:
        whole.append(LOG, records, START)
        content = json.loads(exported(whole))
    everything = content["logs"][0]["records"]

    def part(*indices: int) -> bytes:
        content["logs"][0]["records"] = [everything[index] for index in indices]
        return json.dumps(content).encode()

    assert import_into(store, part(4, 1)).records == 2
    assert store.log(LOG).size == 0
    assert import_into(store, part(0, 1)).records == 1
    assert store.log(LOG).size == 2
    assert store.append(LOG, records[2:4], records[1].head) == 2
    assert store.log(LOG).size == 5, "the record that was there already is counted"
    assert store.append(LOG, records[5:], records[4].head) == 1
    assert all_of(store) == records


@pytest.mark.parametrize("index", [3, 5])
def test_a_record_that_does_not_fit_those_beside_it_is_refused(
    store: EvidenceStore, tmp_path: Path, index: int
) -> None:
    """Also where the log is not known without a gap."""
    contents = []
    for forged in (False, True):
        with EvidenceStore.open(tmp_path / f"{forged}.db") as other:
            other.append(LOG, decisions(6, forged=forged), START)
            contents.append(json.loads(exported(other)))
    honest, forged_ = contents
    honest["logs"][0]["records"] = [honest["logs"][0]["records"][4]]
    forged_["logs"][0]["records"] = [forged_["logs"][0]["records"][index]]
    import_into(store, json.dumps(honest).encode())
    with pytest.raises(EvidenceError, match="log forked"):
        import_into(store, json.dumps(forged_).encode())
    assert [record.index for record in all_of(store)] == [4]


@pytest.mark.parametrize("index", [0, 1, 2, 3])
def test_a_document_that_forks_a_log_is_refused_whole(store: EvidenceStore, tmp_path: Path, index: int) -> None:
    """At a place that is taken, and right before and behind one."""
    honest, forged = decisions(4), decisions(4, forged=True)
    store.append(LOG, honest[:3], START)
    before = exported(store)
    with EvidenceStore.open(tmp_path / "forged.db") as other:
        other.append(LOG, forged, START)
        other.append("0000000000000000", decisions(1, "0000000000000000"), genesis_of("0000000000000000"))
        keep(other, note())
        content = json.loads(exported(other))
    content["logs"][1]["records"] = [content["logs"][1]["records"][index]]
    with pytest.raises(EvidenceError, match="log forked"):
        import_into(store, json.dumps(content).encode())
    assert exported(store) == before


def test_a_document_that_contradicts_itself_is_refused(store: EvidenceStore, tmp_path: Path) -> None:
    logs = []
    for name, forged in (("a", False), ("b", True)):
        with EvidenceStore.open(tmp_path / name) as other:
            other.append(LOG, chained(decision(), decision(forged=forged)), START)
            logs += json.loads(exported(other))["logs"]
    content = {"version": "exequatur evidence v1", "logs": logs, "checkpoints": []}
    with pytest.raises(EvidenceError, match="log forked"):
        import_into(store, json.dumps(content).encode())
    assert list(store.logs()) == []


def test_a_log_may_stand_in_a_document_more_than_once(store: EvidenceStore, document: bytes) -> None:
    content = json.loads(document)
    content["logs"] += content["logs"]
    assert import_into(store, json.dumps(content).encode()).records == 4


def first(content: dict[str, Any]) -> dict[str, Any]:
    record: dict[str, Any] = content["logs"][0]["records"][0]
    return record


@pytest.mark.parametrize(
    ("bend", "rule"),
    [
        (lambda content: content.update(version="exequatur evidence v2"), "Z6"),
        (lambda content: content.pop("version"), "Z6"),
        (lambda content: content.pop("logs"), "Z6"),
        (lambda content: content.update(more=1), "Z6"),
        (lambda content: content.update(trust=[]), "Z6"),
        (lambda content: content.update(checkpoints={}), "Z6"),
        (lambda content: content["logs"][0].update(log_id="zz"), "Z6"),
        (lambda content: content["logs"][0].update(log_id=OTHER + "\n"), "Z6"),
        (lambda content: first(content).update(more=1), "Z6"),
        (lambda content: first(content).pop("previous"), "Z6"),
        (lambda content: first(content).update(index="0"), "Z6"),
        (lambda content: first(content).update(index=True), "Z6"),
        (lambda content: first(content).update(index=-1), "Z6"),
        (lambda content: first(content).update(index=2**63), "Z6"),
        (lambda content: first(content).update(index=2**62), "Z8"),
        (lambda content: first(content).update(index=3), "Z10"),
        (lambda content: first(content).update(at=1e999), "Z6"),
        (lambda content: first(content).update(at=None), "Z6"),
        (lambda content: first(content).update(attempt=-1), "Z6"),
        (lambda content: first(content).update(attempt=2), "Z9"),
        (lambda content: first(content).update(kind="\ud800"), "Z6"),
        (lambda content: first(content).update(body="e30"), "Z9"),
        (lambda content: first(content).update(body="e31"), "Z7"),
        (lambda content: first(content).update(body="e30="), "Z7"),
        (lambda content: first(content).update(previous=digest("another")), "Z10"),
        (lambda content: first(content).update(head=digest("another")), "Z9"),
        (lambda content: first(content).update(head="short"), "Z6"),
        (lambda content: content["logs"][0]["records"][1].update(previous=digest("another")), "Z9"),
        (lambda content: content.update(checkpoints=["no note"]), "N3"),
    ],
)
def test_a_document_with_anything_wrong_in_it_is_refused_whole(
    store: EvidenceStore, document: bytes, bend: Bend, rule: str
) -> None:
    content = json.loads(document)
    bend(content)
    with pytest.raises(EvidenceError, match=rf"\[{rule}\]"):
        import_into(store, json.dumps(content).encode())
    assert list(store.logs()) == []
    assert list(store.checkpoints()) == []


def test_a_record_does_not_come_in_under_another_number(store: EvidenceStore, tmp_path: Path) -> None:
    """Its number is not hashed, but a head is followed by one record only."""
    with EvidenceStore.open(tmp_path / "other.db") as other:
        other.append(LOG, decisions(5), START)
        content = json.loads(exported(other))
    everything = content["logs"][0]["records"]
    content["logs"][0]["records"] = [everything[2], everything[2] | {"index": 9}]
    with pytest.raises(EvidenceError, match="log forked: record 9"):
        import_into(store, json.dumps(content).encode())
    content["logs"][0]["records"] = everything[2:3]
    import_into(store, json.dumps(content).encode())
    content["logs"][0]["records"] = [everything[2] | {"index": 9}]
    with pytest.raises(EvidenceError, match="log forked: record 9"):
        import_into(store, json.dumps(content).encode())
    assert [record.index for record in all_of(store)] == [2]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"{}",
        b"\xff",
        b"[" * 100_000,
        b'{"version":' + b"1" * 10_000 + b"}",
        b'{"a":1,"a":1}',
    ],
    ids=range(9),
)
def test_what_is_no_document_is_refused(store: EvidenceStore, data: bytes) -> None:
    with pytest.raises(EvidenceError, match="Z6"):
        import_into(store, data)


def test_a_document_of_another_version_says_to_upgrade(store: EvidenceStore) -> None:
    for version in ("exequatur evidence v2", None, 7):
        with pytest.raises(EvidenceError, match="upgrade exequatur"):
            import_into(store, json.dumps({"version": version, "new": 1}).encode())


def test_a_document_with_something_behind_it_or_a_member_twice_is_refused(
    store: EvidenceStore, document: bytes
) -> None:
    for data in (document + b"{}", document.replace(b'{"version"', b'{"version":"exequatur evidence v1","version"', 1)):
        with pytest.raises(EvidenceError, match="Z6"):
            import_into(store, data)


def test_a_document_is_read_up_to_its_limits_only(store: EvidenceStore, document: bytes) -> None:
    with pytest.raises(EvidenceError, match="Z5"):
        import_into(store, document, max_bytes=len(document) - 1)
    with pytest.raises(EvidenceError, match="Z5"):
        import_into(store, document, max_records=3)
    with Path("/dev/zero").open("rb") as endless, pytest.raises(EvidenceError, match="Z5"):
        store.import_(endless, max_bytes=1000)
    assert import_into(store, document, max_bytes=len(document), max_records=4).records == 4


def test_a_stream_that_gives_a_little_at_a_time_is_read_whole(store: EvidenceStore, document: bytes) -> None:
    class Trickle(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(size or 0, 7))

    assert store.import_(Trickle(document)).records == 4


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), cut=st.integers(0, 3), put=st.binary(max_size=3))
def test_whatever_is_changed_in_a_document_only_what_verifies_gets_in(
    document: bytes, place: float, cut: int, put: bytes
) -> None:
    start = int(place * len(document))
    changed = document[:start] + put + document[start + cut :]
    with EvidenceStore.open("sqlite://") as store:
        try:
            import_into(store, changed)
        except EvidenceError:
            assert list(store.logs()) == []
            return
        with EvidenceStore.open("sqlite://") as honest:
            import_into(honest, document)
            for log in store.logs():
                kept = records_of(store.records(log.log_id))
                assert kept == records_of(honest.records(log.log_id))


def test_a_checkpoint_in_a_document_gets_its_signatures_merged(store: EvidenceStore) -> None:
    signed = note()
    keep(store, signed)
    more = note()
    content = {"version": "exequatur evidence v1", "logs": [], "checkpoints": [more]}
    assert import_into(store, json.dumps(content).encode()).checkpoints == 1
    assert list(store.checkpoints()) == [signed + more.split("\n\n")[1]]

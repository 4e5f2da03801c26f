"""Rules P: may the workflow believe this result?"""

import struct
from typing import Any

import pytest

from exequatur.gate.wire import payloads_digest
from exequatur.statements.encoding import digest, from_base64url
from exequatur.statements.jws import Token
from exequatur.statements.models import Receipt
from exequatur.statements.packing import pack
from exequatur.statements.receipts import verify_receipt
from exequatur.statements.verification import Credentials, Scope
from tests.simulator import SITE, Scene, Worker, bend, refused, wrongly_signed


def verify(
    scene: Scene, *tokens: str, packed: bytes | None = None, known: Credentials | None = None, **given: Any
) -> Token[Receipt]:
    """What the workflow makes of a receipt with what came along, knowing no credential yet."""
    return verify_receipt(
        pack(tokens) if tokens else packed,
        scene.core(),
        payloads_digest([scene.result]),
        Credentials(scene.trust) if known is None else known,
        Scope(SITE, "default", "orders", "charge"),
        **given,
    )


def test_an_honest_receipt_is_believed(scene: Scene) -> None:
    assert verify(scene, scene.activities.credential, scene.receipt()).claims.outcome == "completed"


@pytest.mark.rule("P1")
def test_a_result_without_a_receipt_is_refused(scene: Scene) -> None:
    with refused("P1"):
        verify(scene)


@pytest.mark.rule("P1")
def test_a_receipt_over_the_cap_is_refused_before_it_is_unpacked(scene: Scene) -> None:
    # Packed anew without compression: honest tokens, too many bytes.
    honest = pack([scene.activities.credential, scene.receipt(reason="x" * 400)])
    bulky = bytes([1]) + b"".join(stored(token) for token in (scene.activities.credential, scene.receipt()))
    assert verify(scene, packed=honest)
    with refused("P1"):
        verify(scene, packed=bulky)


def stored(token: str) -> bytes:
    """A token packed in deflate blocks that store instead of compressing, most of them empty (RFC 1951, 3.2.4)."""
    header, claims, signature = map(from_base64url, token.split("."))
    text = header + b"\x00" + claims
    stream = b"\x00\x00\x00\xff\xff" * 2500 + b"\x01" + struct.pack("<HH", len(text), len(text) ^ 0xFFFF) + text
    body = struct.pack(">H", len(stream)) + stream + signature
    return struct.pack(">H", len(body)) + body


@pytest.mark.rule("P1")
def test_a_receipt_among_other_tokens_is_refused(scene: Scene) -> None:
    with refused("P1"):
        verify(scene, scene.workflows.credential, scene.activities.credential, scene.receipt())


@pytest.mark.rule("P1")
def test_a_receipt_of_no_tokens_is_refused(scene: Scene) -> None:
    with refused("P1"):
        verify(scene, packed=b"\x01")


def test_a_credential_that_came_with_a_receipt_before_need_not_come_again(scene: Scene) -> None:
    known = scene.credentials(scene.activities.credential)
    assert verify(scene, scene.receipt(), known=known)


@pytest.mark.rule("P2")
def test_a_receipt_without_its_credential_is_refused(scene: Scene) -> None:
    with refused("C4"):
        verify(scene, scene.receipt())


@pytest.mark.rule("P2")
def test_a_receipt_that_no_worker_signed_is_refused(scene: Scene) -> None:
    with refused("C4"):
        verify(scene, scene.activities.credential, bend(scene.receipt(), scene.attacker))
    with refused("V7"):
        verify(scene, scene.activities.credential, wrongly_signed(scene.receipt(), scene.attacker))


@pytest.mark.rule("P2")
@pytest.mark.parametrize(
    ("limit", "rule"),
    [
        ({"roles": ("request",)}, "C5"),
        ({"task_queues": ("payouts",)}, "C6"),
        ({"activities": ("refund",)}, "C6"),
        ({"namespaces": ("other",)}, "C6"),
        ({"aud": "example.org/other"}, "C2"),
    ],
    ids=str,
)
def test_a_receipt_by_a_worker_that_may_not_give_it_is_refused(scene: Scene, limit: dict[str, Any], rule: str) -> None:
    worker = Worker(scene.authority, "limited", **limit)
    with refused(rule):
        verify(scene, worker.credential, scene.receipt(by=worker))


@pytest.mark.rule("P3")
def test_the_receipt_for_another_request_is_refused(scene: Scene) -> None:
    for request in (digest("another request"), None):
        with refused("P3"):
            verify(scene, scene.activities.credential, scene.receipt(request=request))


@pytest.mark.rule("P4")
@pytest.mark.parametrize("decision", ["deny", "none"])
def test_the_receipt_of_an_activity_that_was_not_allowed_is_refused(scene: Scene, decision: str) -> None:
    with refused("P4"):
        verify(scene, scene.activities.credential, scene.receipt(decision=decision))


def test_the_receipt_of_an_activity_that_was_only_observed_is_believed(scene: Scene) -> None:
    assert verify(scene, scene.activities.credential, scene.receipt(decision="deny", enforced=False))


@pytest.mark.rule("P5")
@pytest.mark.parametrize("outcome", ["failed", "cancelled", "async", "denied", "rejected", "unavailable", "revoked"])
def test_the_receipt_of_an_activity_that_did_not_complete_is_refused(scene: Scene, outcome: str) -> None:
    with refused("P5"):
        verify(scene, scene.activities.credential, scene.receipt(outcome=outcome))


@pytest.mark.rule("P6")
def test_the_receipt_for_another_result_is_refused(scene: Scene) -> None:
    for result in (digest("another result"), None):
        with refused("P6"):
            verify(scene, scene.activities.credential, scene.receipt(result=result))


@pytest.mark.rule("P7")
def test_the_receipt_of_a_local_activity_repeats_what_was_requested(scene: Scene) -> None:
    args = digest("args")
    local = {"core": scene.core(), "args": args}
    assert verify(scene, scene.activities.credential, scene.receipt(**local), local_args=args)
    for change in (
        {"args": digest("other args")},
        {"args": None},
        {"core": scene.core().model_copy(update={"seq": 2})},
        {"core": None},
    ):
        with refused("P7"):
            verify(scene, scene.activities.credential, scene.receipt(**local | change), local_args=args)

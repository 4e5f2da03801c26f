"""Rules M11 to M33: may this message reach a run, and only once?"""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exequatur.errors import UnknownKeyError
from exequatur.statements.encoding import digest
from exequatur.statements.jws import parse
from exequatur.statements.messages import Admitted, Arrived, meant_for_another_run, verify_message
from exequatur.statements.models import Message, Permit
from exequatur.statements.trust import TrustStore
from exequatur.statements.used import BEFORE, MAX_CARRIED, MAX_REMEMBERED, Used
from tests.simulator import AUD, NOW, Scene, Worker, authorize, bend, refused, wrongly_signed

STOP = Arrived("signal", "refund-1", "stop", digest("args"), NOW)
"""The signal that the honest permit and the honest message are for."""


def sender(scene: Scene, **changes: Any) -> str:
    """The grant of the run that signals."""
    return scene.authority.grant(
        jti="grant-9", authorization=authorize(workflow_id="sender-1", workflow_type="Sender"), **changes
    )


def from_run(scene: Scene, grant: str | None = None, by: Worker | None = None, **changes: Any) -> list[str]:
    """What the header of a signal from another run holds."""
    grant = grant or sender(scene)
    by = by or scene.workflows
    return [grant, by.credential, scene.message_under(grant, by, **changes)]


def admit(scene: Scene, *tokens: str, arrived: Arrived = STOP, aud: str = AUD, **changes: Any) -> Admitted:
    return verify_message(tokens, scene.trust, aud=aud, arrived=replace(arrived, **changes))


def test_an_honest_permit_lets_its_message_pass(scene: Scene) -> None:
    admitted = admit(scene, scene.authority.permit())
    assert (admitted.principal, admitted.sender) == ('User::"dana"', None)


def test_an_honest_message_of_another_run_passes(scene: Scene) -> None:
    admitted = admit(scene, *from_run(scene))
    assert (admitted.principal, admitted.sender) == ('Agent::"ops-bot"', "sender-1")


def test_a_message_of_a_child_passes_with_its_delegation(scene: Scene) -> None:
    grant = scene.authority.grant(authorization=authorize(workflow_id="parent-1"))
    delegation = scene.delegation_under(grant, authorization_details=(authorize(workflow_id="sender-1"),))
    tokens = [grant, scene.workflows.credential, delegation, scene.message_under(delegation)]
    assert admit(scene, *tokens).sender == "sender-1"


@pytest.mark.rule("M11")
def test_anything_but_one_permit_or_a_chain_with_a_message_is_refused(scene: Scene) -> None:
    permit = scene.authority.permit()
    grant, credential, message = from_run(scene)
    for tokens in (
        [permit, permit],
        [grant],
        [message],
        [credential, message],
        [grant, permit],
        [grant, message, message],
        [grant, permit, message],
        [permit, credential],
        [grant, scene.request],
    ):
        with refused("M11"):
            admit(scene, *tokens)


@pytest.mark.rule("M12")
@pytest.mark.parametrize("aud", ["a.test/prod/other", "a.test/other/default", "b.test/prod/default"])
def test_what_is_for_another_place_is_refused(scene: Scene, aud: str) -> None:
    with refused("M12"):
        admit(scene, scene.authority.permit(aud=aud))
    with refused("M12"):
        admit(scene, *from_run(scene, aud=aud))


@pytest.mark.rule("M12")
def test_a_place_that_is_not_known_here_is_refused_whatever_keys_are_known(scene: Scene) -> None:
    other = Scene()
    with refused("M12"):
        admit(scene, other.authority.permit(aud="b.test/prod/default"))


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        pytest.param({"kind": "query"}, "M13", marks=pytest.mark.rule("M13")),
        pytest.param({"kind": "update"}, "M13", marks=pytest.mark.rule("M13")),
        pytest.param({"target": "refund-2"}, "M14", marks=pytest.mark.rule("M14")),
        pytest.param({"name": "go"}, "M15", marks=pytest.mark.rule("M15")),
        pytest.param({"args": digest("other")}, "M16", marks=pytest.mark.rule("M16")),
        pytest.param({"now": NOW + 3600.0}, "M17", marks=pytest.mark.rule("M17")),
        pytest.param({"now": NOW + 1e6}, "M17", marks=pytest.mark.rule("M17")),
    ],
    ids=str,
)
def test_what_was_signed_for_another_message_is_refused(scene: Scene, change: dict[str, Any], rule: str) -> None:
    with refused(rule):
        admit(scene, scene.authority.permit(), **change)
    with refused(rule):
        admit(scene, *from_run(scene), **change)


@pytest.mark.rule("M18")
def test_a_permit_that_the_authority_did_not_sign_is_refused(scene: Scene) -> None:
    with pytest.raises(UnknownKeyError):
        admit(scene, bend(scene.authority.permit(), scene.attacker))
    with refused("V7"):
        admit(scene, wrongly_signed(scene.authority.permit(), scene.attacker))
    with refused("T2"):
        admit(scene, bend(scene.authority.permit(), scene.authority.grant_key))
    with refused("T4"):
        admit(scene, scene.authority.permit(iss="dev:another"))
    with refused("T3"):
        admit(scene, scene.authority.permit(iat=NOW - 1e7))


@pytest.mark.rule("M19")
def test_a_message_under_a_grant_that_does_not_verify_is_refused(scene: Scene) -> None:
    grant = sender(scene)
    with refused("V7"):
        admit(scene, *from_run(scene, wrongly_signed(grant, scene.attacker)))
    with pytest.raises(UnknownKeyError):
        admit(scene, *from_run(scene, bend(grant, scene.attacker)))
    with refused("G2"):
        admit(scene, *from_run(scene, sender(scene, aud="a.test/prod/other")))


@pytest.mark.rule("M20")
def test_a_message_that_no_worker_signed_is_refused(scene: Scene) -> None:
    grant, credential, message = from_run(scene)
    with refused("C4"):
        admit(scene, grant, credential, bend(message, scene.attacker))
    with refused("C4"):
        admit(scene, grant, message)
    limited = Worker(scene.authority, "limited", roles=("receipt", "delegate"))
    with refused("C5"):
        admit(scene, *from_run(scene, by=limited))
    elsewhere = Worker(scene.authority, "elsewhere", namespaces=("other",))
    with refused("C6"):
        admit(scene, *from_run(scene, by=elsewhere))


@pytest.mark.rule("M21")
def test_a_message_of_another_run_than_its_chain_is_for_is_refused(scene: Scene) -> None:
    with refused("M21"):
        admit(scene, *from_run(scene, grant=scene.grant))
    with refused("M21"):
        admit(scene, *from_run(scene, grant=None, workflow_id="sender-2"))
    _, credential, message = from_run(scene)
    with refused("M21"):
        admit(scene, sender(scene, parents=("Role::admin",)), credential, message)


@pytest.mark.rule("M21")
def test_what_a_schedule_started_sends_under_the_schedules_grant(scene: Scene) -> None:
    details = authorize(workflow_type="Sender", workflow_id="sender-1", reuse="schedule", schedule="nightly")
    grant = sender(scene, authorization_details=(details,))
    due = "sender-1-2026-11-23T03:00:00Z"
    admit(scene, *from_run(scene, grant, workflow_id=due))
    for other in ("sender-1", "sender-2-2026-11-23T03:00:00Z", "sender-1-soon"):
        with refused("M21"):
            admit(scene, *from_run(scene, grant, workflow_id=other))


@pytest.mark.rule("M21")
def test_a_message_that_was_sent_after_the_grant_had_ended_is_refused(scene: Scene) -> None:
    with refused("M21"):
        admit(scene, *from_run(scene, sender(scene, exp=NOW - 1, start_by=NOW - 30)))


@pytest.mark.rule("M22")
def test_a_message_that_cedar_did_not_allow_is_refused_and_says_why(scene: Scene) -> None:
    with pytest.raises(Exception, match="policy calm: not at night") as refusal:
        admit(scene, *from_run(scene, decision="deny", reason="policy calm: not at night"))
    assert getattr(refusal.value, "rule", None) == "M22"


@pytest.mark.rule("M23")
def test_what_names_a_run_is_for_that_run(scene: Scene) -> None:
    for tokens in ([scene.authority.permit(run_id="run-1")], from_run(scene, target_run_id="run-1")):
        admitted = admit(scene, *tokens)
        assert meant_for_another_run(admitted, "run-1", "run-0") is None
        assert meant_for_another_run(admitted, "run-0", "run-1") is None
        problem = meant_for_another_run(admitted, "run-2", "run-0")
        assert problem is not None
        assert problem.rule == "M23"
    assert meant_for_another_run(admit(scene, scene.authority.permit()), "run-1") is None


@given(tokens=st.lists(st.text(max_size=200), min_size=1, max_size=4))
def test_no_text_at_all_passes_or_crashes(tokens: list[str]) -> None:
    with pytest.raises(Exception) as refusal:  # noqa: PT011 (the type is what is asserted)
        verify_message(tokens, TrustStore(), aud=AUD, arrived=STOP)
    assert type(refusal.value).__name__ in ("StatementError", "UnknownKeyError")


def used_by(*entries: tuple[str, float]) -> Used:
    used = Used()
    for name, iat in entries:
        used.take(digest(name), iat)
    return used


@pytest.mark.rule("M31")
def test_a_permit_is_good_once() -> None:
    used = used_by(("one", NOW), ("two", NOW))
    with refused("M31"):
        used.take(digest("one"), NOW)
    used.take(digest("three"), NOW)


@pytest.mark.rule("M33")
def test_what_was_used_is_not_good_in_the_next_run_nor_in_the_one_after() -> None:
    used = used_by(("one", NOW + 60.5), ("two", NOW - 2 * BEFORE))
    for _ in range(2):
        entries, until = used.carried(NOW + 40)
        assert until is None
        assert len(entries) == 1
        used = Used()
        used.carry(entries, until)
    with refused("M31"):
        used.take(digest("one"), NOW + 60.5)
    used.take(digest("four"), NOW + 41)


@pytest.mark.rule("M33")
@pytest.mark.parametrize("entry", ["", "short", "x" * 8, "xxxxxxxx-1", "xxxxxxxx1e9", f"xxxxxxxx{10**14}", "xxxxxxxx²"])
def test_a_seal_that_lists_something_else_is_refused(entry: str) -> None:
    with refused("M33"):
        Used().carry([entry], None)


@pytest.mark.rule("M32")
def test_what_a_seal_has_no_room_for_counts_as_used() -> None:
    many = MAX_CARRIED + 10
    used = used_by(*((f"p{i}", NOW + i) for i in range(many)))
    entries, until = used.carried(NOW)
    assert len(entries) == MAX_CARRIED
    after = Used()
    after.carry(entries, until)
    for i in range(many):
        with refused("M32" if i < 10 else "M31"):
            after.take(digest(f"p{i}"), NOW + i)
    with refused("M32"):
        after.take(digest("another"), NOW - 50)
    after.take(digest("another"), NOW + 500)


@pytest.mark.rule("M32")
def test_permits_that_were_issued_together_are_forgotten_together() -> None:
    entries, until = used_by(*((f"p{i}", NOW) for i in range(MAX_CARRIED + 1))).carried(NOW)
    assert (entries, until) == ((), NOW)


@pytest.mark.rule("M32")
def test_a_run_remembers_a_bounded_number_and_nothing_that_was_used_becomes_good() -> None:
    used = Used()
    for i in range(MAX_REMEMBERED + 2):
        used.take(digest(f"p{i}"), NOW + i)
    assert len(used._issued) <= MAX_REMEMBERED
    for i in (0, 1, MAX_REMEMBERED // 2, MAX_REMEMBERED + 1):
        with pytest.raises(Exception, match=r"M31|M32"):
            used.take(digest(f"p{i}"), NOW + i)


@given(
    st.lists(st.tuples(st.integers(0, 400), st.floats(-500, 500)), max_size=400), st.integers(0, 8), st.floats(0, 500)
)
def test_whatever_was_used_and_could_be_good_for_the_next_run_is_never_good_again(
    taken: list[tuple[int, float]], room: int, later: float
) -> None:
    used, issued = Used(), dict[int, float]()
    for name, at in taken:
        if name not in issued:
            used.take(digest(str(name)), NOW + at)
            issued[name] = NOW + at
    after = Used()
    after.carry(*used.carried(NOW + later, room))
    for name, iat in issued.items():
        if iat >= NOW + later - BEFORE:
            with pytest.raises(Exception, match=r"M31|M32"):
                after.take(digest(str(name)), iat)


def test_the_longest_names_have_room(scene: Scene) -> None:
    long = "n" * 1000
    permit = scene.authority.permit(target=long, name=long, run_id=long)
    tokens = from_run(scene, target=long, name=long, original_run_id=long, run_id=long, reason="r" * 400)
    assert parse(permit, Permit).claims.name == parse(tokens[-1], Message).claims.name == long


def test_in_a_burst_that_a_run_continues_in_only_what_was_used_is_not_good_again() -> None:
    used, burst = Used(), MAX_CARRIED + 40
    for i in range(burst):
        used.take(digest(f"p{i}"), NOW + i / 1000)
    after = Used()
    after.carry(*used.carried(NOW))
    for i in range(burst):
        with pytest.raises(Exception, match=r"M31|M32"):
            after.take(digest(f"p{i}"), NOW + i / 1000)
    after.take(digest("sent in the same second"), NOW + burst / 1000)

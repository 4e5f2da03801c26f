"""``exequatur policy explain``, ``who-can`` and ``can`` as their users see them; decisions are of a real worker."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from temporalio.client import Client, WorkflowFailureError
from temporalio.worker import Worker

from exequatur import AuthorizationPlugin, Principal
from exequatur.lineage.record import read
from tests import record
from tests.cli.conftest import ROOT, Ended

QUEUE = "explained"
REFERENCE = str(ROOT / "policies")
SCHEMA = """
entity Role; entity Agent in [Role] { region?: String }; entity Workflow;
type Attempt = { type: String, id: String, attempt: Long, task_queue: String, local: Bool };
type Run = { namespace: String, workflow_id: String, workflow_type: String, run_id: String, governed: Bool };
type Worker = { id: String };
@parameters("number") action step, delete appliesTo {
  principal: Agent, resource: Workflow,
  context: { args: { number: Long }, activity: Attempt, run: Run, worker: Worker, now: datetime }
};
action "workflow.start" appliesTo {
  principal: Agent, resource: Workflow,
  context: {
    args: {},
    run: { namespace: String, workflow_id: String, workflow_type: String, task_queue: String },
    now: datetime
  }
};
"""
POLICIES = """
@id("ops") permit(principal in Role::"ops", action, resource);
@id("emea") @reason("deletions are not for emea")
forbid(principal, action == Action::"delete", resource) when { principal has region && principal.region == "emea" };
@id("few") forbid(principal, action == Action::"step", resource) when { context.args.number > 2 };
"""
OTHERS = """
@id("ops") permit(principal in Role::"ops", action, resource);
@id("not-one") forbid(principal, action == Action::"delete", resource) when { context.args.number == 1 };
"""

Run = Callable[..., Ended]


@dataclass
class Decided:
    """A run in which ``delete`` (activity 1) was denied and ``step`` (activity 2) allowed, and what it left."""

    target: str
    folder: Path
    workflow_id: str
    refused_id: str

    @property
    def journal(self) -> str:
        return str(self.folder / "state" / "journal")

    @property
    def policies(self) -> str:
        return str(self.folder / "policies")

    @property
    def others(self) -> str:
        return str(self.folder / "others")

    @property
    def history(self) -> str:
        return str(self.folder / "history.json")

    def place(self, kind: str, activity_id: str = "1") -> str:
        """Where the first record of a kind about an activity of the run stands."""
        for file in sorted(Path(self.journal).glob("*.db")):
            for each in read(file):
                if each.kind == kind and (kind != "decision" or self._about(each.body, activity_id)):
                    return f"{each.log_id}:{each.index}"
        raise AssertionError(kind)

    def _about(self, body: bytes, activity_id: str) -> bool:
        claims = json.loads(body)
        return bool(claims["activity_id"] == activity_id and claims["workflow_id"] == self.workflow_id)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def decided(target: str, tmp_path_factory: pytest.TempPathFactory) -> Decided:
    folder = tmp_path_factory.mktemp("explained")
    for name, policies in (("policies", POLICIES), ("others", OTHERS)):
        (folder / name).mkdir()
        (folder / name / "main.cedar").write_text(policies)
        (folder / name / "schema.cedarschema").write_text(SCHEMA)
    plugin = AuthorizationPlugin.embedded(
        folder / "policies",
        state_dir=folder / "state",
        principal=Principal("Agent", "clerk", {"region": "emea"}, ('Role::"ops"',)),
    )
    plain = await Client.connect(target)
    client = await Client.connect(target, plugins=[plugin])
    result = Decided(target, folder, "explained-denied", "explained-refused")
    with ThreadPoolExecutor(2) as pool:
        async with Worker(
            client,
            task_queue=QUEUE,
            workflows=record.WORKFLOWS,
            activities=[record.step, record.delete],
            activity_executor=pool,
        ):
            await client.execute_workflow(record.Denied.run, 1, id=result.workflow_id, task_queue=QUEUE)
            with pytest.raises(WorkflowFailureError):
                await plain.execute_workflow(record.Sequential.run, 1, id=result.refused_id, task_queue=QUEUE)
    history = await plain.get_workflow_handle(result.workflow_id).fetch_history()
    (folder / "history.json").write_text(history.to_json())
    return result


def document(ended: Ended) -> Any:
    assert (ended.code, ended.err) == (0, "")
    return json.loads(ended.out)


def of_policies(policies: list[dict[str, Any]]) -> list[str]:
    return [policy["id"] for policy in policies]


REFUND = '{"refund": {"order_id": "o-1", "amount": 6000, "reason": "late"}}'
OPERATOR = ("--principal", 'Agent::"ops"', "--parent", 'Role::"operations"')


def test_a_question_of_ones_own_is_explained(exequatur: Run) -> None:
    ended = exequatur("policy", "explain", "refund_order", *OPERATOR, "--args", REFUND, "--policies", REFERENCE)
    assert (ended.code, ended.err) == (0, "")
    assert 'DENIED  Agent::"ops" may not run refund_order' in ended.out
    assert "refunds-limit (forbid)" in ended.out
    assert "refunds.cedar:25:1" in ended.out
    assert '| when { context.args.refund.amount.greaterThan(decimal("5000.00")) };' in ended.out
    assert "argument: context.args.refund.amount must be at most 5000.00, and is 6000.0 [refunds-limit]" in ended.out


def test_an_explanation_as_json_has_every_part(exequatur: Run) -> None:
    asked = ("policy", "explain", "refund_order", "--principal", 'Agent::"x"', "--args", REFUND)
    found = document(exequatur(*asked, "--policies", REFERENCE, "--json"))
    assert found["decided"] is None
    explanation = found["explanation"]
    assert explanation["decision"] == "deny"
    assert of_policies(explanation["determining"]) == ["refunds-limit"]
    [near] = explanation["near"]
    assert near["parts"] == [
        {
            "clause": "principal",
            "text": 'principal in Role::"operations"',
            "outcome": "unmet",
            "error": None,
            "values": {"principal": 'Agent::"x", which is in no group'},
        }
    ]
    assert [(each["kind"], each["policy"]) for each in explanation["missing"]] == [
        ("argument", "refunds-limit"),
        ("role", "refunds-by-operations"),
    ]


def test_arguments_attributes_circumstances_and_the_moment_are_taken_as_they_are_typed(
    exequatur: Run, tmp_path: Path
) -> None:
    (tmp_path / "args.json").write_text('{"export": {"region": "emea", "fields": ["name"]}}')
    asked = ("policy", "explain", "export_customers", *OPERATOR, "--args", f"@{tmp_path / 'args.json'}")
    more = ("--attr", "region=emea", "--context", '{"run": {"workflow_id": "w-7"}}', "--now", "2026-01-31T12:00:00Z")
    explanation = document(exequatur(*asked, *more, "--policies", REFERENCE, "--json"))["explanation"]
    assert explanation["decision"] == "allow"
    assert explanation["resource"] == 'Workflow::"w-7"'
    denied = document(exequatur(*asked, "--attr", "region=apac", "--policies", REFERENCE, "--json"))["explanation"]
    assert of_policies(denied["determining"]) == ["exports-of-the-own-region"]


def test_a_bundle_file_is_explained_like_its_folder(exequatur: Run, tmp_path: Path) -> None:
    bundle = str(tmp_path / "reference.bundle")
    exequatur("policy", "build", REFERENCE, "--version", "1", "--author", "a", "-o", bundle)
    ended = exequatur("policy", "explain", "refund_order", *OPERATOR, "--args", REFUND, "--policies", bundle)
    assert ended.code == 0
    assert "refunds-limit" in ended.out


def test_a_recorded_decision_is_explained_by_the_policies_that_made_it(exequatur: Run, decided: Decided) -> None:
    evidence = ("--evidence", decided.journal)
    by_place = document(exequatur("policy", "explain", *evidence, "--record", decided.place("decision"), "--json"))
    by_activity = document(
        exequatur("policy", "explain", *evidence, "--workflow", decided.workflow_id, "--activity", "1", "--json")
    )
    assert by_place == by_activity
    assert by_place["notes"] == []
    assert by_place["decided"]["decision"] == "deny"
    assert by_place["decided"]["policies"] == ["emea"]
    explanation = by_place["explanation"]
    assert explanation["bundle"] == by_place["decided"]["bundle"]
    assert explanation["principal"] == 'Agent::"clerk"'
    assert of_policies(explanation["determining"]) == ["emea"]
    assert of_policies(explanation["overruled"]) == ["ops"]


def test_a_decision_is_found_in_a_store_too(exequatur: Run, decided: Decided, tmp_path: Path) -> None:
    store = str(tmp_path / "store.db")
    assert exequatur("evidence", "ship", decided.journal, "--to", store).code == 0
    asked = ("policy", "explain", "--workflow", decided.workflow_id, "--activity", "1", "--json")
    found = document(exequatur(*asked, "--evidence", store))
    assert found == document(exequatur(*asked, "--evidence", decided.journal))


def test_an_allow_is_explained_for_people(exequatur: Run, decided: Decided) -> None:
    ended = exequatur(
        "policy", "explain", "--evidence", decided.journal, "--workflow", decided.workflow_id, "--activity", "2"
    )
    assert (ended.code, ended.err) == (0, "")
    assert "recorded: allowed, by ops" in ended.out
    assert 'ALLOWED  Agent::"clerk" may run step' in ended.out
    assert "no     when context.args.number > 2" in ended.out
    assert "context.args.number is 1" in ended.out


def test_what_was_rejected_before_the_policies_says_why(exequatur: Run, decided: Decided) -> None:
    ended = exequatur(
        "policy", "explain", "--evidence", decided.journal, "--workflow", decided.refused_id, "--activity", "1"
    )
    assert ended.code == 0
    assert "rejected before the policies were asked" in ended.out
    assert "carries no grant" in ended.out


def test_other_policies_may_be_asked_about_a_recorded_decision(exequatur: Run, decided: Decided) -> None:
    asked = ("policy", "explain", "--evidence", decided.journal, "--workflow", decided.workflow_id, "--activity", "1")
    missing = exequatur(*asked, "--policies", decided.others)
    assert missing.code == 2
    assert "does not hold args.number, which these policies read" in missing.err
    from_history = document(exequatur(*asked, "--policies", decided.others, "--history", decided.history, "--json"))
    assert of_policies(from_history["explanation"]["determining"]) == ["not-one"]
    assert any("other policies than those that decided" in note for note in from_history["notes"])
    given = document(exequatur(*asked, "--policies", decided.others, "--args", '{"number": 2}', "--json"))
    assert given["explanation"]["decision"] == "allow"


@pytest.mark.parametrize("at_server", [True, False], ids=["server", "file"])
def test_a_history_alone_tells_of_a_decision(exequatur: Run, decided: Decided, at_server: bool) -> None:
    where = ("--address", decided.target) if at_server else ("--history", decided.history)
    asked = ("policy", "explain", "--workflow", decided.workflow_id, "--policies", decided.policies, *where)
    denied = document(exequatur(*asked, "--activity", "1", "--json"))
    assert denied["decided"]["policies"] == ["emea"]
    assert denied["decided"]["bundle"] == denied["explanation"]["bundle"]
    assert of_policies(denied["explanation"]["determining"]) == ["emea"]
    allowed = document(exequatur(*asked, "--activity", "2", "--json"))
    assert allowed["explanation"]["decision"] == "allow"
    assert allowed["explanation"]["near"][0]["parts"][0]["values"] == {"context.args.number": "1"}
    assert any("comes from the history" in note for note in allowed["notes"])


def test_who_can_and_can_answer_for_people_and_for_machines(exequatur: Run) -> None:
    ended = exequatur("policy", "who-can", "refund_order", "--policies", REFERENCE)
    assert (ended.code, ended.err) == (0, "")
    assert 'it depends anyone in Role::"operations" (Agent, User, Service): refunds-by-operations' in ended.out
    assert 'unless context.args.refund.amount.greaterThan(decimal("5000.00"))  [refunds-limit]' in ended.out
    found = document(
        exequatur("policy", "who-can", "refund_order", "--args", REFUND, "--policies", REFERENCE, "--json")
    )
    assert {each["answer"] for each in found["answers"]} == {"no"}
    mine = exequatur(
        "policy",
        "can",
        'Agent::"x"',
        "--parent",
        'Role::"operations"',
        "--attr",
        "region=emea",
        "--policies",
        REFERENCE,
    )
    assert (mine.code, mine.err) == (0, "")
    assert "no         delete_records: deletions-by-people (gate)" in mine.out
    assert 'unless context.args.export.region != "emea"  [exports-of-the-own-region]' in mine.out
    answers = document(exequatur("policy", "can", 'User::"dana"', "--policies", REFERENCE, "--json"))["answers"]
    assert {each["subject"]: each["answer"] for each in answers}["delete_records"] == "yes"


EXPLAIN = ("policy", "explain", "refund_order", "--principal", 'Agent::"x"', "--policies", REFERENCE)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("policy", "explain", "refund_ordr", *EXPLAIN[3:]), "Did you mean refund_order"),
        ((*EXPLAIN, "--args", '{"refund": [}'), "--args:1:13: not JSON"),
        ((*EXPLAIN, "--args", '{"a": 1, "a": 2}'), "a member appears twice"),
        ((*EXPLAIN, "--args", "[" * 100_000), "not JSON"),
        ((*EXPLAIN, "--args", '{"refund": NaN}'), "NaN is not JSON"),
        ((*EXPLAIN, "--args", "@/nowhere"), "there is no such file"),
        ((*EXPLAIN, "--args", "[]"), "args must be a mapping"),
        ((*EXPLAIN, "--args", "{}"), "args.refund is required and not given"),
        ((*EXPLAIN, "--attr", "region"), "NAME=VALUE"),
        ((*EXPLAIN, "--attr", "regio=x"), "did you mean region?"),
        ((*EXPLAIN, "--parent", "operations"), "principal: parents"),
        ((*EXPLAIN, "--args", REFUND, "--now", "noon"), "--now noon: not a time"),
        ((*EXPLAIN, "--args", REFUND, "--resource", 'User::"x"'), "refund_order is done to Workflow"),
        (("policy", "explain", "refund_order", "--principal", "x", "--policies", REFERENCE), "is no entity"),
        ((*EXPLAIN[:-1], "/nowhere"), "does not exist"),
        (("policy", "explain", "--workflow", "w"), "--workflow needs --activity"),
        (("policy", "explain", "--record", "x"), "--record needs --evidence"),
        (("policy", "explain", "--record", "x", "--evidence", "/nowhere"), "write it as LOG:INDEX"),
        (("policy", "explain", "--record", f"{'0' * 16}:1", "--evidence", "/nowhere"), "No such file"),
        (("policy", "explain", "--workflow", "w", "--activity", "1", "--address", "localhost:1"), "cannot connect"),
        (("policy", "explain", "x", "--workflow", "w"), "has its own principal"),
        (("policy", "explain"), "Give an ACTIVITY and --principal"),
        (("policy", "who-can", "refund", "--policies", REFERENCE), "Did you mean refund_order"),
        (("policy", "who-can", "refund_order", "--context", "1", "--policies", REFERENCE), "context must be a mapping"),
        (("policy", "can", "dana", "--policies", REFERENCE), "is no entity"),
        (("policy", "can", 'Robot::"r"', "--policies", REFERENCE), "no entity type Robot"),
    ],
)
def test_what_cannot_be_read_is_said_in_a_line(exequatur: Run, args: tuple[str, ...], message: str) -> None:
    ended = exequatur(*args)
    assert ended.code == 2
    assert ended.out == ""
    assert message in ended.err
    assert "Traceback" not in ended.err


def test_a_file_of_arguments_that_is_not_utf_8_is_named(exequatur: Run, tmp_path: Path) -> None:
    (tmp_path / "args.json").write_bytes(b'{"a": "\xff"}')
    ended = exequatur(*EXPLAIN, "--args", f"@{tmp_path / 'args.json'}")
    assert ended.code == 2
    assert "args.json: not UTF-8 at byte 7" in ended.err


def test_a_broken_bundle_is_named(exequatur: Run, tmp_path: Path) -> None:
    (tmp_path / "main.cedar").write_text("permit(principal, action, resource) when { oops };")
    (tmp_path / "entities.json").write_text("[}")
    assert exequatur("policy", "who-can", "x", "--policies", str(tmp_path)).code == 2
    (tmp_path / "main.cedar").write_text('@id("p") permit(principal, action, resource);')
    ended = exequatur("policy", "who-can", "x", "--policies", str(tmp_path))
    assert ended.code == 2
    assert "entities.json is not JSON" in ended.err


def test_evidence_that_does_not_hold_the_decision_says_what_it_holds(exequatur: Run, decided: Decided) -> None:
    evidence = ("--evidence", decided.journal)
    of_run = ("--workflow", decided.workflow_id)
    other = exequatur("policy", "explain", *evidence, *of_run, "--activity", "7")
    assert other.code == 2
    assert "there are decisions about the activities 1, 2" in other.err
    unknown = exequatur("policy", "explain", *evidence, "--workflow", "nobody", "--activity", "1")
    assert (unknown.code, "holds no decision about" in unknown.err) == (2, True)
    receipt = exequatur("policy", "explain", *evidence, "--record", decided.place("receipt"))
    assert receipt.code == 2
    assert "is a receipt and no decision" in receipt.err
    log = decided.place("decision").partition(":")[0]
    beyond = exequatur("policy", "explain", *evidence, "--record", f"{log}:99999")
    assert (beyond.code, "has no record 99999" in beyond.err) == (2, True)
    nowhere = exequatur("policy", "explain", *of_run, "--activity", "7", "--history", decided.history)
    assert (nowhere.code, "has no such activity; there are 1, 2" in nowhere.err) == (2, True)


@pytest.mark.parametrize("content", [b"", b"junk", b"SQLite format 3\x00" + b"\x00" * 200, b'{"version": 1}'])
def test_evidence_that_cannot_be_read_is_named(exequatur: Run, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "evidence").write_bytes(content)
    asked = ("policy", "explain", "--evidence", str(tmp_path / "evidence"), "--workflow", "w", "--activity", "1")
    ended = exequatur(*asked)
    assert ended.code == 2
    assert ended.err.count("\n") == 1
    assert "evidence" in ended.err


def test_help_shows_what_to_type(exequatur: Run) -> None:
    for name in ("explain", "who-can", "can"):
        ended = exequatur("policy", name, "--help")
        assert ended.code == 0
        assert f"exequatur policy {name}" in ended.out
        assert "Exit codes" in ended.out


def test_attributes_and_parents_that_are_not_there_are_said(exequatur: Run, tmp_path: Path) -> None:
    (tmp_path / "schema.cedarschema").write_text(SCHEMA.replace(" { region?: String };", ";"))
    (tmp_path / "main.cedar").write_text('@id("ops") permit(principal in Role::"ops", action, resource);\n')
    role = {"uid": {"type": "Role", "id": "ops"}, "attrs": {}, "parents": []}
    (tmp_path / "entities.json").write_text(json.dumps([role]))
    question = ("policy", "can", 'Agent::"a"', "--policies", str(tmp_path))
    none = exequatur(*question, "--attr", "regon=x")
    assert "Agent has no attributes; declare them in model.cedarschema" in none.err
    misspelt = exequatur(*question, "--parent", 'Role::"opps"')
    assert misspelt.code == 0
    assert misspelt.err == 'note: the entities have no Role::"opps"; did you mean Role::"ops"?\n'
    assert exequatur(*question, "--parent", 'Role::"ops"').err == ""

"""``exequatur approvals``: what is asked, and the answers, on a terminal and for machines."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from temporalio.client import Client, WorkflowHandle
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from exequatur import AuthorizationPlugin
from exequatur.statements.approvals import APPROVAL_SIGNAL
from exequatur.statements.encoding import digest
from exequatur.statements.jws import parse
from exequatur.statements.models import Approval, Challenge
from tests.asking import Refund, challenge_of, entry, finance, plugin_in
from tests.cli.conftest import MIRRORED, ROOT, Ended
from tests.gate.conftest import unique
from tests.gate.test_approving import Pay, pay, plugin_for

QUEUE = "cli-approvals"


@dataclass
class Desk:
    """A state folder, workflows that pretend to wait, and the command."""

    folder: Path
    plugin: AuthorizationPlugin
    client: Client
    target: str
    command: Callable[..., Ended]
    handles: list[WorkflowHandle[Any, Any]] = field(default_factory=list)

    async def wait(self, workflow_id: str, *challenges: tuple[str, str]) -> None:
        handle = await self.client.start_workflow(
            Refund.run, [entry(each) for each in challenges], id=workflow_id, task_queue=QUEUE
        )
        self.handles.append(handle)
        assert await handle.query(Refund.ready)

    async def __call__(self, *args: str, **environment: str) -> Ended:
        """Run ``exequatur approvals ...``."""
        given = {"--address": self.target, "--state-dir": str(self.folder / "state")}
        rest = [part for pair in given.items() if pair[0] not in args for part in pair]
        # In a thread, because the command has an event loop of its own.
        return await asyncio.to_thread(self.command, "approvals", *args, *rest, **environment)

    async def answer(self, verdict: str, *args: str, who: str = 'User::"fay"') -> Ended:
        return await self(verdict, *args, "--as", who, "--policies", str(self.folder / "policies"))


@pytest_asyncio.fixture
async def desk(target: str, tmp_path: Path, exequatur: Callable[..., Ended]) -> AsyncIterator[Desk]:
    client = await Client.connect(target)
    desk = Desk(tmp_path, plugin_in(tmp_path), client, target, exequatur)
    async with Worker(client, task_queue=QUEUE, workflows=[Refund], workflow_runner=UnsandboxedWorkflowRunner()):
        yield desk
        for handle in desk.handles:
            if (await handle.describe()).close_time is None:
                await handle.terminate()


Asked = Callable[..., Awaitable[tuple[str, str]]]


@pytest.fixture
def asked(desk: Desk) -> Asked:
    """Has a workflow wait with one challenge; gives its id and that of the challenge."""

    async def ask(**changes: Any) -> tuple[str, str]:
        name = unique()
        request = changes.pop("request", digest(name))
        await desk.wait(name, challenge_of(desk.plugin, workflow_id=name, request=request, **changes))
        return name, request

    return ask


async def test_a_list_says_who_asks_for_what_and_why(desk, asked):
    arguments = (
        '{"refund":{"amount":{"__extn":{"fn":"decimal","arg":"900.00"}},"of":{"__entity":{"type":"Account","id":"7"}}}}'
    )
    name, request = await asked(needs=(finance(quorum=2),), arguments=arguments)
    for _ in range(200):
        ended = await desk("list", "--query", f'WorkflowId = "{name}"')
        if request[:12] in ended.out:
            break
        await asyncio.sleep(0.05)
    assert (ended.code, ended.err) == (0, "")
    first, *more = ended.out.splitlines()
    assert first == f'{request[:12]}  refund_order for Agent::"ops-bot", workflow {name}'
    said = "\n".join(more)
    assert "asked: finance 0 of 2; ends in " in said
    assert "why: a refund above 500.00 needs somebody of finance besides" in said
    assert 'arguments: {"refund": {"amount": "900.00", "of": "Account::\\"7\\""}}' in said
    nothing = await desk("list", "--query", 'WorkflowId = "nowhere"')
    assert (nothing.code, nothing.out) == (0, "Nobody is asked for anything.\n")


async def test_one_is_shown_with_everything_that_was_signed_about_it(desk, asked):
    name, request = await asked()
    await desk.answer("approve", request, "--workflow-id", name, "--reason", "I called them")
    ended = await desk("show", request[:8], "--workflow-id", name)
    assert (ended.code, ended.err) == (0, "")
    for part in (
        request,
        "refund_order",
        '{"refund": {"amount": "900.00"}}',
        'Agent::"ops-bot"',
        f"{name} (Refund), namespace default",
        "needs somebody of finance besides",
        '1 person of finance, not longer ago than 1h; agreed: User::"fay"',
        'User::"fay" of finance approved at ',
        ": I called them",
        " UTC, in ",
        "refunds-with-finance of bundle ",
    ):
        assert part in ended.out


async def test_machines_get_json(desk, asked):
    name, request = await asked()
    assert (await desk.answer("approve", request, "--workflow-id", name)).code == 0
    shown = json.loads((await desk("show", request, "--workflow-id", name, "--json")).out)
    listed = json.loads((await desk("list", "--workflow-id", name, "--json")).out)
    assert listed == {"challenges": [shown], "refused": [], "complete": True}
    assert (shown["id"], shown["workflow_id"], shown["on_behalf_of"]) == (request, name, 'Agent::"ops-bot"')
    assert shown["asked"] == [
        {"group": "finance", "quorum": 1, "counts_for_seconds": 3600.0, "agreed": ['User::"fay"']}
    ]
    [answer] = shown["answers"]
    assert (answer["by"], answer["verdict"], answer["groups"]) == ('User::"fay"', "approve", ["finance"])


async def test_an_answer_is_signed_and_sent(desk, asked):
    name, request = await asked(needs=(finance(quorum=2),))
    approved = await desk.answer("approve", request[:12], "--workflow-id", name)
    assert (approved.code, approved.err) == (0, "")
    assert approved.out.splitlines() == [
        f'User::"fay" approved refund_order for Agent::"ops-bot", workflow {name}',
        "asked: finance 1 of 2",
    ]
    rejected = await desk.answer("reject", request, "--workflow-id", name, "--reason", "no", who='User::"aud"')
    assert rejected.code == 0
    assert 'User::"aud" rejected refund_order' in rejected.out
    [handle] = desk.handles
    await handle.signal(Refund.end)
    sent = [parse(text, Approval).claims for text in await handle.result()]
    assert [(each.sub, each.verdict, each.reason) for each in sent] == [
        ('User::"fay"', "approve", None),
        ('User::"aud"', "reject", "no"),
    ]


async def test_a_real_run_goes_on_when_the_command_has_approved(target, tmp_path, process):
    plugin = plugin_for(tmp_path)
    client = await Client.connect(target, plugins=[plugin])
    places = ("--state-dir", str(tmp_path / "asked"), "--address", target)
    async with Worker(
        client, task_queue=QUEUE, workflows=[Pay], activities=[pay], workflow_runner=UnsandboxedWorkflowRunner()
    ):
        handle = await client.start_workflow(Pay.run, 900, id=unique(), task_queue=QUEUE)
        here = ("--workflow-id", handle.id, *places)
        for _ in range(100):
            listed = await asyncio.to_thread(process, "approvals", "list", "--json", *here)
            if listed.report["challenges"]:
                break
        [each] = listed.report["challenges"]
        answering = ("--as", 'User::"fay"', "--policies", str(tmp_path / "asking"))
        ended = await asyncio.to_thread(process, "approvals", "approve", each["id"], *answering, *here)
        assert (ended.code, ended.err) == (0, "")
        assert ended.out.splitlines()[-1] == "asked: finance 1 of 1"
        assert await handle.result() == "paid 900"


async def test_an_encrypted_memo_is_read_with_the_workers_converter(desk, asked, monkeypatch):
    monkeypatch.setattr(desk, "client", await Client.connect(desk.target, data_converter=MIRRORED))
    worker = Worker(
        desk.client, task_queue=f"{QUEUE}-2", workflows=[Refund], workflow_runner=UnsandboxedWorkflowRunner()
    )
    async with worker:
        name = unique()
        asked_for = challenge_of(desk.plugin, workflow_id=name)
        handle = await desk.client.start_workflow(Refund.run, [entry(asked_for)], id=name, task_queue=f"{QUEUE}-2")
        assert await handle.query(Refund.ready)
        here = ("--workflow-id", name)
        closed = await desk("list", *here)
        assert "cannot be decoded" in closed.err
        opened = await desk("list", *here, "--converter", "tests.cli.conftest:MIRRORED")
        assert (opened.code, opened.err) == (0, "")
        assert parse_id(asked_for)[:12] in opened.out
        sent = await desk.answer("approve", parse_id(asked_for), *here, "--converter", "tests.cli.conftest:MIRRORED")
        assert sent.code == 0
        await handle.signal(Refund.end)
        assert len(await handle.result()) == 1


@pytest.mark.parametrize("who", ['User::"mallory"', 'Agent::"bot"'])
async def test_who_may_not_answer_gets_exit_code_1_and_nothing_is_sent(desk, asked, who):
    name, request = await asked()
    ended = await desk.answer("approve", request, "--workflow-id", name, who=who)
    assert (ended.code, ended.out) == (1, "")
    assert f"{who} may not approve refund_order of workflow {name}: " in ended.err
    assert ended.err.count("\n") == 1
    await desk.handles[0].signal(Refund.end)
    assert await desk.handles[0].result() == []


async def test_what_cannot_be_done_is_exit_code_2_and_one_line(desk, asked, tmp_path):
    name, request = await asked()
    here = ("--workflow-id", name)
    for ended, says in (
        (await desk.answer("approve", request[:5], *here), "too short for an id"),
        (await desk.answer("approve", digest("another"), *here), "Nothing waits under the id"),
        (await desk.answer("approve", request, "--workflow-id", "nowhere"), "no workflow nowhere"),
        (await desk.answer("approve", request, *here, who="fay"), "--as: "),
        (await desk("show", digest("another"), *here), "Nothing waits under the id"),
        (await desk("list", "--state-dir", str(tmp_path / "policies")), "not the state folder of an authority"),
        (await desk("list", "--query", "no query"), "does not say what is waited for"),
        (await desk("list", "--address", "localhost:1"), "cannot connect"),
        (await desk("list", "--converter", "nowhere:x"), "nowhere"),
    ):
        assert (ended.code, ended.out) == (2, ""), ended
        assert says in ended.err
        assert ended.err.count("\n") == 1
        assert "Traceback" not in ended.err
    assert not (tmp_path / "policies" / "trust.jwks").exists(), "no authority is made by asking"


async def test_an_id_may_begin_with_a_dash(desk, asked):
    for request in ("-" + "a" * 42, "--" + "b" * 41):
        name, _ = await asked(request=request)
        shown = await desk("show", request, "--workflow-id", name)
        assert (shown.code, shown.err) == (0, "")
        assert (await desk("show", "--workflow-id", name, request[:12])).code == 0
        assert (await desk.answer("approve", request, "--workflow-id", name, "--reason", "-because")).code == 0
    assert (await desk("show", "--workflow-idx", "x")).code == 2


async def test_hostile_text_is_escaped_and_cut(desk):
    name = f"{unique()}\x1b[2J\u202e"
    evil = "\x1b]0;pwned\x07\u202eevil\n"
    asked = challenge_of(
        desk.plugin,
        workflow_id=name,
        sub=f'Agent::"{evil}"',
        arguments="[" * 4000,
        reason=evil * 20,
        policies=(evil,),
        activity_type=evil,
        places=("default", "refunds", ("*",)),
    )
    junk = challenge_of(desk.plugin, workflow_id=evil)
    await desk.wait(name, asked, junk)
    for args in (["list"], ["list", "--json"], ["show", parse_id(asked), "--json"], ["show", parse_id(asked)]):
        ended = await desk(*args, "--workflow-id", name)
        assert ended.code == 0
        assert all(each.isprintable() or each == "\n" for each in ended.out + ended.err)
        assert "\u202e" not in ended.out
    listed = await desk("list", "--workflow-id", name)
    assert max(map(len, listed.out.splitlines())) < 3000
    assert "not shown: " in listed.err


def parse_id(asked: tuple[str, str]) -> str:
    return parse(asked[0], Challenge).claims.request


async def test_who_has_only_the_public_keys_may_look(desk, asked, tmp_path):
    name, request = await asked()
    keys = tmp_path / "elsewhere.jwks"
    keys.write_bytes((desk.folder / "state" / "trust.jwks").read_bytes())
    nowhere = ("--state-dir", str(tmp_path / "nowhere"))
    ended = await desk("show", request, "--workflow-id", name, "--trust", str(keys), *nowhere)
    assert (ended.code, ended.err) == (0, "")
    other = plugin_in_another(tmp_path)
    unknown = await desk("list", "--workflow-id", name, "--trust", str(other), *nowhere)
    assert unknown.code == 0
    assert unknown.out == "Nobody is asked for anything.\n"
    assert "not shown: " in unknown.err


def plugin_in_another(folder: Path) -> Path:
    (folder / "other").mkdir()
    plugin_in(folder / "other")
    return folder / "other" / "state" / "trust.jwks"


async def test_an_answer_that_comes_too_late_is_told(desk, asked):
    name, request = await asked(exp=time.time() + 0.2)
    await asyncio.sleep(0.3)
    ended = await desk.answer("approve", request, "--workflow-id", name)
    assert ended.code == 2
    assert "Nothing waits under the id" in ended.err


async def test_answers_of_others_to_the_run_are_not_shown(desk, asked):
    name, request = await asked()
    await desk.handles[0].signal(APPROVAL_SIGNAL, "junk")
    assert json.loads((await desk("show", request, "--workflow-id", name, "--json")).out)["answers"] == []


def test_the_policies_of_the_guide_are_those_of_the_reference():
    guide = (ROOT / "docs" / "approvals.md").read_text(encoding="utf-8")
    reference = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "policies").glob("*.cedar"))
    blocks = re.findall(r"^```cedar\n(.*?)^```$", guide, re.DOTALL | re.MULTILINE)
    policies = [policy for block in blocks for policy in block.strip().split("\n\n")]
    assert len(policies) == 3
    assert all(policy in reference for policy in policies)

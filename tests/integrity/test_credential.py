"""A credential says of a worker's code and place what is proven, and policies and the audit go by it."""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from exequatur.errors import ConfigurationError, StatementError
from exequatur.identity.workload import CredentialOrder
from exequatur.integrity.facts import of_process
from exequatur.integrity.guard import Guard
from exequatur.integrity.keys import make_manifest_key
from exequatur.integrity.manifest import sign_manifest
from exequatur.settings import Settings
from exequatur.statements.jws import parse
from exequatur.statements.keys import SigningKey
from exequatur.statements.models import Code, WorkloadCredential
from tests.gate.conftest import Stage
from tests.integrity.test_instance import DOCUMENT, Cloud
from tests.integrity.test_manifest import MEASURED

START = Callable[..., Awaitable[Stage]]


def order(manifest: str | None = None, instance: str | None = None) -> CredentialOrder:
    key = SigningKey.generate()
    return CredentialOrder(
        key.public, ("receipt",), ("default",), ("q",), ("act",), manifest=manifest, instance=instance
    )


def trusting(path: Path, cloud: Cloud) -> tuple[SigningKey, dict[str, Any]]:
    """A manifest key, and the settings of an authority that trusts it and machines of a cloud."""
    key = make_manifest_key(path / "key", path / "keys.jwks", "tests")
    (path / "cloud.pem").write_bytes(cloud.pem())
    (path / "instances.toml").write_text(
        '[[instance]]\ncertificates = ["cloud.pem"]\naccounts = ["123456789012"]\nmax_age = "3650d"\n'
        'environment = "production"\n'
    )
    return key, {"integrity_keys": str(path / "keys.jwks"), "instance_trust": str(path / "instances.toml")}


@pytest.mark.rule("I8")
async def test_a_credential_says_what_manifest_and_machine_prove(stage: START, tmp_path: Path) -> None:
    cloud = Cloud()
    key, settings = trusting(tmp_path, cloud)
    authority: Any = (await stage(**settings)).plugin._authority
    manifest = sign_manifest(MEASURED, "worker", key)
    machine = cloud.signed(json.dumps({**DOCUMENT, "pendingTime": "2026-01-01T08:00:00Z"}))

    nothing = parse(authority.issue_credential(order()), WorkloadCredential).claims
    assert (nothing.code, nothing.build, nothing.environment) == (None, None, None)
    measured = parse(authority.issue_credential(order(manifest)), WorkloadCredential).claims
    assert measured.code is not None
    assert (measured.code.assurance, measured.build, measured.environment) == ("self-asserted", "b1", None)
    attested = parse(authority.issue_credential(order(manifest, machine)), WorkloadCredential).claims
    assert attested.code is not None
    assert attested.code.digest == measured.code.digest
    assert (attested.code.assurance, attested.environment) == ("attested", "production")


@pytest.mark.rule("I8")
async def test_a_worker_that_shows_what_proves_nothing_gets_no_credential(stage: START, tmp_path: Path) -> None:
    _, settings = trusting(tmp_path, Cloud())
    authority: Any = (await stage(**settings)).plugin._authority
    forged = sign_manifest(MEASURED, "worker", SigningKey.generate())
    with pytest.raises(StatementError, match="No key that is trusted"):
        authority.issue_credential(order(forged))
    with pytest.raises(StatementError, match="No configured certificate"):
        authority.issue_credential(order(None, Cloud().signed(json.dumps(DOCUMENT))))


def test_policies_are_told_of_attested_code_only_if_the_credential_says_so(tmp_path: Path) -> None:
    key = make_manifest_key(tmp_path / "key", tmp_path / "keys.jwks", "tests")
    (tmp_path / "manifest").write_text(sign_manifest(MEASURED, "worker", key))
    settings = Settings(
        integrity_manifest=str(tmp_path / "manifest"), integrity_keys=str(tmp_path / "keys.jwks"), environment="staging"
    )
    guard = Guard.open(settings, lambda told: None)
    assert guard is not None
    code = guard.manifest.digest

    def told(**claims: Any) -> dict[str, str]:
        return of_process(settings, guard, WorkloadCredential.model_construct(**claims))

    said = told(code=None, environment=None)
    assert (said["integrity"], said["code"], said["environment"], said["build"]) == ("measured", code, "staging", "b1")
    said = told(code=Code(digest=code, assurance="attested"), environment="prod")
    assert (said["integrity"], said["environment"]) == ("attested", "prod")
    assert of_process(settings, None, WorkloadCredential.model_construct(code=None, environment=None)) == {
        "integrity": "unmeasured",
        "environment": "staging",
    }


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"integrity_manifest": "missing"}, "manifest proves nothing without the keys"),
        ({"integrity_manifest": "missing", "integrity_keys": "keys.jwks"}, "missing cannot be read"),
        ({"integrity_manifest": "nonsense", "integrity_keys": "keys.jwks"}, "not well-formed JSON"),
        ({"integrity_keys": "nonsense"}, "is not a JWK set"),
        ({"instance_document": "missing"}, "missing cannot be read"),
        ({"instance_trust": "nonsense"}, "not valid TOML"),
    ],
)
async def test_a_file_that_cannot_be_used_is_named_when_the_plugin_is_made(
    stage: START, tmp_path: Path, settings: dict[str, str], said: str
) -> None:
    make_manifest_key(tmp_path / "key", tmp_path / "keys.jwks", "tests")
    (tmp_path / "nonsense").write_text("nonsense")
    with pytest.raises((ConfigurationError, StatementError, ValueError), match=said):
        await stage(**{name: str(tmp_path / file) for name, file in settings.items()})

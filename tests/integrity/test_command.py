"""The commands measure, sign and verify, and end as the other commands do."""

import base64
import json
from pathlib import Path

import pytest

from exequatur.integrity.instance import read_instance
from tests.integrity.conftest import Installation

VECTORS = Path(__file__).parent / "vectors"


def test_what_was_measured_and_signed_verifies_until_it_is_changed(installation: Installation) -> None:
    here = installation
    made = here.command("keygen", "keys")
    assert made.returncode == 0, made.stderr
    arguments = ("--from", "shop.work", "--config", "shop.toml", "--env", "SHOP_MODE", "--build", "b1")
    done = here.command("measure", *arguments, "-o", "measured.json")
    assert done.returncode == 0, done.stderr
    done = here.command(
        "sign", "measured.json", "--key", "keys/manifest-key.pem", "--name", "shop", "-o", here.manifest
    )
    assert done.returncode == 0, done.stderr
    statement = json.loads(base64.b64decode(json.loads(here.manifest.read_text())["payload"]))
    assert str(here.app / "shop") in statement["predicate"]["sources"]
    assert str(here.path / "shop.toml") in statement["predicate"]["configuration"]

    (here.app / "shop" / "prices.py").write_text("LIMIT = 0\n")
    found = here.command(
        "verify", here.manifest, "--keys", here.keys, "--from", "shop.work", "--json", SHOP_MODE="other"
    )
    assert found.returncode == 1, found.stderr
    assert json.loads(found.stdout)["differences"] == [
        f"source file {here.app}/shop/prices.py was changed",
        "environment variable SHOP_MODE was changed",
    ]


def test_what_is_not_as_published_is_told_and_not_signed_by_accident(installation: Installation) -> None:
    here = installation
    (here.path / "tiny" / "tiny.py").write_text("VALUE = 2\n")
    assert here.command("keygen", "keys").returncode == 0
    measured = here.command("measure", "-o", "measured.json")
    assert measured.returncode == 1
    assert "tiny 1.0: tiny.py is not as its RECORD says" in measured.stderr
    arguments = ("sign", "measured.json", "--key", "keys/manifest-key.pem", "-o", here.manifest)
    assert here.command(*arguments).returncode == 1
    assert not here.manifest.exists()
    signed = here.command(*arguments, "--with-deviations")
    assert signed.returncode == 0, signed.stderr
    assert here.command("verify", here.manifest, "--keys", here.keys).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("verify", "nonsense", "--keys", "nonsense"), "is not a JWK set"),
        (("sign", "nonsense", "--key", "nonsense", "-o", "x"), "is no measurement"),
        (("measure", "--from", "no.such.module"), "--from no.such.module: ModuleNotFoundError"),
        (("instance", "--document", "nonsense", "-o", "x"), "Give --rsa2048, or --document and --signature"),
    ],
)
def test_what_cannot_be_done_is_one_line(installation: Installation, arguments: tuple[str, ...], said: str) -> None:
    (installation.path / "nonsense").write_text("nonsense")
    done = installation.command(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_what_a_cloud_said_becomes_one_file(installation: Installation) -> None:
    done = installation.command("instance", "--rsa2048", VECTORS / "streamed.p7", "-o", "instance.json")
    assert done.returncode == 0, done.stderr
    assert json.loads(read_instance(installation.path / "instance.json")) == {
        "rsa2048": (VECTORS / "streamed.p7").read_text()
    }

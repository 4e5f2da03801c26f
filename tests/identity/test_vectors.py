"""Signatures of tokens against the vectors of others; where they come from is in ``vectors/README.md``."""

import json
from pathlib import Path
from typing import Any

import pytest

from exequatur.errors import IdentityError
from exequatur.identity.keyset import ALGORITHMS, KeySet
from exequatur.identity.spiffe_id import SpiffeId
from exequatur.identity.tokens import read_signed

VECTORS = Path(__file__).parent / "vectors"
WYCHEPROOF = json.loads((VECTORS / "wycheproof.json").read_text())["groups"]
RFC = json.loads((VECTORS / "rfc.json").read_text())
OTHERWISE = {
    # Signed by another algorithm than the key names in its alg, which these groups do not mind (K3).
    ("json_web_signature_test", 346): "K3",
    ("json_web_signature_test", 347): "K3",
    ("json_web_signature_test", 350): "K3",
    ("json_web_signature_test", 351): "K3",
    # An RSA key made by chips with the ROCA weakness. Who publishes such a key is the issuer that is trusted.
    ("json_web_key_test", 7): None,
}
"""Where the verdict here is another than Wycheproof's: the rule, or ``None`` where it is accepted."""


def verdict(keys: list[Any], token: str) -> str | None:
    """The rule that refuses it."""
    try:
        KeySet.of({"keys": keys}).verify(read_signed(token), tuple(ALGORITHMS))
    except IdentityError as error:
        return error.rule
    return None


@pytest.mark.rule("keyset.K1")
@pytest.mark.rule("keyset.K2")
@pytest.mark.rule("keyset.K3")
@pytest.mark.rule("keyset.K4")
@pytest.mark.rule("keyset.K6")
@pytest.mark.rule("tokens.R2")
def test_wycheproof_says_the_same() -> None:
    tried = 0
    for group in WYCHEPROOF:
        for case in group["tests"]:
            tried += 1
            found, where = verdict(group["keys"], case["jws"]), (group["file"], case["id"])
            due = OTHERWISE[where] if where in OTHERWISE else None if case["valid"] else found
            assert found == due, (where, case["about"])
            if where not in OTHERWISE:
                assert (found is None) == case["valid"], (where, case["about"])
    assert tried == 199


@pytest.mark.rule("keyset.K1")
@pytest.mark.rule("tokens.R2")
@pytest.mark.rule("tokens.R4")
@pytest.mark.parametrize("case", RFC, ids=lambda case: case["source"].split(":")[0])
def test_the_examples_of_the_rfcs_verify_or_are_refused(case: dict[str, Any]) -> None:
    assert verdict([case["key"]], case["jws"]) == case.get("rule")
    if "rule" not in case:
        header, payload, signature = case["jws"].split(".")
        changed = "B" if payload[0] != "B" else "C"
        assert verdict([case["key"]], f"{header}.{changed}{payload[1:]}.{signature}") == "K6"


@pytest.mark.parametrize(
    "text",
    [
        # The examples of the SPIFFE-ID specification, sections 2.1 and 2.2.
        "spiffe://staging.example.com/payments/mysql",
        "spiffe://staging.example.com/payments/web-fe",
        "spiffe://k8s-west.example.com/ns/staging/sa/default",
        "spiffe://example.com/9eebccd2-12bf-40a6-b262-65fe0487d453",
        "spiffe://trust_domain_name.example.com",
        "spiffe://10.0.0.1/a",
        "spiffe://example.org/" + "a" * 2000,
    ],
)
def test_a_spiffe_id_of_the_specification_is_read(text: str) -> None:
    assert str(SpiffeId.parse(text)) == text


@pytest.mark.rule("spiffe_id.S1")
@pytest.mark.rule("spiffe_id.S2")
@pytest.mark.parametrize(
    "text",
    [
        "",
        "spiffe:",
        "spiffe://",
        "spiffe:///path",
        "http://example.org/a",
        "SPIFFE://example.org/a",
        "spiffe://EXAMPLE.org/a",
        "spiffe://user@example.org/a",
        "spiffe://example.org:443/a",
        "spiffe://example.org/",
        "spiffe://example.org/a/",
        "spiffe://example.org//a",
        "spiffe://example.org/a/./b",
        "spiffe://example.org/a/../b",
        "spiffe://example.org/a%2Fb",
        "spiffe://example.org/a b",
        "spiffe://example.org/a\n",
        "spiffe://example.org\n/a",
        "spiffe://example.org/ä",
        "spiffe://exämple.org/a",
        "spiffe://example.org/a?b",
        "spiffe://example.org/a#b",
        "spiffe://[::1]/a",
        "spiffe://" + "a" * 256 + "/a",
        "spiffe://example.org/" + "a" * 2048,
    ],
)
def test_what_is_no_spiffe_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="SPIFFE id"):
        SpiffeId.parse(text)

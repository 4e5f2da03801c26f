"""Checkpoints and cosignatures: those of public logs verify, and what a witness did not see is not believed."""

from __future__ import annotations

import json
from base64 import b64decode
from contextlib import suppress
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exequatur.errors import ConfigurationError, EvidenceError
from exequatur.lineage import note as notes
from exequatur.lineage.checkpoint import (
    Checkpoint,
    cosign,
    head_leaf,
    namespace_origin,
    run_origin,
    sign,
    verify,
    verify_checkpoint,
)
from exequatur.lineage.merkle import EMPTY_ROOT, Tree, leaf_hash
from exequatur.lineage.note import COSIGNATURE, VerifierKey, signature_line
from exequatur.statements.keys import SigningKey

# Source: C2SP tlog-cosignature, the example at its head. Its keys are not published.
SPEC_TEXT = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
SPEC_NOTE = (
    f"{SPEC_TEXT}\n"
    "— example.com/behind-the-sofa "
    "Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
    "— witness.example.com/w1 "
    "jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n"
)
# Source: golang.org/x/mod/sumdb/tlog, note_test.go (TestFormatTree): a tree of one record, "hello world".
GO_TREE = "go.sum database tree\n123456789012\nTszzRgjTG6xce+z2AG31kAXYKBgQVtCSCE40HmuwBb0=\n"
# A checkpoint of Go's checksum database and its published key.
# Source: github.com/FiloSottile/torchwood, cmd/litewitness/testdata/sumdb.txt.
SUMDB_KEY = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"
SUMDB = (
    "go.sum database tree\n35225469\nvt5T6GaLCXvyHFl9VUvvItR43XZxfLgftEcTyO3eJCQ=\n\n"
    "— sum.golang.org Az3grpukl5AXaVfYkLiDGORx/DN2nlcS5kZHR5uYOBV2KA2HgXpD+gu9HHONebHLAyaKbbTM75QTtPydhKCExixSfwQ=\n"
)
# A checkpoint of the staging log Arche 2025h1 of Certificate Transparency with the cosignatures of four public
# witnesses; its first signature is of type 0x05. The witness's key is also published in
# github.com/transparency-dev/formats, note/note_cosigv1_test.go.
ARCHE_KEY = "arche2025h1.staging.ct.transparency.dev+ba2f06c0+AU0vHmlGCS/PdN8b2OaGmKprLI8HKM+dJ472xgFYh15f"
REMORA_KEY = "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2"
ARCHE = """\
arche2025h1.staging.ct.transparency.dev
1432088532
U7WM79jrzyhGZ5/GUBTpM7NzwdyfFx61t3RovgcC4Ro=

— arche2025h1.staging.ct.transparency.dev zTM8sQAAAZ5W0WdjBAMARjBEAiBjW5IQf9pvsYLfQFX6hoGREPMHbdQ3urbllzalApkptQIg\
IpwtEroeW2BXaHAI4kJXFbon5Ch9MNL5zRNZ55lvGt0=
— arche2025h1.staging.ct.transparency.dev ui8GwCF1+kWqZrxGdhj4aX3gcw7XUlXQQabg/27lefwhUkzbC3NygNI75MdhL1bfTW9g8Ei5\
9RA23oHP7Ry1k3ZFWwQ=
— transparency.dev/DEV:witness-little-garden 2AQqhwAAAABqEiEgzgFIqqhbUoDwjMWE6UP8nd8/KYTzwZ2rhIgcqoXHAwVkjZr4Ascyl\
P3v7sEodkRAErumC2q44vdgJY096st5BQ==
— witness1.smartit.nu/witness1 pIyCDwAAAABqEiEghIp82KWebrw7/oHQwlTAm3g2RKS4+eebl8eO0WH+/iEcxZ75W3u5hNI7TOQtmJbqmNW\
VuE0tgh0XwzdZsDsUAQ==
— remora.n621.de 2net5wAAAABqEiEgPlfF3V06o0Y+fHM+J5J9s27wgxxcOVSpZ/2g/KSiXCg9DEZI+aVCIobWX9sXTynk5XeU/zZ0WBxtqB0DrA\
WfBw==
— witness.stagemole.eu Z/euoAAAAABqEiEgw0i+7g2ENfDAWHmtRzCfKTHSDwYDJA2NmKeGi9Y8FtEyOUvVr+AJmIY/2TUFucgKi7lI7cUiOvKF\
Ye/TmN9DAg==
"""

ORIGIN = run_origin("example.org/main", "default", "refund-1", "run-1")
HEAD = Checkpoint(ORIGIN, 2, Tree([leaf_hash(b"started"), leaf_hash(b"completed")]).root())
NOTARY_KEY = SigningKey.generate()
NOTARY = VerifierKey("example.org/notary", NOTARY_KEY.x)
SIGNED = sign(HEAD, NOTARY.name, NOTARY_KEY)
KEYS = {name: SigningKey.generate() for name in ("w1.example.net", "w2.example.net", "w3.example.net")}
W1, W2, W3 = (VerifierKey(name, key.x, COSIGNATURE) for name, key in KEYS.items())
NOW = 1_800_000_000


def cosigned(*names: str, at: int = NOW) -> str:
    signed = SIGNED
    for name in names:
        signed = cosign(signed, name, KEYS[name], at)
    return signed


def line_of(witness: VerifierKey, at: int, text: str, key: SigningKey) -> str:
    """A cosignature line as it comes: any time, over any text, by any key."""
    message = f"cosignature/v1\ntime {at}\n{text}".encode()
    return signature_line(witness, at.to_bytes(8, "big") + key.sign(message))


def test_the_published_checkpoint_of_a_public_log_and_its_witness_verify() -> None:
    verified = verify_checkpoint(
        ARCHE,
        notary=VerifierKey.parse(ARCHE_KEY),
        witnesses=[VerifierKey.parse(REMORA_KEY), W1],
        threshold=1,
        origin="arche2025h1.staging.ct.transparency.dev",
    )
    assert verified.checkpoint.size == 1_432_088_532
    assert verified.checkpoint.to_text() == notes.parse(ARCHE).text
    assert verified.cosigned == {"remora.n621.de": 0x6A122120}  # 2026-05-23, as its line says


def test_the_published_checkpoint_of_the_checksum_database_verifies() -> None:
    assert verify(SUMDB, [VerifierKey.parse(SUMDB_KEY)]) == Checkpoint(
        "go.sum database tree", 35_225_469, b64decode("vt5T6GaLCXvyHFl9VUvvItR43XZxfLgftEcTyO3eJCQ=")
    )


def test_the_published_example_is_read_and_its_unknown_signatures_are_not_believed() -> None:
    note = notes.parse(SPEC_NOTE)
    head = Checkpoint.parse(note.text)
    assert (head.origin, head.size) == ("example.com/behind-the-sofa", 20_852_163)
    assert head.to_text() == SPEC_TEXT
    assert int.from_bytes(note.signatures[1].body[:8], "big") == 1_679_315_147  # as its text says
    with pytest.raises(EvidenceError, match=r"\[N9\]"):
        verify(SPEC_NOTE, [NOTARY])


def test_the_published_tree_of_go_is_written_alike() -> None:
    assert Checkpoint("go.sum database tree", 123_456_789_012, leaf_hash(b"hello world")).to_text() == GO_TREE


def test_a_checkpoint_is_read_as_it_was_signed() -> None:
    extended = Checkpoint(ORIGIN, 7, bytes(32), ("an extension", " another"))
    for head in (HEAD, extended, Checkpoint("o", 0, EMPTY_ROOT), Checkpoint("o", 2**63 - 1, bytes(32))):
        assert Checkpoint.parse(head.to_text()) == head
        assert verify(sign(head, NOTARY.name, NOTARY_KEY).encode(), [NOTARY]) == head


ROOT_LINE = HEAD.to_text().split("\n")[2]


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "L1"),
        (f"{ORIGIN}\n2\n", "L1"),
        (f"{ORIGIN}\n2\n{ROOT_LINE}", "L1"),
        (f"{ORIGIN}\n2\n{ROOT_LINE}\nextension", "L1"),
        (f"\n2\n{ROOT_LINE}\n", "L1"),
        (f"{ORIGIN}\n2\n{ROOT_LINE}\n\n", "L1"),
        (f"{ORIGIN}\n2\n{ROOT_LINE}\n\nextension\n", "L1"),
        (f"{ORIGIN}\r\n2\n{ROOT_LINE}\n", "L1"),
        *((f"{ORIGIN}\n{size}\n{ROOT_LINE}\n", "L2") for size in ("", "02", "-1", "+2", "2 ", "0x2", "1٢", "2.0")),
        *((f"{ORIGIN}\n{size}\n{ROOT_LINE}\n", "L2") for size in (2**63, 10**19, "9" * 5000)),
        (f"{ORIGIN}\n2\n{ROOT_LINE[:-1]}\n", "L3"),
        (f"{ORIGIN}\n2\n{ROOT_LINE} \n", "L3"),
        (f"{ORIGIN}\n2\nAAAA\n", "L3"),
        (f"{ORIGIN}\n2\n{'A' * 42}B=\n", "L3"),
        (f"{ORIGIN}\n0\n{ROOT_LINE}\n", "L3"),
    ],
)
def test_a_text_that_is_not_a_checkpoint_is_refused(text: str, rule: str) -> None:
    with pytest.raises(EvidenceError, match=rf"\[{rule}\]"):
        Checkpoint.parse(text)


def test_a_signed_text_that_is_not_a_checkpoint_is_refused() -> None:
    signed = notes.sign("a text\nthat is\nnone\n", NOTARY.name, NOTARY_KEY)
    for read in (lambda: verify(signed, [NOTARY]), lambda: verify_checkpoint(signed, notary=NOTARY)):
        with pytest.raises(EvidenceError, match=r"\[L2\]"):
            read()
    with pytest.raises(EvidenceError, match=r"\[L2\]"):
        cosign(signed, "w1.example.net", KEYS["w1.example.net"], NOW)


def test_a_checkpoint_that_cannot_be_is_not_made() -> None:
    for origin, size, root in (("", 1, bytes(32)), ("a\nb", 1, bytes(32)), ("o", -1, bytes(32)), ("o", 1, bytes(31))):
        with pytest.raises(ValueError, match=r"\[L[123]\]"):
            Checkpoint(origin, size, root)


def test_the_checkpoint_of_another_log_is_refused() -> None:
    assert verify_checkpoint(SIGNED, notary=NOTARY, origin=ORIGIN).checkpoint == HEAD
    with pytest.raises(EvidenceError, match=r"\[L4\]"):
        verify_checkpoint(SIGNED, notary=NOTARY, origin=ORIGIN.replace("run-1", "run-2"))


def test_a_checkpoint_that_only_witnesses_have_signed_is_refused() -> None:
    alone = f"{HEAD.to_text()}\n{line_of(W1, NOW, HEAD.to_text(), KEYS['w1.example.net'])}"
    with pytest.raises(EvidenceError, match=r"\[N9\]"):
        verify_checkpoint(alone, notary=NOTARY, witnesses=[W1], threshold=1)


def test_a_checkpoint_by_another_notary_is_refused() -> None:
    with pytest.raises(EvidenceError, match=r"\[N9\]"):
        verify_checkpoint(sign(HEAD, NOTARY.name, KEYS["w1.example.net"]), notary=NOTARY)


def test_cosignatures_are_reported_with_their_times() -> None:
    signed = cosign(cosigned("w1.example.net"), "w2.example.net", KEYS["w2.example.net"], NOW + 5)
    verified = verify_checkpoint(signed, notary=NOTARY, witnesses=[W1, W2, W3], threshold=2)
    assert verified.checkpoint == HEAD
    assert verified.cosigned == {"w1.example.net": NOW, "w2.example.net": NOW + 5}


def test_too_few_witnesses_are_refused() -> None:
    signed = cosigned("w1.example.net", "w2.example.net")
    with pytest.raises(EvidenceError, match=r"by 2 known witnesses, 3 are demanded.*\[L7\]"):
        verify_checkpoint(signed, notary=NOTARY, witnesses=[W1, W2, W3], threshold=3)
    with pytest.raises(EvidenceError, match=r"by 1 known witnesses, 2 are demanded.*\[L7\]"):
        verify_checkpoint(signed, notary=NOTARY, witnesses=[W1, W3], threshold=2)


def test_a_witness_that_cosigned_twice_counts_once_with_its_earliest_time() -> None:
    for first, second in ((NOW, NOW + 9), (NOW + 9, NOW)):
        signed = cosign(cosigned("w1.example.net", at=first), "w1.example.net", KEYS["w1.example.net"], second)
        assert verify_checkpoint(signed, notary=NOTARY, witnesses=[W1], threshold=1).cosigned == {W1.name: NOW}
        with pytest.raises(EvidenceError, match=r"\[L7\]"):
            verify_checkpoint(signed, notary=NOTARY, witnesses=[W1, W1, W2], threshold=2)


def test_a_witness_with_two_keys_counts_once() -> None:
    old = SigningKey.generate()
    rotated = VerifierKey(W1.name, old.x, COSIGNATURE)
    signed = cosign(cosigned(W1.name), W1.name, old, NOW - 9)
    verified = verify_checkpoint(signed, notary=NOTARY, witnesses=[W1, rotated, W2], threshold=1)
    assert verified.cosigned == {W1.name: NOW - 9}
    with pytest.raises(EvidenceError, match=r"\[L7\]"):
        verify_checkpoint(signed, notary=NOTARY, witnesses=[W1, rotated, W2], threshold=2)


def test_one_key_under_two_names_is_a_configuration_error() -> None:
    again = VerifierKey("w9.example.net", W1.x, COSIGNATURE)
    with pytest.raises(ConfigurationError, match=r"share a key.*\[L8\]"):
        verify_checkpoint(cosigned(W1.name), notary=NOTARY, witnesses=[W1, again], threshold=2)


def test_a_notary_is_not_its_own_witness() -> None:
    itself = VerifierKey("w9.example.net", NOTARY.x, COSIGNATURE)
    with pytest.raises(ConfigurationError, match=r"share a key.*\[L8\]"):
        verify_checkpoint(SIGNED, notary=NOTARY, witnesses=[itself])


@pytest.mark.parametrize("threshold", [-1, 3])
def test_a_threshold_that_cannot_be_reached_is_a_configuration_error(threshold: int) -> None:
    with pytest.raises(ConfigurationError, match=rf"{threshold} witnesses are demanded and 2 are known.*\[L8\]"):
        verify_checkpoint(SIGNED, notary=NOTARY, witnesses=[W1, W2, W2], threshold=threshold)


def test_keys_of_the_wrong_type_are_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match=r"type 0x01 \[L5\]"):
        verify_checkpoint(SIGNED, notary=VerifierKey(NOTARY.name, NOTARY.x, COSIGNATURE))
    with pytest.raises(ConfigurationError, match=r"type 0x04 \[L8\]"):
        verify_checkpoint(SIGNED, notary=NOTARY, witnesses=[VerifierKey(W1.name, W1.x)], threshold=1)


def test_a_cosignature_over_another_time_or_text_or_by_another_key_is_refused() -> None:
    text = HEAD.to_text()
    good = KEYS[W1.name]
    honest = line_of(W1, NOW, text, good)
    later = signature_line(W1, (NOW + 1).to_bytes(8, "big") + notes.parse(SIGNED + honest).signatures[1].body[8:])
    plain = signature_line(W1, NOW.to_bytes(8, "big") + good.sign(text.encode()))
    forged = (
        later,
        plain,
        line_of(W1, NOW, text.replace("\n2\n", "\n3\n"), good),
        line_of(W1, NOW, text, KEYS[W2.name]),
        line_of(W1, 0, text, good),
        line_of(W1, 2**63, text, good),
        signature_line(W1, b"short"),
    )
    assert verify_checkpoint(SIGNED + honest, notary=NOTARY, witnesses=[W1], threshold=1).cosigned == {W1.name: NOW}
    for line in forged:
        for signed in (SIGNED + line, SIGNED + honest + line):
            with pytest.raises(EvidenceError, match=rf"{W1.name} under a checkpoint is wrong \[L6\]"):
                verify_checkpoint(signed, notary=NOTARY, witnesses=[W1])


def test_a_cosignature_covers_extension_lines() -> None:
    extended = Checkpoint(ORIGIN, 2, HEAD.root, ("extension",))
    signed = sign(extended, NOTARY.name, NOTARY_KEY) + line_of(W1, NOW, HEAD.to_text(), KEYS[W1.name])
    with pytest.raises(EvidenceError, match=r"\[L6\]"):
        verify_checkpoint(signed, notary=NOTARY, witnesses=[W1])


def test_signatures_of_unknown_types_and_witnesses_are_ignored() -> None:
    unknown = "".join(
        f"— {name} {notes.to_base64(bytes([kind]) * 4 + bytes(length))}\n"
        for name, (kind, length) in product((W1.name, NOTARY.name), ((2, 71), (5, 80), (6, 8 + 2420), (255, 1)))
    )
    signed = cosigned(W1.name, W3.name) + unknown
    verified = verify_checkpoint(signed, notary=NOTARY, witnesses=[W1], threshold=1)
    assert verified.cosigned == {W1.name: NOW}


@pytest.mark.parametrize("at", [0, -1, 2**63])
def test_no_cosignature_is_made_with_a_time_that_says_nothing(at: int) -> None:
    with pytest.raises(ValueError, match="time of a cosignature"):
        cosign(SIGNED, W1.name, KEYS[W1.name], at)


def test_origins_are_one_readable_line() -> None:
    assert namespace_origin("example.org/main", "default") == "example.org/main/namespaces/default"
    assert ORIGIN == "example.org/main/namespaces/default/workflows/refund-1/runs/run-1"
    assert run_origin("s", "n", "a/b c+d\n%é", "r") == "s/namespaces/n/workflows/a%2Fb%20c%2Bd%0A%25%C3%A9/runs/r"


PARTS = st.text("ab/%2F\n +", max_size=6) | st.sampled_from(
    ["a/namespaces/b", "a/namespaces/b/workflows/c/runs/d", "namespaces", "a%2Fb", "a/b", ""]
)


@given(st.tuples(PARTS, PARTS, PARTS, PARTS), st.tuples(PARTS, PARTS, PARTS, PARTS))
def test_no_two_logs_share_an_origin(one: tuple[str, str, str, str], other: tuple[str, str, str, str]) -> None:
    assert (run_origin(*one) == run_origin(*other)) == (one == other)
    assert (namespace_origin(*one[:2]) == namespace_origin(*other[:2])) == (one[:2] == other[:2])
    assert run_origin(*one) != namespace_origin(*other[:2])
    assert Checkpoint.parse(Checkpoint(run_origin(*one), 1, bytes(32)).to_text()).origin == run_origin(*one)


def test_the_leaf_of_a_head_is_canonical_json() -> None:
    leaf = head_leaf(HEAD.origin, HEAD.size, HEAD.root)
    assert leaf == f'{{"exequatur":"head v1","origin":"{ORIGIN}","root":"{ROOT_LINE}","size":2}}'.encode()
    assert json.loads(leaf)["size"] == 2
    for origin, size, root in (("", 1, HEAD.root), (ORIGIN, 2**53, HEAD.root), (ORIGIN, 1, b"root")):
        with pytest.raises(ValueError, match=r"."):
            head_leaf(origin, size, root)


@given(st.lists(st.text(st.characters(), max_size=40) | st.just(ROOT_LINE), max_size=5).map("\n".join))
def test_no_text_crashes_and_what_is_read_is_what_stood_there(text: str) -> None:
    for candidate in (text, text + "\n"):
        with suppress(EvidenceError):
            assert Checkpoint.parse(candidate).to_text() == candidate


@given(st.data())
def test_no_checkpoint_verifies_after_one_character_was_changed(data: st.DataObject) -> None:
    whole = cosigned(W1.name)
    at = data.draw(st.integers(0, len(whole) - 1))
    character = data.draw(st.characters() | st.sampled_from("0123ABab/+= \n—"))
    changed = whole[:at] + character + whole[at + 1 :]
    if changed != whole:
        with pytest.raises(EvidenceError):
            verify_checkpoint(changed, notary=NOTARY, witnesses=[W1], threshold=1)

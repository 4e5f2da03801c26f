"""Signed notes: published ones verify, ours come out the same, and everything else is refused by its rule."""

from __future__ import annotations

from base64 import b64decode, b64encode
from contextlib import suppress

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from exequatur.errors import EvidenceError
from exequatur.lineage.note import (
    COSIGNATURE,
    MAX_BYTES,
    MAX_SIGNATURES,
    VerifierKey,
    bodies_by,
    from_base64,
    parse,
    sign,
    signature_line,
    to_base64,
    verify,
)
from exequatur.statements.encoding import to_base64url
from exequatur.statements.keys import SigningKey

# Source: golang.org/x/mod/sumdb/note, example_test.go and note_test.go. The seed is that of the signer key there,
# PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz, behind its type byte.
GO_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_SEED = b64decode("AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz")[1:]
GO_TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
GO_LINE = (
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
GO_NOTE = f"{GO_TEXT}\n{GO_LINE}"
# The key of 32 zero bytes that the example adds a second signature with.
GO_SECOND = "— EnochRoot rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/5n2tiOHp+vAF1aGrQ5ovTG01oOTGwnWLox33WWd1RvMc+QQ=\n"
# Keys that are refused: a length and a type that are wrong under a key id that is right. Source: note_test.go.
GO_BAD_KEYS = (
    "PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY==",
    "PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
)
# Source: C2SP signed-note, "Verifier keys", example.
SPEC_KEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
SPEC_NOTE = (
    "This is an example message.\n\n"
    "— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
)
# Source: C2SP signed-note, the example at its head; its text has empty lines.
SPEC_VERSE = (
    "Ognuno sta solo sul cuor della terra\ntrafitto da un raggio di sole:\n\ned è subito sera.\n\n"
    "— quasimodo.example/salvatore "
    "NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU0xMcXxj99ihAQwaqP3ZekRwNtIc=\n"
)

KEY = SigningKey.generate()
ATTACKER = SigningKey.generate()
NAME = "example.org/notary"
TEXT = "a text\n\nof some lines\n"
OURS = VerifierKey(NAME, KEY.x)
SIGNED = sign(TEXT, NAME, KEY)
LINE = SIGNED.removeprefix(TEXT + "\n")


def line(name: str, data: bytes) -> str:
    return f"— {name} {b64encode(data).decode()}\n"


def test_the_published_note_of_go_verifies() -> None:
    note = parse(GO_NOTE)
    assert note.text == GO_TEXT
    assert verify(note, [VerifierKey.parse(GO_KEY)]) == (VerifierKey.parse(GO_KEY),)


def test_our_signature_is_the_published_one_of_go() -> None:
    signer = SigningKey(Ed25519PrivateKey.from_private_bytes(GO_SEED))
    assert sign(GO_TEXT, "PeterNeumann", signer) == GO_NOTE
    assert str(VerifierKey("PeterNeumann", signer.x)) == GO_KEY
    zero = SigningKey(Ed25519PrivateKey.from_private_bytes(bytes(32)))
    assert signature_line(VerifierKey("EnochRoot", zero.x), zero.sign(GO_TEXT.encode())) == GO_SECOND


def test_the_published_note_of_the_specification_verifies() -> None:
    assert verify(parse(SPEC_NOTE), [VerifierKey.parse(SPEC_KEY)]) == (VerifierKey.parse(SPEC_KEY),)


def test_a_text_may_hold_empty_lines() -> None:
    note = parse(SPEC_VERSE.encode())
    assert note.text.endswith("sole:\n\ned è subito sera.\n")
    assert [signature.name for signature in note.signatures] == ["quasimodo.example/salvatore"]


def test_verifier_keys_are_read_and_written_alike() -> None:
    for text in (GO_KEY, SPEC_KEY, str(VerifierKey(NAME, KEY.x, COSIGNATURE))):
        assert str(VerifierKey.parse(text)) == text
    assert VerifierKey(NAME, KEY.x).id != VerifierKey(NAME, KEY.x, COSIGNATURE).id


def test_no_part_of_a_verifier_key_is_one() -> None:
    # As TestNewVerifier does in golang.org/x/mod/sumdb/note.
    cut = [GO_KEY[start:end] for start in range(len(GO_KEY)) for end in range(start, len(GO_KEY) + 1)]
    changed = [GO_KEY[:at] + chr(ord(GO_KEY[at]) + 1) + GO_KEY[at + 1 :] for at in range(len(GO_KEY))]
    for text in (*(part for part in cut if part != GO_KEY), *changed, *GO_BAD_KEYS, GO_KEY + "\n", GO_KEY.upper()):
        with pytest.raises(ValueError, match=r"."):
            VerifierKey.parse(text)


def test_a_verifier_key_of_a_type_that_we_do_not_verify_says_so() -> None:
    with pytest.raises(ValueError, match="of type 0x06"):
        VerifierKey(NAME, KEY.x, 6)


def test_a_key_of_the_wrong_length_is_none() -> None:
    for length in (0, 31, 33):
        with pytest.raises(ValueError, match="has not 32 bytes"):
            VerifierKey(NAME, to_base64url(bytes(length)))


def test_a_wrong_key_id_is_told_apart_from_the_right_one() -> None:
    with pytest.raises(ValueError, match=f"c74f20a4, but its key has {GO_KEY.split('+')[1]}"):
        VerifierKey.parse(GO_KEY.replace("c74f20a3", "c74f20a4"))


def test_every_known_key_that_signed_is_named_once() -> None:
    second = VerifierKey("EnochRoot", SigningKey(Ed25519PrivateKey.from_private_bytes(bytes(32))).x)
    keys = [VerifierKey.parse(GO_KEY), second, OURS]
    assert verify(parse(GO_NOTE + GO_SECOND + GO_LINE), [*keys, *keys]) == (keys[0], second)


@pytest.mark.parametrize(
    "name", ["", "a b", "a+b", "a\u00a0b", "a\u2003b", "a\u0085b", "a\nb", "a\tb", "a\x00b", "a\ud800b"]
)
def test_no_signature_is_made_under_a_name_that_cannot_be_read_back(name: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        sign(TEXT, name, KEY)
    with pytest.raises(ValueError, match=r"."):
        VerifierKey(name, KEY.x)


@pytest.mark.parametrize("text", ["", "no newline", "tab\tin it\n", "nul\x00\n", "cr\r\n", "\ud800\n"])
def test_no_note_is_made_that_could_not_be_read_back(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        sign(text, NAME, KEY)
    with pytest.raises(ValueError, match="more than"):
        sign("x" * MAX_BYTES + "\n", NAME, KEY)


def test_a_note_that_is_too_long_is_refused() -> None:
    assert verify(parse(SIGNED), [OURS])
    for huge in ("x" * MAX_BYTES + SIGNED, "é" * (MAX_BYTES // 2) + SIGNED, b"\xff" * (MAX_BYTES + 1)):
        with pytest.raises(EvidenceError, match=r"\[N1\]"):
            parse(huge)


def test_a_note_with_too_many_signatures_is_refused() -> None:
    others = line("other", bytes(68)) * (MAX_SIGNATURES - 1)
    assert verify(parse(SIGNED + others), [OURS])
    with pytest.raises(EvidenceError, match=r"\[N1\]"):
        parse(SIGNED + others + line("other", bytes(68)))


@pytest.mark.parametrize("character", ["\x00", "\t", "\r", "\x1b", "\x1f"])
def test_a_control_character_anywhere_is_refused(character: str) -> None:
    for note in (character + SIGNED, SIGNED.replace(NAME, NAME + character), SIGNED[:-1] + character + "\n"):
        with pytest.raises(EvidenceError, match=r"\[N2\]"):
            parse(note)


def test_what_is_not_utf_8_is_refused() -> None:
    for note in (b"\xff" + SIGNED.encode(), "\ud800" + SIGNED):
        with pytest.raises(EvidenceError, match=r"\[N2\]"):
            parse(note)


@pytest.mark.parametrize(
    "note",
    [
        "",
        "\n",
        "\n\n",
        LINE,
        "\n" + LINE,
        TEXT,
        TEXT + "\n",
        TEXT + LINE,
        SIGNED[:-1],
        SIGNED + "\n",
        SIGNED + LINE[:-1],
    ],
)
def test_a_note_without_its_parts_is_refused(note: str) -> None:
    with pytest.raises(EvidenceError, match=r"\[N3\]|\[N4\]"):
        parse(note)


@pytest.mark.parametrize(
    "below",
    [
        LINE.replace("—", "-"),
        LINE.replace("— ", "—"),
        LINE.replace("— ", "—  "),
        " " + LINE,
        LINE.replace("\n", " \n"),
        "not a signature\n" + LINE,
        LINE.replace(f" {NAME}", ""),
        f"— {NAME}\n",
    ],
    ids=["hyphen", "no space", "two spaces", "indented", "trailing space", "text before", "no name", "no signature"],
)
def test_a_line_that_is_not_a_signature_is_refused(below: str) -> None:
    with pytest.raises(EvidenceError, match=r"signature line 1 .*\[N4\]"):
        parse(f"{TEXT}\n{below}")


@pytest.mark.parametrize("name", ["", "a+b", "a\u00a0b", "a\u3000b"])
def test_a_line_under_a_name_that_cannot_be_a_keys_is_refused(name: str) -> None:
    with pytest.raises(EvidenceError, match=r"\[N5\]"):
        parse(SIGNED + line(name, bytes(68)))


@pytest.mark.parametrize("encoded", ["", "AAAA", "AAAAAA==", "AAAAAAB", "AAAAAAA", "AAAAAAB=", "AAAA-AA=", "AAAAAAA=="])
def test_base64_that_is_not_canonical_or_holds_no_signature_is_refused(encoded: str) -> None:
    with pytest.raises(EvidenceError, match=r"signature line 2 .*\[N6\]"):
        parse(f"{SIGNED}— {NAME} {encoded}\n")


def test_unknown_signatures_are_ignored() -> None:
    same_name = signature_line(VerifierKey(NAME, ATTACKER.x), bytes(64))
    same_id = line("example.org/other", OURS.id + bytes(64))
    post_quantum = line("example.org/pq", bytes(4 + 8 + 2420))
    assert verify(parse(SIGNED + same_name + same_id + post_quantum), [OURS]) == (OURS,)


@pytest.mark.parametrize(
    "body",
    [bytes(64), bytes(63), bytes(65), ATTACKER.sign(TEXT.encode()), KEY.sign(b"other\n")],
    ids=["zeros", "too short", "too long", "another key's", "another text's"],
)
def test_a_wrong_signature_by_a_known_key_refuses_the_note(body: bytes) -> None:
    for note in (SIGNED + signature_line(OURS, body), f"{TEXT}\n{signature_line(OURS, body)}{LINE}"):
        with pytest.raises(EvidenceError, match=rf"{NAME} under a note is wrong \[N8\]"):
            verify(parse(note), [OURS])


def test_a_changed_text_is_refused() -> None:
    with pytest.raises(EvidenceError, match=r"\[N8\]"):
        verify(parse(SIGNED.replace("some", "no")), [OURS])


def test_a_signature_by_nobody_known_is_refused() -> None:
    for keys in ([], [VerifierKey(NAME, ATTACKER.x)], [VerifierKey("example.org/other", KEY.x)]):
        with pytest.raises(EvidenceError, match=r"not signed by a known key.*\[N9\]"):
            verify(parse(SIGNED), keys)


def test_a_key_for_cosignatures_does_not_sign_a_note() -> None:
    cosigner = VerifierKey(NAME, KEY.x, COSIGNATURE)
    note = parse(f"{TEXT}\n{signature_line(cosigner, KEY.sign(TEXT.encode()))}")
    assert bodies_by(note, cosigner)
    assert not bodies_by(note, OURS)
    with pytest.raises(EvidenceError, match=r"\[N9\]"):
        verify(note, [cosigner, OURS])


def test_lines_can_be_gathered_from_several_signers() -> None:
    other = SigningKey.generate()
    also = sign(TEXT, "example.org/other", other).removeprefix(TEXT + "\n")
    keys = [OURS, VerifierKey("example.org/other", other.x)]
    assert verify(parse(SIGNED + also), keys) == tuple(keys)


@given(st.text(st.characters(), max_size=200) | st.binary(max_size=200))
def test_no_input_crashes_or_verifies(note: str | bytes) -> None:
    with pytest.raises(EvidenceError):
        verify(parse(note), [OURS])


@given(st.data())
def test_no_note_verifies_after_its_text_or_its_only_signature_was_changed(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(SIGNED) - 1))
    character = data.draw(st.characters() | st.sampled_from("ABab01+/= \n—"))
    changed = SIGNED[:at] + character + SIGNED[at + 1 :]
    if changed != SIGNED:
        with pytest.raises(EvidenceError):
            verify(parse(changed), [OURS])


@given(st.text("ab \n—\u00e9", max_size=30).map(lambda text: text + "\n"))
def test_every_text_that_can_be_signed_is_read_back(text: str) -> None:
    note = parse(sign(text, NAME, KEY))
    assert note.text == text
    assert verify(note, [OURS]) == (OURS,)


@given(st.text("ABCabc012+/=-_ \n", max_size=12))
def test_base64_takes_no_second_text_for_a_value(text: str) -> None:
    with suppress(ValueError):
        assert to_base64(from_base64(text)) == text


@given(st.text(st.characters(), max_size=60) | st.text("+abcdef0123456789AB=/", max_size=80))
def test_no_text_crashes_as_a_verifier_key(text: str) -> None:
    with suppress(ValueError):
        VerifierKey.parse(text)

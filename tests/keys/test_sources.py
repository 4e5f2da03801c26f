"""Rules T8 to T10: where a private key comes from, and what is not taken for one."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from exequatur.authority.keysource import load, read_passphrase, read_private
from exequatur.errors import ConfigurationError, SigningError
from exequatur.statements.keys import SigningKey, verify_signature
from tests.keys import kms

KEY = SigningKey.generate()
SECRET = "correct horse battery staple"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    private(tmp_path / "grant.pem", KEY.to_pem())
    private(tmp_path / "locked.pem", KEY.to_pem(SECRET.encode()))
    return tmp_path


@pytest.fixture(scope="module")
def service() -> Iterator[kms.Kms]:
    yield kms.signer("first")
    kms.signer("first").close()
    kms.signer.cache_clear()


def private(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    path.chmod(0o600)
    return path


def refusal(source: str, folder: Path, **options: str | None) -> str:
    with pytest.raises(ConfigurationError) as raised:
        load(source, folder, **{"kid": None, **options})
    assert SECRET not in str(raised.value)
    assert "PRIVATE KEY" not in str(raised.value)
    return str(raised.value)


def test_a_key_is_read_from_a_file_of_its_owner(folder: Path) -> None:
    assert load("file:grant.pem", folder, kid=KEY.kid).kid == KEY.kid


def test_an_encrypted_key_is_read_with_its_passphrase_from_the_environment_or_a_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEY_PASSPHRASE", SECRET)
    file = private(folder / "passphrase", f"{SECRET}\n".encode())
    for place in ("env:KEY_PASSPHRASE", f"file:{file}"):
        assert load("file:locked.pem", folder, kid=KEY.kid, passphrase=place).kid == KEY.kid


def test_a_key_is_read_from_the_environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRANT_KEY", KEY.to_pem().decode())
    assert load("env:GRANT_KEY", folder, kid=KEY.kid).kid == KEY.kid


@pytest.mark.parametrize("passphrase", [None, "env:WRONG", "env:EMPTY", "env:MISSING", "file:/nowhere"])
def test_an_encrypted_key_without_its_passphrase_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, passphrase: str | None
) -> None:
    monkeypatch.setenv("WRONG", "wrong")
    monkeypatch.setenv("EMPTY", "")
    assert refusal("file:locked.pem", folder, kid=KEY.kid, passphrase=passphrase)


def test_a_passphrase_for_a_key_that_needs_none_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY_PASSPHRASE", SECRET)
    assert "not a PEM key encrypted with this passphrase" in refusal(
        "file:grant.pem", folder, passphrase="env:KEY_PASSPHRASE"
    )


@pytest.mark.parametrize("place", ["", "env:", "env:1", "env:A=B", "file:", "file:\0", "vault:key", SECRET])
def test_a_passphrase_itself_is_no_place_of_one(place: str) -> None:
    with pytest.raises(ConfigurationError, match="names no passphrase; write env:NAME or file:PATH"):
        read_passphrase(place)


@pytest.mark.rule("T8")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o777])
def test_a_key_that_others_can_open_is_refused(folder: Path, mode: int) -> None:
    (folder / "grant.pem").chmod(mode)
    assert f"is open to others (mode {mode:o})" in refusal("file:grant.pem", folder)


@pytest.mark.rule("T8")
def test_a_passphrase_that_others_can_read_is_refused(folder: Path) -> None:
    file = private(folder / "passphrase", SECRET.encode())
    file.chmod(0o644)
    assert "is open to others" in refusal("file:locked.pem", folder, passphrase=f"file:{file}")


@pytest.mark.rule("T8")
def test_a_link_is_no_key_wherever_it_leads(folder: Path) -> None:
    (folder / "link.pem").symlink_to(folder / "grant.pem")
    (folder / "broken.pem").symlink_to(folder / "nowhere")
    for name in ("link.pem", "broken.pem"):
        assert "is a symbolic link; put the file itself there" in refusal(f"file:{name}", folder)


@pytest.mark.rule("T8")
def test_what_is_no_file_is_refused_and_nobody_waits_for_it(folder: Path) -> None:
    os.mkfifo(folder / "pipe.pem", 0o600)
    (folder / "folder.pem").mkdir(0o700)
    for name in ("pipe.pem", "folder.pem"):
        assert "is not a regular file" in refusal(f"file:{name}", folder)
    with pytest.raises(ConfigurationError, match="is not a regular file"):
        read_private(Path("/dev/zero"))


@pytest.mark.rule("T8")
def test_a_huge_file_is_not_read(folder: Path) -> None:
    private(folder / "huge.pem", KEY.to_pem() + b"\n" * 65_537)
    assert "larger than 64 KiB" in refusal("file:huge.pem", folder)


@pytest.mark.parametrize("cut", [0, 1, 30, 60, 100])
def test_a_key_that_was_cut_off_is_refused(folder: Path, cut: int) -> None:
    private(folder / "cut.pem", KEY.to_pem()[:cut])
    assert "is not an unencrypted PEM private key" in refusal("file:cut.pem", folder)


@pytest.mark.parametrize("data", [b"\xff\xfe", b"\0" * 100, b"-----BEGIN PUBLIC KEY-----\n", "ключ".encode()])
def test_what_is_no_key_is_refused(folder: Path, data: bytes) -> None:
    private(folder / "no.pem", data)
    assert "is not an unencrypted PEM private key" in refusal("file:no.pem", folder)


def test_a_file_that_is_not_there_is_named(folder: Path) -> None:
    assert str(folder / "gone.pem") in refusal("file:gone.pem", folder)


@pytest.mark.parametrize(
    "source",
    [
        *("", "file:", "file:../grant.pem", "file:/etc/passwd", "file:.hidden", "file:a/b", "file:a\n"),
        *("env:A B", "env:", "env:" + "A" * 300, "http://x"),
        *("signer:os", "signer::f", "signer:a:b:c", "signer:os; import x:y"),
    ],
)
def test_a_source_that_names_no_key_is_refused(folder: Path, source: str) -> None:
    assert "names no key; write file:NAME, env:NAME or signer:MODULE:FUNCTION" in refusal(source, folder)


@pytest.mark.rule("T9")
def test_another_key_in_the_place_of_the_one_that_is_named_is_refused(folder: Path) -> None:
    private(folder / "grant.pem", SigningKey.generate().to_pem())
    assert f"and the ring names {KEY.kid}" in refusal("file:grant.pem", folder, kid=KEY.kid)


# Signers of others.


def test_a_signer_in_another_process_signs(folder: Path, service: kms.Kms) -> None:
    key = load("signer:tests.keys.kms:signer", folder, kid=service.kid, argument="first")
    before = service.asked
    assert verify_signature(key.x, key.sign(b"data"), b"data")
    assert service.asked == before + 1


@pytest.mark.rule("T10")
@pytest.mark.parametrize(
    ("function", "why"),
    [
        ("impostor", "gave a signature that is not by key"),
        ("text", "gave a signature that is not by key"),
        ("misnamed", "the kid must be the key's RFC 7638 thumbprint"),
        ("away", "gave no signer: TimeoutError: the KMS does not answer"),
        ("nothing", "gave no signer: AttributeError"),
        ("gone", "gave no signer: AttributeError"),
    ],
)
def test_a_signer_that_does_not_hold_the_key_that_it_names_is_refused(folder: Path, function: str, why: str) -> None:
    assert why in refusal(f"signer:tests.keys.kms:{function}", folder)


def test_a_module_that_cannot_be_imported_is_named(folder: Path) -> None:
    assert "no.such.module:signer gave no signer: ModuleNotFoundError" in refusal(
        "signer:no.such.module:signer", folder
    )


@pytest.mark.rule("T10")
def test_a_signature_that_is_wrong_later_is_noticed(folder: Path) -> None:
    key = load("signer:tests.keys.kms:traitor", folder, kid=None)
    with pytest.raises(SigningError, match="gave a signature that is not by key"):
        key.sign(b"data")
    kms.traitor.cache_clear()


def test_a_signer_that_fails_later_says_who_and_why(folder: Path) -> None:
    service = kms.signer("second")
    key = load("signer:tests.keys.kms:signer", folder, kid=None, argument="second")
    service.close()
    with pytest.raises(SigningError, match="kms:signer did not sign"):
        key.sign(b"data")

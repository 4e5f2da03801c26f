"""Where the private part of an authority's key is, and how it is got from there.

==========================  ===========================================================================================
``file:NAME``               PEM file in the folder ``keys``, for its owner only; encrypted where there is a passphrase
``env:NAME``                PEM text in an environment variable
``signer:MODULE:FUNCTION``  the function gives a :class:`exequatur.statements.keys.Signer`: the seam for KMS and HSM
==========================  ===========================================================================================

A passphrase is ``env:NAME`` or ``file:PATH``, and never on a command line or in the ring. Rules, numbered as the code
marks them:

T8   A file with a private key or a passphrase is a regular file, no link, small, and open to its owner only.
T9   The key that a source gives is the one that the ring names, so that nobody changes a key by changing a file.
T10  A signer proves that it holds its key before it is used, and every signature that it gives is verified.
"""

from __future__ import annotations

import importlib
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

from exequatur.errors import ConfigurationError, SigningError
from exequatur.statements.keys import Signer, SigningKey, thumbprint, verify_signature

MAX_BYTES = 64 * 1024
"""A key is some hundred bytes."""
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}\Z")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}\Z")
_FUNCTION = re.compile(r"[A-Za-z_][\w.]{0,199}:[A-Za-z_]\w{0,199}\Z")
_PROBE = b"exequatur: does this signer hold its key?"
"""No statement begins like this, so the signature is good for nothing else."""


class ForeignSigner:
    """A signer of somebody else's, whose every signature is checked.

    Args:
        signer: What signs.
        name: How it is named to people.
    """

    def __init__(self, signer: Signer, name: str) -> None:
        self._signer = signer
        self._name = name
        self.x = str(signer.x)
        self.kid = str(signer.kid)

    def sign(self, data: bytes) -> bytes:
        """Sign.

        Raises:
            SigningError: It failed, or what it gave is no signature by its key.
        """
        try:
            signature = self._signer.sign(data)
        except Exception as err:
            raise SigningError(f"{self._name} did not sign: {_told(err)}") from err
        if not isinstance(signature, bytes) or not verify_signature(self.x, signature, data):  # [T10]
            raise SigningError(f"{self._name} gave a signature that is not by key {self.kid}")
        return signature

    def __repr__(self) -> str:
        return f"ForeignSigner({self._name!r}, kid={self.kid!r})"


def check_source(source: str) -> None:
    """Check that a source can be read as one.

    Raises:
        ConfigurationError: It cannot.
    """
    kind, _, rest = source.partition(":")
    patterns = {"file": _FILE_NAME, "env": _VARIABLE, "signer": _FUNCTION}
    if kind not in patterns or not patterns[kind].match(rest):
        raise ConfigurationError(f"{source[:200]!r} names no key; write file:NAME, env:NAME or signer:MODULE:FUNCTION")


def load(
    source: str, folder: Path, *, kid: str | None, passphrase: str | None = None, argument: str | None = None
) -> Signer:
    """Get a key from its source.

    Args:
        source: As above.
        folder: The folder of key files.
        kid: The key that it must be; ``None`` where any will do.
        passphrase: Where the passphrase of an encrypted PEM is; ``None`` for one that is not encrypted.
        argument: What a signer's function is given, such as the name of the key in a KMS.

    Raises:
        ConfigurationError: T8 to T10, or there is no key that can be used.
    """
    check_source(source)
    kind, _, rest = source.partition(":")
    if kind == "signer":
        key: Signer = _foreign(rest, argument)
    else:
        where = str(folder / rest) if kind == "file" else f"The environment variable {rest}"
        pem = read_private(folder / rest) if kind == "file" else _variable(rest, os.environ)
        try:
            key = SigningKey.from_pem(pem, None if passphrase is None else read_passphrase(passphrase))
        except ValueError as err:
            step = "put the right file back, or move it away to have a new key made"
            if kid is not None or kind != "file":
                step = "name the passphrase that it was encrypted with, or put the right key back"
            raise ConfigurationError(f"{where} is {err}; {step}") from err
    if kid is not None and key.kid != kid:  # [T9]
        raise ConfigurationError(f"{source} holds key {key.kid}, and the ring names {kid}; put the right key back")
    return key


def read_private(path: Path) -> bytes:
    """Read a file that only its owner may read.

    Raises:
        ConfigurationError: T8, or it cannot be read.
    """
    try:
        # Not blocking: a pipe would keep the reader for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as err:
        if path.is_symlink():  # [T8]
            raise ConfigurationError(f"{path} is a symbolic link; put the file itself there") from None
        raise ConfigurationError(f"{path}: {err.strerror}; name a file that this user can read") from None
    try:
        status = os.fstat(descriptor)
        mode = stat.S_IMODE(status.st_mode)
        if not stat.S_ISREG(status.st_mode):  # [T8]
            raise ConfigurationError(f"{path} is not a regular file; put the file itself there")
        if mode & 0o077:  # [T8]
            raise ConfigurationError(
                f"{path} is open to others (mode {mode:o}); whoever reads it can issue grants. Run: chmod go-rwx {path}"
            )
        with os.fdopen(descriptor, "rb", closefd=False) as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as err:
        raise ConfigurationError(f"{path}: {err.strerror}; name a file that this user can read") from None
    finally:
        os.close(descriptor)
    if len(data) > MAX_BYTES:  # [T8]
        raise ConfigurationError(f"{path}: larger than {MAX_BYTES >> 10} KiB, which no key is")
    return data


def read_passphrase(place: str) -> bytes:
    """Read a passphrase.

    Args:
        place: ``env:NAME`` or ``file:PATH``; one newline at the end does not count.

    Raises:
        ConfigurationError: T8, or there is none.
    """
    kind, _, rest = place.partition(":")
    if kind == "env" and _VARIABLE.match(rest):
        secret = _variable(rest, os.environ)
    elif kind == "file" and rest and "\0" not in rest:
        secret = read_private(Path(rest))
    else:
        raise ConfigurationError(f"{place[:200]!r} names no passphrase; write env:NAME or file:PATH")
    secret = secret.removesuffix(b"\n").removesuffix(b"\r")
    if not secret:
        raise ConfigurationError(f"{place}: the passphrase is empty; a key without one is imported without it")
    return secret


def _variable(name: str, environment: Mapping[str, str]) -> bytes:
    value = environment.get(name)
    if value is None:
        raise ConfigurationError(f"The environment variable {name} is not set; set it where this process is started")
    return os.fsencode(value)


def _foreign(function: str, argument: str | None) -> Signer:
    """T10: what a function makes, once it has proved that it holds the key that it names."""
    module, _, name = function.partition(":")
    try:
        make = getattr(importlib.import_module(module), name)
        made = ForeignSigner(make() if argument is None else make(argument), function)
        if made.kid != thumbprint(made.x):  # [T10]
            raise ConfigurationError(f"{function}: the kid must be the key's RFC 7638 thumbprint")
        made.sign(_PROBE)  # [T10]
    except ConfigurationError:
        raise
    except SigningError as err:
        raise ConfigurationError(f"{err}; see that this process can use the key") from err
    except (Exception, SystemExit) as err:
        raise ConfigurationError(f"{function} gave no signer: {_told(err)}") from err
    return made


def _told(error: BaseException) -> str:
    first = str(error).partition("\n")[0][:200]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__

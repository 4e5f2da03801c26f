"""How a process identifies itself to an authority: what it shows, and where that comes from.

Rules, numbered as the code marks them:

U1  A token is never shown in a ``repr``, an error or a log.
U2  A token file is a regular file of at most :data:`~exequatur.identity.credential.MAX_TOKEN` bytes, and holds one line
    of text. It is read again when it changed: what mounts such files, such as Kubernetes, replaces them in time.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from exequatur.errors import IdentityUnavailableError
from exequatur.identity.credential import JWT_TYPE, LOCAL_TYPE, MAX_TOKEN, Credential
from exequatur.identity.documents import FileSource
from exequatur.identity.principal import Principal


class Identity(Protocol):
    """What a process shows."""

    def credential(self) -> Credential | None:
        """The token that is valid now; ``None`` where the client certificate says it all.

        Raises:
            IdentityUnavailableError: There is none now.
        """
        ...

    @property
    def certificate(self) -> tuple[str, str] | None:
        """PEM files of the TLS client certificate, with its chain, and of its key."""
        ...


class TokenFile:
    """A token in a file that somebody else keeps up to date.

    Args:
        path: The file.
        type: Token type URI (RFC 8693, section 3).
        certificate: PEM files of a client certificate and its key, for tokens that are bound to one.
    """

    def __init__(
        self, path: str | Path, type: str = JWT_TYPE, *, certificate: tuple[str | Path, str | Path] | None = None
    ) -> None:
        self._path = Path(path)
        self._type = type
        self._source = FileSource(self._path, MAX_TOKEN)
        self._held: Credential | None = None
        self.certificate = _pair(certificate)

    def __repr__(self) -> str:  # U1
        return f"TokenFile({str(self._path)!r})"

    def credential(self) -> Credential:
        """The token that the file holds now.

        Raises:
            IdentityUnavailableError: U2.
        """
        held = self._held
        if held is None or self._source.changed():  # U2
            held = Credential(_one_line(self._source.read(), str(self._path)), self._type)
            self._held = held
        return held


class Token:
    """A token that the program has, or gets.

    Args:
        token: The token, or what gives the one that is valid now. It is called from threads.
        type: Token type URI (RFC 8693, section 3).
        certificate: PEM files of a client certificate and its key, for tokens that are bound to one.
    """

    def __init__(
        self,
        token: str | Callable[[], str],
        type: str = JWT_TYPE,
        *,
        certificate: tuple[str | Path, str | Path] | None = None,
    ) -> None:
        self._token = token
        self._type = type
        self.certificate = _pair(certificate)

    def __repr__(self) -> str:  # U1
        return "Token(...)"

    def credential(self) -> Credential:
        """The token that is valid now.

        Raises:
            IdentityUnavailableError: What gives it failed, or gave something else.
        """
        given: object = self._token
        if callable(given):
            try:
                given = given()
            except Exception as err:
                raise IdentityUnavailableError(f"The token cannot be had: {type(err).__name__}") from None  # U1
        if not isinstance(given, str):
            raise IdentityUnavailableError("The token cannot be had: what gives it gave no text")
        return Credential(_one_line(given.encode("utf-8", "replace"), "The token"), self._type)


class ClientCertificate:
    """A TLS client certificate, and nothing else.

    Args:
        certificate: PEM file, with the chain.
        key: PEM file of its key.
    """

    def __init__(self, certificate: str | Path, key: str | Path) -> None:
        self.certificate = (str(certificate), str(key))

    def __repr__(self) -> str:
        return f"ClientCertificate({self.certificate[0]!r})"

    def credential(self) -> None:
        return None


class LocalIdentity:
    """A name, for an authority for development, which believes it.

    Args:
        principal: Who this process says that it is; text is ``Type::"id"``.
    """

    certificate = None

    def __init__(self, principal: Principal | str) -> None:
        self.principal = Principal.parse(principal) if isinstance(principal, str) else principal

    def __repr__(self) -> str:
        return f"LocalIdentity({str(self.principal)!r})"

    def credential(self) -> Credential:
        return local_credential(self.principal)


def local_credential(principal: Principal) -> Credential:
    """What an authority for development believes of a principal."""
    if not principal.attributes and not principal.parents:
        return Credential(str(principal), LOCAL_TYPE)
    described = {
        "principal": str(principal),
        "attributes": dict(principal.attributes),
        "parents": [str(each) for each in principal.parents],
    }
    return Credential(json.dumps(described, ensure_ascii=False), LOCAL_TYPE)


def _one_line(data: bytes, what: str) -> str:
    """U2."""
    text = data.strip()
    if not text or not text.isascii() or len(text.split()) != 1 or len(text) > MAX_TOKEN:  # [U2]
        raise IdentityUnavailableError(f"{what} does not hold one token")
    return text.decode("ascii")


def _pair(files: tuple[str | Path, str | Path] | None) -> tuple[str, str] | None:
    return None if files is None else (str(files[0]), str(files[1]))

"""Who releases policies and who keeps them: a policy team with real keys, and a real HTTP server with its bad days."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from exequatur.policy.source import BundleSource, SourceFile
from exequatur.release.file import BundleFile, Manifest, build
from exequatur.release.signing import sign_bundle
from exequatur.statements.keys import SigningKey
from exequatur.statements.models import Release
from exequatur.statements.trust import Anchor, TrustStore
from tests.serving import hosting

PERMIT = '@id("all") permit(principal, action, resource);\n'


def made(policies: str = PERMIT, *, name: str = "policies", version: str = "1", **parts: SourceFile) -> BundleFile:
    """A bundle file that nobody has signed."""
    manifest = Manifest(name=name, version=version, author="ana", time="2026-11-01T00:00:00Z")
    return build(BundleSource((SourceFile("main.cedar", policies),), **parts), manifest)[0]


class PolicyTeam:
    """Has a policy key, and signs with it.

    Args:
        folder: Where the file of trusted keys goes.
        issuer: As the trusted keys name it.
    """

    def __init__(self, folder: Path, issuer: str = "policy") -> None:
        self.issuer = issuer
        self.key = SigningKey.generate()
        self.keys = folder / f"{issuer}-keys.jwks"
        self.keys.write_bytes(self.trust().to_jwks())

    def anchor(self, **changes: Any) -> Anchor:
        given = {"kid": self.key.kid, "x": self.key.x, "typ": (Release.typ,), "iss": self.issuer, "nbf": 0.0}
        return Anchor(**given | changes)

    def trust(self, **changes: Any) -> TrustStore:
        return TrustStore([self.anchor(**changes)])

    def release(self, file: BundleFile, sequence: int | None = None, **options: Any) -> BundleFile:
        """Sign a file; ``now`` and the rest as for :func:`exequatur.release.signing.sign_bundle`."""
        options.setdefault("now", time.time())
        contents = file.open("the bundle")
        return sign_bundle(file, contents, self.key, issuer=self.issuer, sequence=sequence, **options)[0]

    def released(self, policies: str, sequence: int, *, share: int | None = None, **options: Any) -> bytes:
        """The bytes of a signed bundle of these policies."""
        return self.release(made(policies, **options), sequence, share=share).to_bytes()


Answer = Callable[[Request], Any]


class Server:
    """Keeps files, with ETag, Range, PUT and DELETE; and misbehaves when it is told to.

    ``files`` are by path. ``bad`` holds an answer for a path, which is given instead. ``asked`` lists the requests.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.bad: dict[str, Answer] = {}
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self.port = 0

    def url(self, path: str = "/policies.bundle", user: str = "") -> str:
        return f"http://{user}127.0.0.1:{self.port}{path}"

    def requests(self, path: str = "/policies.bundle", method: str = "GET") -> list[dict[str, str]]:
        """The headers of the requests for a path."""
        return [headers for asked, there, headers in self.asked if (asked, there) == (method, path)]

    async def answer(self, request: Request) -> Response:
        path = request.url.path
        self.asked.append((request.method, path, dict(request.headers)))
        if path in self.bad:
            answer = self.bad[path](request)
            return await answer if asyncio.iscoroutine(answer) else answer
        data = self.files.get(path)
        tag = None if data is None else etag(data)
        if request.method in ("PUT", "DELETE"):
            wanted, unless = request.headers.get("if-match"), request.headers.get("if-none-match")
            if (wanted is not None and wanted != tag) or (unless == "*" and tag is not None):
                return Response(status_code=412)
            if request.method == "PUT":
                self.files[path] = await request.body()
                return Response(status_code=201)
            return Response(status_code=404 if self.files.pop(path, None) is None else 204)
        if data is None or tag is None:
            return Response(status_code=404)
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers={"etag": tag})
        start = request.headers.get("range", "").removeprefix("bytes=").removesuffix("-")
        if start and request.headers.get("if-range") == tag:
            where = f"bytes {start}-{len(data) - 1}/{len(data)}"
            return Response(data[int(start) :], status_code=206, headers={"etag": tag, "content-range": where})
        return Response(data, headers={"etag": tag})


def etag(data: bytes) -> str:
    return f'"{hashlib.sha256(data).hexdigest()[:16]}"'


def status(code: int, **headers: str) -> Answer:
    """Answers with a status and nothing else."""
    return lambda _: Response(status_code=code, headers=headers)


def redirect(target: str) -> Answer:
    return lambda _: RedirectResponse(target)


def sending(data: bytes, **headers: str) -> Answer:
    return lambda _: Response(data, headers=headers)


def breaking_off(data: bytes, after: int) -> Answer:
    """Promises a file and ends in the middle of it."""

    async def parts() -> AsyncIterator[bytes]:
        yield data[:after]
        raise ConnectionResetError("a bad day")

    return lambda _: StreamingResponse(parts(), headers={"etag": etag(data), "content-length": str(len(data))})


def dripping(data: bytes) -> Answer:
    """Sends a byte every now and then."""

    async def parts() -> AsyncIterator[bytes]:
        for byte in data:
            yield bytes([byte])
            await asyncio.sleep(0.05)

    return lambda _: StreamingResponse(parts(), headers={"content-length": str(len(data))})


@contextmanager
def serving() -> Iterator[Server]:
    """Run a server in a thread of its own."""
    server = Server()
    app = Starlette(routes=[Route("/{path:path}", server.answer, methods=["GET", "PUT", "DELETE"])])
    with hosting(app) as server.port:
        yield server


def changed_claims(token: str, **changes: Any) -> str:
    """The same signature under other claims."""
    from exequatur.statements.encoding import from_base64url, to_base64url

    header, claims, signature = token.split(".")
    text = json.dumps(json.loads(from_base64url(claims)) | changes)
    return f"{header}.{to_base64url(text.encode())}.{signature}"

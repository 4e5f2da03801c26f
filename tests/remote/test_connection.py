"""The connection to an authority: only to it, only over what others cannot read, and never for longer than agreed."""

import asyncio
import contextlib
import datetime
import gc
import ipaddress
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from starlette.responses import Response

from exequatur import AuthorizationPlugin, Principal, Settings
from exequatur.authority.connection import MAX_ANSWER, Connection, UnreachableError
from exequatur.errors import ConfigurationError
from exequatur.release.web import WebPlace
from tests.release.parties import Server, dripping, redirect, sending, serving
from tests.remote.parties import AuthorityProcess


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture
def server(running: Server) -> Server:
    running.files, running.bad, running.asked = {"/v1/trust": b"{}"}, {}, []
    return running


def connected(server: Server, **options: object) -> Connection:
    options.setdefault("timeout", 5.0)
    return Connection(f"http://127.0.0.1:{server.port}", **options)  # type: ignore[arg-type]


def test_an_answer_comes_whole(server: Server) -> None:
    server.bad["/v1/trust"] = sending(b'{"keys": []}', **{"content-type": "application/json; charset=utf-8"})
    answer = connected(server).ask_now("GET", "/v1/trust")
    assert (answer.status, answer.body, answer.is_json) == (200, b'{"keys": []}', True)


async def test_any_event_loop_and_any_thread_may_ask(server: Server) -> None:
    connection = connected(server)

    async def ask() -> int:
        return (await connection.ask("GET", "/v1/trust")).status

    elsewhere = await asyncio.to_thread(lambda: asyncio.run(ask()))
    blocking = await asyncio.to_thread(lambda: connection.ask_now("GET", "/v1/trust").status)
    assert [await ask(), elsewhere, blocking] == [200, 200, 200]


def test_a_process_that_was_forked_asks_by_itself(server: Server) -> None:
    connection = connected(server)
    assert connection.ask_now("GET", "/v1/trust").status == 200
    child = os.fork()
    if child == 0:
        status = 1
        with contextlib.suppress(BaseException):
            status = 0 if connection.ask_now("GET", "/v1/trust").status == 200 else 1
        os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert connection.ask_now("GET", "/v1/trust").status == 200


def test_a_connection_that_nobody_holds_any_more_leaves_no_thread(server: Server) -> None:
    before = set(threading.enumerate())
    connection = connected(server)
    connection.ask_now("GET", "/v1/trust")
    [thread] = set(threading.enumerate()) - before
    del connection
    gc.collect()
    thread.join(10)
    assert not thread.is_alive()


def test_a_path_of_the_url_comes_before_those_of_the_api(server: Server) -> None:
    server.files["/inner/v1/trust"] = b"{}"
    connection = Connection(f"http://127.0.0.1:{server.port}/inner/", timeout=5)
    assert connection.ask_now("GET", "/v1/trust").status == 200


@pytest.mark.rule("connection.N1")
@pytest.mark.parametrize(
    "url",
    [
        "http://authority.example",
        "http://10.0.0.1:8443",
        "http://localhost.example",
        "http://127.0.0.1.example",
        "ftp://127.0.0.1",
        "https://",
        "https://user:secret@authority.example",
        "https://authority.example/?token=secret",
        "https://authority.example/#secret",
        "authority.example",
        "",
        "https://[",
        "https://" + "a" * 100_000,
        "\x00",
    ],
)
def test_a_url_that_others_could_read_or_that_holds_a_secret_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Connection(url, timeout=1)
    assert "secret" not in str(refused.value)
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1", "http://[::1]:1", "http://localhost", "https://authority.example"]
)
def test_loopback_and_https_are_taken(url: str) -> None:
    assert str(Connection(url, timeout=1)).startswith(url[:10])


@pytest.mark.rule("connection.N1")
def test_what_goes_to_this_machine_in_the_clear_goes_through_no_proxy(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving() as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{proxy.port}")
        assert connected(server).ask_now("GET", "/v1/trust", headers={"Authorization": "Bearer t"}).status == 200
        assert proxy.asked == []


@pytest.mark.rule("connection.N2")
@pytest.mark.parametrize("how", ["silent", "dripping"])
def test_a_slow_authority_is_given_up_in_time(server: Server, how: str) -> None:
    async def silent(_: object) -> Response:
        await asyncio.sleep(30)
        return Response()

    server.bad["/v1/trust"] = silent if how == "silent" else dripping(b" " * 600)
    begun = time.monotonic()
    with pytest.raises(UnreachableError, match=r"does not answer within 0.4 s"):
        connected(server, timeout=0.4).ask_now("GET", "/v1/trust")
    assert time.monotonic() - begun < 20


@pytest.mark.rule("connection.N3")
def test_more_than_any_answer_has_is_not_taken(server: Server) -> None:
    server.bad["/v1/trust"] = sending(b" " * (MAX_ANSWER + 1))
    with pytest.raises(UnreachableError, match="more than 1 MiB"):
        connected(server).ask_now("GET", "/v1/trust")


@pytest.mark.rule("connection.N3")
def test_what_is_compressed_is_not_opened(server: Server) -> None:
    server.bad["/v1/trust"] = sending(b"bomb", **{"content-encoding": "gzip"})
    with pytest.raises(UnreachableError, match="compressed"):
        connected(server).ask_now("GET", "/v1/trust")


@pytest.mark.rule("connection.N4")
def test_a_redirect_is_not_followed(server: Server) -> None:
    with serving() as other:
        other.files["/v1/trust"] = b"{}"
        server.bad["/v1/trust"] = redirect(other.url("/v1/trust"))
        with pytest.raises(UnreachableError, match="redirects elsewhere"):
            connected(server).ask_now("GET", "/v1/trust", headers={"Authorization": "Bearer secret"})
        assert other.asked == []


def test_a_server_that_breaks_off_or_is_not_there_is_unreachable(server: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=_hang_up, args=(listening,), daemon=True).start()
        with pytest.raises(UnreachableError, match="cannot be reached"):
            Connection(f"http://127.0.0.1:{listening.getsockname()[1]}", timeout=5).ask_now("GET", "/")
    with pytest.raises(UnreachableError, match="refused"):
        Connection("http://127.0.0.1:1", timeout=5).ask_now("GET", "/")
    with pytest.raises(UnreachableError, match="cannot be reached"):
        Connection("https://no-such-host.invalid", timeout=5).ask_now("GET", "/")


def _hang_up(listening: socket.socket) -> None:
    accepted, _ = listening.accept()
    accepted.close()


@pytest.mark.rule("connection.N5")
def test_what_identifies_this_process_is_in_no_message(server: Server) -> None:
    request = {"headers": {"Authorization": "Bearer hush-hush"}, "content": b"hush-hush"}
    for connection in (connected(server, timeout=0.001), Connection("http://127.0.0.1:1", timeout=1)):
        with pytest.raises(UnreachableError) as raised:
            connection.ask_now("POST", "/hush", **request)
        assert "hush-hush" not in str(raised.value)
        assert raised.value.__cause__ is None
        assert raised.value.__suppress_context__


@pytest.mark.rule("J63")
def test_what_identifies_this_process_goes_to_no_other_server_than_the_one_with_the_policies(server: Server) -> None:
    with serving() as other:
        other.files["/policies.bundle"] = b"x"
        server.bad["/policies.bundle"] = redirect(other.url())
        place = WebPlace(server.url(), headers=lambda: {"Authorization": "Bearer secret"})
        place.look()
        assert server.requests()[0]["authorization"] == "Bearer secret"
        assert [headers.get("authorization") for headers in other.requests()] == [None]


# TLS.


def make_certificate(
    folder: Path,
    name: str,
    *,
    issuer: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None = None,
    host: str = "127.0.0.1",
) -> tuple[Path, Path, x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key((issuer[1] if issuer else key).public_key()),
            critical=False,
        )
        .sign(issuer[1] if issuer else key, hashes.SHA256())
    )
    cert_file, key_file = folder / f"{name}.pem", folder / f"{name}.key"
    cert_file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return cert_file, key_file, made, key


@contextmanager
def tls_server(cert: Path, key: Path, client_ca: Path | None = None) -> Iterator[tuple[str, list[object]]]:
    """Answers every request with ``{}``, and tells which client certificates were shown."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=client_ca)
    context.load_cert_chain(cert, key)
    if client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    listening = socket.create_server(("127.0.0.1", 0))
    shown: list[object] = []

    def serve() -> None:
        while True:
            try:
                accepted, _ = listening.accept()
            except OSError:
                return
            try:
                with context.wrap_socket(accepted, server_side=True) as secured:
                    secured.recv(65_536)
                    shown.append((secured.getpeercert() or {}).get("subject"))
                    secured.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}")
            except OSError:
                accepted.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"https://127.0.0.1:{listening.getsockname()[1]}", shown
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join(5)


@pytest.mark.rule("connection.N1")
def test_only_a_server_whose_certificate_verifies_is_asked(tmp_path: Path) -> None:
    ca_file, _, ca, ca_key = make_certificate(tmp_path, "ca")
    cert, key, _, _ = make_certificate(tmp_path, "server", issuer=(ca, ca_key))
    other_host, other_key, _, _ = make_certificate(tmp_path, "other", issuer=(ca, ca_key), host="127.0.0.2")
    with tls_server(cert, key) as (url, shown):
        with pytest.raises(UnreachableError, match="certificate"):
            Connection(url, timeout=5).ask_now("GET", "/")
        assert shown == []
        assert Connection(url, timeout=5, ca=str(ca_file)).ask_now("GET", "/").body == b"{}"
    with tls_server(other_host, other_key) as (url, shown):
        with pytest.raises(UnreachableError, match=r"certificate|mismatch"):
            Connection(url, timeout=5, ca=str(ca_file)).ask_now("GET", "/")
        assert shown == []


def test_the_certificate_of_this_process_is_shown_and_a_new_one_taken(tmp_path: Path) -> None:
    ca_file, _, ca, ca_key = make_certificate(tmp_path, "ca")
    cert, key, _, _ = make_certificate(tmp_path, "server", issuer=(ca, ca_key))
    first = make_certificate(tmp_path, "first", issuer=(ca, ca_key))
    second = make_certificate(tmp_path, "second", issuer=(ca, ca_key))
    with tls_server(cert, key, client_ca=ca_file) as (url, shown):
        files = (str(first[0]), str(first[1]))
        connection = Connection(url, timeout=5, ca=str(ca_file), certificate=lambda: files)
        connection.ask_now("GET", "/")
        first[1].write_bytes(second[1].read_bytes())
        first[0].write_bytes(second[0].read_bytes())
        connection.ask_now("GET", "/")
        first[0].write_bytes(b"half a file")
        connection.ask_now("GET", "/")
    names = [subject[0][0][1] for subject in shown]  # type: ignore[index]
    assert names == ["first", "second", "second"]


def test_a_file_that_cannot_be_used_is_said_at_the_start(tmp_path: Path) -> None:
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_bytes(b"\xff nonsense")
    for ca in (str(nonsense), str(tmp_path / "missing"), str(tmp_path)):
        with pytest.raises(ConfigurationError, match="authority_ca"):
            Connection("https://authority.example", timeout=1, ca=ca)
    for files in ((str(nonsense), str(nonsense)), (str(tmp_path / "missing"), "")):
        with pytest.raises(ConfigurationError, match="client certificate"):
            Connection("https://authority.example", timeout=1, certificate=lambda files=files: files)


async def test_an_authority_over_tls_is_believed_only_where_its_certificate_is(tmp_path: Path) -> None:
    ca_file, _, ca, ca_key = make_certificate(tmp_path, "ca")
    cert, key, _, _ = make_certificate(tmp_path, "server", issuer=(ca, ca_key))
    authority = AuthorityProcess(tmp_path / "authority", tls=(cert, key))
    authority.start()
    try:
        for trusted in (True, False):
            plugin = AuthorizationPlugin(
                authority.url,
                principal=Principal("Service", "shop"),
                state_dir=tmp_path / f"worker{trusted}",
                settings=Settings(authority_ca=str(ca_file) if trusted else None),
            )
            with plugin.gate.workload.covering("default", "orders", ["charge"]):
                await asyncio.to_thread(plugin.gate.renew_credential)
            if trusted:
                assert plugin.gate.workload.problem is None
            else:
                assert "certificate" in (plugin.gate.workload.problem or "")
                assert not list(plugin.gate.trust)
    finally:
        authority.kill()

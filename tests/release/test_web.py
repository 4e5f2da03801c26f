"""What a server may do to us: every bad answer is a sentence, and none of them is a file."""

import time
from typing import Any

import pytest
from starlette.responses import Response, StreamingResponse

from exequatur.errors import ConfigurationError, PolicyError
from exequatur.release import web
from exequatur.release.file import MAX_FILE_BYTES
from exequatur.release.web import WebPlace
from tests.release.parties import (
    PolicyTeam,
    Server,
    breaking_off,
    dripping,
    etag,
    made,
    redirect,
    sending,
    status,
)

OTHER = '@id("other") permit(principal, action, resource);\n'
FILE = made().to_bytes()
PATH, CANARY = "/policies.bundle", "/policies.canary.bundle"


def problem(place: WebPlace) -> str:
    place.look()
    with pytest.raises(PolicyError) as raised:
        place.read("stable")
    return str(raised.value)


def got(place: WebPlace) -> bytes | None:
    place.look()
    return place.read("stable")


def anything(_: object) -> None: ...


@pytest.mark.rule("J65")
def test_a_file_is_fetched_once_and_then_only_asked_about(shelf: Server):
    shelf.files[PATH] = FILE
    place = WebPlace(shelf.url())
    first = place.look()
    assert (place.read("stable"), place.read("canary")) == (FILE, None)
    assert place.look() == first
    assert [request.get("if-none-match") for request in shelf.requests()] == [None, etag(FILE)]
    shelf.files[PATH] = made(OTHER).to_bytes()
    assert place.look() != first
    assert place.read("stable") == made(OTHER).to_bytes()


def test_the_canary_is_beside_the_stable_bundle(shelf: Server):
    shelf.files = {"/a/x.bundle": FILE, "/a/x.canary.bundle": b"canary", "/plain": FILE, "/plain.canary": b"too"}
    for path, canary in (("/a/x.bundle?key=secret", b"canary"), ("/plain", b"too")):
        place = WebPlace(shelf.url(path))
        place.look()
        assert place.read("canary") == canary
        assert "secret" not in str(place)


@pytest.mark.rule("J64")
@pytest.mark.parametrize("code", [204, 206, 304, 400, 401, 403, 405, 416, 429, 500, 503])
def test_an_answer_that_is_no_file_says_nothing_about_the_file(shelf: Server, code: int):
    shelf.bad[PATH] = status(code)
    assert f"answers {code}" in problem(WebPlace(shelf.url()))


@pytest.mark.rule("J64")
@pytest.mark.parametrize("code", [404, 410])
def test_no_such_file_is_an_answer(shelf: Server, code: int):
    shelf.bad[PATH] = status(code)
    assert got(WebPlace(shelf.url())) is None


def test_a_server_that_comes_back_is_asked_again_and_nothing_was_forgotten(shelf: Server):
    shelf.files[PATH] = FILE
    place = WebPlace(shelf.url())
    before = place.look()
    shelf.bad[PATH] = status(500)
    assert place.look() != before
    assert place.look() == place.look(), "the same problem is the same state"
    del shelf.bad[PATH]
    assert place.look() == before
    assert shelf.requests()[-1]["if-none-match"] == etag(FILE)


def test_a_server_that_is_away_cannot_be_reached():
    assert "cannot be reached (" in problem(WebPlace("http://127.0.0.1:1/policies.bundle"))
    assert "cannot be reached (" in problem(WebPlace("http://" + "x" * 70 + ".invalid/policies.bundle"))


@pytest.mark.rule("J61")
def test_a_server_that_drips_is_given_up(shelf: Server, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(web, "DEADLINE", 0.3)
    shelf.bad[PATH] = dripping(FILE)
    began = time.monotonic()
    assert "does not answer within" in problem(WebPlace(shelf.url()))
    assert time.monotonic() - began < 20


@pytest.mark.rule("J61")
def test_a_server_that_drips_its_headers_is_given_up(monkeypatch: pytest.MonkeyPatch):
    import socket
    import threading

    monkeypatch.setattr(web, "DEADLINE", 0.3)
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(10)

        def serve() -> None:
            for _ in range(2):
                connection, _ = listening.accept()
                with connection:
                    connection.sendall(b"HTTP/1.1 200 OK\r\n")
                    while not stop.wait(0.05):
                        try:
                            connection.sendall(b"X-More: 1\r\n")
                        except OSError:
                            break

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            place = WebPlace(f"http://127.0.0.1:{listening.getsockname()[1]}/policies.bundle")
            assert "does not answer within" in problem(place)
        finally:
            stop.set()
            thread.join()


@pytest.mark.rule("J62")
def test_a_file_that_is_too_large_is_not_taken(shelf: Server):
    async def parts():
        for _ in range((MAX_FILE_BYTES >> 20) + 2):
            yield bytes(1 << 20)

    shelf.bad[PATH] = lambda _: StreamingResponse(parts())
    assert "is larger than" in problem(WebPlace(shelf.url()))


@pytest.mark.rule("J62")
def test_nothing_is_decompressed(shelf: Server):
    shelf.bad[PATH] = sending(FILE, **{"content-encoding": "gzip"})
    assert "compressed" in problem(WebPlace(shelf.url()))
    assert shelf.requests()[0]["accept-encoding"] == "identity"


@pytest.mark.rule("J63")
@pytest.mark.parametrize(
    ("target", "said"),
    [
        (PATH, "redirects without end"),
        ("https://127.0.0.1/policies.bundle", "from http to https"),
        ("file:///etc/passwd", "from http to file"),
        ("ftp://127.0.0.1/x", "from http to ftp"),
        ("http://host:port/x", "Invalid URL"),
    ],
)
def test_a_redirect_that_leads_elsewhere_is_not_followed(shelf: Server, target: str, said: str):
    shelf.bad[PATH] = status(302, location=target)
    assert said in problem(WebPlace(shelf.url()))
    assert len(shelf.requests()) <= web.MAX_REDIRECTS + 1


@pytest.mark.rule("J63")
def test_a_redirect_is_followed_and_the_password_stays_at_home(shelf: Server):
    shelf.bad[PATH] = redirect(f"http://localhost:{shelf.port}/elsewhere")
    shelf.files["/elsewhere"] = FILE
    place = WebPlace(shelf.url(user="ana:secret@"))
    assert got(place) == FILE
    assert "authorization" in shelf.requests()[0]
    assert "authorization" not in shelf.requests("/elsewhere")[0]
    assert "secret" not in str(place)


@pytest.mark.rule("J65")
def test_a_file_that_did_not_arrive_whole_is_fetched_again_whatever_its_etag(shelf: Server):
    shelf.bad[PATH] = sending(FILE[:-20], etag=etag(FILE))
    place = WebPlace(shelf.url())
    assert got(place) == FILE[:-20]
    del shelf.bad[PATH]
    shelf.files[PATH] = FILE
    assert got(place) == FILE


@pytest.mark.rule("J66")
def test_a_transfer_that_breaks_is_taken_up_where_it_broke(shelf: Server):
    shelf.files[PATH] = FILE
    shelf.bad[PATH] = once(shelf, breaking_off(FILE, 100))
    assert got(WebPlace(shelf.url())) == FILE
    first, second = shelf.requests()
    assert "range" not in first
    assert (second["range"], second["if-range"]) == ("bytes=100-", etag(FILE))


@pytest.mark.rule("J66")
def test_a_file_that_changed_meanwhile_is_fetched_from_its_beginning(shelf: Server):
    shelf.files[PATH] = made(OTHER).to_bytes()
    shelf.bad[PATH] = once(shelf, breaking_off(FILE, 100))
    assert got(WebPlace(shelf.url())) == made(OTHER).to_bytes()


@pytest.mark.rule("J66")
@pytest.mark.parametrize(
    "headers", [{"content-range": "bytes 99-500/501"}, {"content-range": "bytes 100-500/501", "etag": '"other"'}, {}]
)
def test_a_rest_that_does_not_fit_is_not_put_together(shelf: Server, headers: dict[str, str]):
    broken = breaking_off(FILE, 100)

    def answer(request: Any) -> Any:
        return Response(FILE[100:], 206, headers) if "range" in request.headers else broken(request)

    shelf.bad[PATH] = answer
    assert "206" in problem(WebPlace(shelf.url()))


def test_a_transfer_that_breaks_again_and_again_is_given_up_for_now(shelf: Server):
    shelf.bad[PATH] = breaking_off(FILE, 10)
    place = WebPlace(shelf.url())
    assert "cannot be reached" in problem(place)
    assert len(shelf.requests()) <= 3


@pytest.mark.rule("J67")
def test_a_file_is_put_where_there_is_none_or_the_one_that_was_looked_at(shelf: Server):
    place = WebPlace(shelf.url())
    seen: list[bytes | None] = []
    place.write("stable", FILE, seen.append)
    place.write("stable", made(OTHER).to_bytes(), seen.append)
    assert seen == [None, FILE]
    assert shelf.files[PATH] == made(OTHER).to_bytes()
    first, second = shelf.requests(method="PUT")
    assert (first["if-none-match"], second["if-match"]) == ("*", etag(FILE))


@pytest.mark.rule("J67")
def test_a_file_that_somebody_else_put_meanwhile_is_looked_at_before_it_is_replaced(shelf: Server):
    place, seen = WebPlace(shelf.url()), []

    def check(there: bytes | None) -> None:
        seen.append(there)
        if len(seen) == 1:
            shelf.files[PATH] = FILE

    place.write("stable", made(OTHER).to_bytes(), check)
    assert seen == [None, FILE]


@pytest.mark.rule("J67")
def test_a_file_that_never_stays_the_same_is_not_replaced(shelf: Server):
    def check(_: object) -> None:
        shelf.files[PATH] = made(version=str(len(shelf.asked))).to_bytes()

    with pytest.raises(PolicyError, match="changed by others"):
        WebPlace(shelf.url()).write("stable", FILE, check)


@pytest.mark.rule("J67")
def test_a_file_without_a_strong_etag_is_not_replaced(shelf: Server):
    shelf.bad[PATH] = sending(FILE, etag='W/"weak"')
    with pytest.raises(PolicyError, match="strong ETag"):
        WebPlace(shelf.url()).write("stable", FILE, anything)
    assert shelf.requests(method="PUT") == []


def test_a_server_that_takes_no_files_says_so(shelf: Server):
    def answer(request: Any) -> Any:
        return Response(status_code=404 if request.method == "GET" else 405)

    shelf.bad[PATH] = answer
    with pytest.raises(PolicyError, match="answers 405"):
        WebPlace(shelf.url()).write("stable", FILE, anything)


def test_a_canary_is_withdrawn(shelf: Server):
    shelf.files = {PATH: FILE, CANARY: FILE}
    place = WebPlace(shelf.url())
    assert place.withdraw("canary")
    assert not place.withdraw("canary")
    assert list(shelf.files) == [PATH]
    shelf.bad[CANARY] = status(403)
    with pytest.raises(PolicyError, match="answers 403"):
        place.withdraw("canary")


@pytest.mark.parametrize("url", ["http://", "http:///x.bundle", "http://host/", "http://host:x/y", "http://h\n/x"])
def test_a_url_that_names_no_file_is_refused(url: str):
    with pytest.raises(ConfigurationError, match=r"(?i)url|bundle file"):
        WebPlace(url)


def test_a_url_that_cannot_be_read_does_not_give_its_password_away():
    with pytest.raises(ConfigurationError) as caught:
        WebPlace("http://user:secr/et@host/policies.bundle")
    assert "secr" not in str(caught.value)


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:9", "foo://127.0.0.1:9"])
def test_a_proxy_that_cannot_be_used_is_a_place_that_cannot_be_reached(monkeypatch, proxy: str):
    monkeypatch.setenv("ALL_PROXY", proxy)
    place = WebPlace("http://policies.example/policies.bundle")
    place.look()
    with pytest.raises(PolicyError, match="cannot be reached"):
        place.read("stable")


async def test_a_place_can_be_looked_at_where_an_event_loop_runs(shelf: Server):
    shelf.files[PATH] = FILE
    assert got(WebPlace(shelf.url())) == FILE


def test_a_signed_file_arrives_as_it_is(shelf: Server, team: PolicyTeam):
    shelf.files[PATH] = team.released(OTHER, 3)
    assert got(WebPlace(shelf.url())) == shelf.files[PATH]


def once(shelf: Server, answer: Any) -> Any:
    """A bad answer that is given once."""

    def give(request: Any) -> Any:
        del shelf.bad[PATH]
        return answer(request)

    return give

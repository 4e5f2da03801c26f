"""Who asks, and on whose behalf: credentials together, chains of actors, bound tokens, and what a process shows."""

import json
import os
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.serialization import Encoding

from exequatur import Principal, acting_as
from exequatur.cli.main import commands
from exequatur.errors import IdentityError, IdentityUnavailableError
from exequatur.identity.acting import acting_now
from exequatur.identity.actors import actor_of, names_of
from exequatur.identity.callers import Callers, Identified, thumbprint
from exequatur.identity.config import read_identity
from exequatur.identity.credential import CERTIFICATE_TYPE, JWT_TYPE, LOCAL_TYPE, Credential
from exequatur.identity.principal import UNAUTHENTICATED
from exequatur.identity.sources import ClientCertificate, LocalIdentity, Token, TokenFile, local_credential
from tests.identity.ca import Authority, der, uri
from tests.identity.issuer import NOW, claims, jwks, new_key, segment, signed

EC, BOTS = new_key("ec"), new_key("bots")
ROOT = Authority("root")
SELF = "spiffe://example.org/ns/prod/sa/pay"
CERTIFICATE = ROOT.issue("pay", names=[uri(SELF)])
CONFIG = """
[[verifier]]
name = "people"
kind = "oidc"
issuer = "https://login.example.com"
audience = "exequatur"
jwks = "people.jwks"

[[verifier]]
name = "bots"
kind = "oidc"
issuer = "https://bots.example.com"
audience = ["exequatur"]
jwks = "bots.jwks"
single_use = true

[[verifier]]
name = "mesh"
kind = "x509-svid"
trust_domain = "example.org"
bundle = "root.pem"

[[verifier]]
name = "dev"
kind = "local"

[[principal]]
verifier = "people"
of = ["subject"]
principal = 'User::"{sub}"'

[[principal]]
verifier = "people"
of = ["actor"]
principal = 'Agent::"{sub}"'

[[principal]]
verifier = "bots"
principal = 'Agent::"{sub}"'

[[principal]]
verifier = "mesh"
principal = 'Service::"{spiffe_path}"'

[[workload]]
verifier = "bots"
path = "bots/{sub}"

[[workload]]
verifier = "mesh"
principal = 'Service::"ns/prod/*"'
path = "{spiffe_path}"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("identity")
    (found / "identity.toml").write_text(CONFIG)
    (found / "people.jwks").write_bytes(jwks(EC))
    (found / "bots.jwks").write_bytes(jwks(BOTS))
    (found / "root.pem").write_bytes(ROOT.pem)
    return found


@pytest.fixture(scope="module")
def callers(folder: Path) -> Callers:
    return read_identity(folder / "identity.toml")


def person(**changes: Any) -> Credential:
    return Credential(signed(EC, claims(**changes)))


def bot(sub: str = "ops-bot", **changes: Any) -> Credential:
    return Credential(signed(BOTS, claims(iss="https://bots.example.com", **{"sub": sub, "jti": "t-1", **changes})))


def refused(callers: Callers, subject: Credential | None, **more: Any) -> str:
    with pytest.raises(IdentityError) as caught:
        callers.identify(subject, NOW, **more)
    return caught.value.rule


def chain(found: Identified) -> tuple[str, ...]:
    return names_of(found.acting)


def test_a_token_alone_is_the_principal(callers: Callers) -> None:
    found = callers.identify(person(), NOW)
    assert (str(found.principal), found.acting, str(found.asks)) == ('User::"dana"', None, 'User::"dana"')
    assert (found.worker, found.once, found.verifiers, found.expires) == (None, (), ("people",), NOW + 300)


@pytest.mark.rule("callers.C6")
def test_a_client_certificate_alone_is_the_principal_and_may_be_a_worker(callers: Callers) -> None:
    for shown in (None, Credential("whatever", CERTIFICATE_TYPE)):
        found = callers.identify(shown, NOW, certificate=der(CERTIFICATE))
        assert (str(found.principal), found.worker) == ('Service::"ns/prod/sa/pay"', "ns/prod/sa/pay")
    staging = ROOT.issue("pay", names=[uri("spiffe://example.org/ns/dev/sa/pay")])
    assert callers.identify(None, NOW, certificate=der(staging)).worker is None


@pytest.mark.rule("callers.C6")
def test_a_token_in_which_somebody_acts_makes_no_worker(callers: Callers) -> None:
    assert callers.identify(bot(), NOW).worker == "bots/ops-bot"
    assert callers.identify(person(act={"sub": "helper"}), NOW, actor=bot()).worker == "bots/ops-bot"
    assert callers.identify(bot(act={"sub": "runner"}), NOW).worker is None
    assert callers.identify(person(), NOW, actor=bot(act={"sub": "runner"})).worker is None


@pytest.mark.rule("callers.C1")
def test_without_a_credential_nobody_asks(callers: Callers) -> None:
    assert refused(callers, None) == "C1"
    assert refused(callers, Credential("x", CERTIFICATE_TYPE)) == "C1"
    assert refused(callers, person(), actor=Credential("connection", CERTIFICATE_TYPE)) == "C1"


@pytest.mark.rule("callers.C1")
def test_a_certificate_is_believed_from_the_connection_and_never_from_a_message(callers: Callers) -> None:
    pem = ROOT.pem.decode()
    for text in (pem, segment(der(CERTIFICATE)), json.dumps({"x5c": [segment(der(CERTIFICATE))]})):
        assert refused(callers, Credential(text, CERTIFICATE_TYPE)) == "C1"
        assert refused(callers, Credential(text)) == "V1"


@pytest.mark.rule("callers.C2")
def test_a_bound_token_is_believed_only_over_a_connection_with_its_certificate(callers: Callers) -> None:
    bound = person(cnf={"x5t#S256": thumbprint(der(CERTIFICATE))})
    assert str(callers.identify(bound, NOW, certificate=der(CERTIFICATE)).principal) == 'User::"dana"'
    assert refused(callers, bound) == "C2"
    assert refused(callers, bound, certificate=der(ROOT.issue("other", names=[uri(SELF)]))) == "C2"
    assert refused(callers, person(), actor=bound) == "C2"


@pytest.mark.rule("callers.C3")
@pytest.mark.rule("callers.C4")
def test_a_user_through_an_agent_through_a_service(callers: Callers) -> None:
    subject = person(act={"sub": "helper"})
    found = callers.identify(subject, NOW, actor=bot(), certificate=der(CERTIFICATE))
    assert str(found.principal) == 'User::"dana"'
    assert chain(found) == ('Agent::"ops-bot"', 'Agent::"helper"')
    assert str(found.asks) == 'Agent::"ops-bot"'
    assert found.verifiers == ("people", "bots")
    service = callers.identify(subject, NOW, actor=Credential("x", CERTIFICATE_TYPE), certificate=der(CERTIFICATE))
    assert chain(service) == ('Service::"ns/prod/sa/pay"', 'Agent::"helper"')
    assert service.worker == "ns/prod/sa/pay"
    # The actor's own token may say who acts for the actor.
    deep = callers.identify(subject, NOW, actor=bot(act={"sub": "runner", "act": {"sub": "launcher"}}))
    assert chain(deep) == ('Agent::"runner"', 'Agent::"launcher"', 'Agent::"ops-bot"', 'Agent::"helper"')


@pytest.mark.rule("callers.C3")
def test_both_credentials_have_to_verify(callers: Callers) -> None:
    assert refused(callers, person(), actor=bot(exp=NOW - 60)) == "O6"
    assert refused(callers, person(exp=NOW - 60), actor=bot()) == "O6"
    assert refused(callers, person(), actor=Credential("x")) == "V1"


@pytest.mark.rule("callers.C5")
def test_what_is_issued_knows_the_end_that_comes_first(callers: Callers) -> None:
    assert callers.identify(person(exp=NOW + 60), NOW, actor=bot(exp=NOW + 20)).expires == NOW + 20


@pytest.mark.rule("actors.A1")
@pytest.mark.rule("callers.C4")
def test_a_chain_of_actors_is_bounded(callers: Callers) -> None:
    def nested(count: int) -> dict[str, Any]:
        inner: dict[str, Any] = {"sub": "bot"}
        for _ in range(count - 1):
            inner = {"sub": "bot", "act": inner}
        return inner

    assert len(chain(callers.identify(person(act=nested(8)), NOW))) == 8
    assert refused(callers, person(act=nested(9))) == "A1"
    assert refused(callers, person(act=nested(8)), actor=bot()) == "C4"
    with pytest.raises(ValueError, match="8 is the most"):
        actor_of(['Agent::"a"'] * 9)


@pytest.mark.rule("actors.A2")
@pytest.mark.parametrize(
    "act",
    ["bot", ["bot"], 5, {}, {"sub": 5}, {"sub": None}, {"sub": "a", "act": "b"}, {"sub": "a", "iss": "https://other"}],
)
def test_a_chain_that_cannot_be_read_refuses_the_whole_credential(callers: Callers, act: Any) -> None:
    assert refused(callers, person(act=act)) == "A2"


@pytest.mark.rule("mapping.M3")
def test_an_actor_is_named_by_the_same_rules_as_everybody(callers: Callers) -> None:
    assert refused(callers, person(act={"sub": 'x"'})) == "M3"
    assert refused(callers, person(act={"sub": ""})) == "M3"


@pytest.mark.rule("actors.A3")
@pytest.mark.rule("callers.C3")
def test_a_token_may_say_who_may_act_and_then_nobody_else_may(callers: Callers) -> None:
    allowed: dict[str, Any] = {"sub": "ops-bot", "iss": "https://bots.example.com"}
    assert chain(callers.identify(person(may_act=allowed), NOW, actor=bot())) == ('Agent::"ops-bot"',)
    for may in (
        {"sub": "other"}, {"sub": "ops-bot", "iss": "https://login.example.com"}, {**allowed, "client": "x"}, {}, None,
        "ops-bot", {"sub": "ops-bot"}, {**allowed, "level": 1}, {**allowed, "client": None},
    ):  # fmt: skip
        token = Credential(signed(EC, {**claims(), "may_act": may}))
        assert refused(callers, token, actor=bot(level=True)) == "A3"
        assert str(callers.identify(token, NOW).principal) == 'User::"dana"'  # who acts for nobody is not asked


@pytest.mark.rule("actors.A3")
def test_an_actor_is_of_the_issuer_that_was_verified_whatever_its_token_says(callers: Callers, folder: Path) -> None:
    (folder / "mesh.json").write_bytes(jwks(BOTS, use="jwt-svid"))
    config = CONFIG.replace(
        'kind = "x509-svid"\ntrust_domain = "example.org"\nbundle = "root.pem"',
        'kind = "jwt-svid"\ntrust_domain = "example.org"\nbundle = "mesh.json"\naudience = "exequatur"',
    )
    (folder / "with-mesh.toml").write_text(config)
    meshed = read_identity(folder / "with-mesh.toml")
    svid = Credential(signed(BOTS, claims(sub=SELF, iss="https://agents.example.com", client="ops")))
    for told in ({"client": "ops", "iss": "https://agents.example.com"}, {"client": "ops"}):
        assert refused(meshed, person(may_act=told), actor=svid) == "A3"
    may = {"client": "ops", "iss": "spiffe://example.org", "sub": SELF}
    assert chain(meshed.identify(person(may_act=may), NOW, actor=svid)) == ('Service::"ns/prod/sa/pay"',)


@pytest.mark.rule("callers.C5")
def test_tokens_that_are_used_once_are_named_without_being_told(callers: Callers) -> None:
    [first], [second] = callers.identify(bot(), NOW).once, callers.identify(bot(jti="t-2"), NOW).once
    assert [first] == [*callers.identify(person(exp=NOW + 20), NOW, actor=bot()).once]
    assert first.ends == NOW + 300  # its own end, whatever it was shown with
    assert first.name != second.name
    assert "t-1" not in first.name
    assert refused(callers, bot(jti=None)) == "O10"


@pytest.mark.rule("local.L2")
@pytest.mark.parametrize(
    "text",
    [
        "", "dana", "User::dana", '{"principal": 5}', "{", "[]", '{"principal": "User::\\"a\\"", "admin": true}',
        '{"principal": "User::\\"a\\"", "attributes": []}',
        '{"principal": "User::\\"a\\"", "parents": "Role::\\"b\\""}',
        '{"principal": "User::\\"a\\"", "parents": [5]}', '{"principal": "User::\\"a\\"", "parents": ["b"]}',
    ],
)  # fmt: skip
def test_a_local_name_that_cannot_be_read_is_refused(callers: Callers, text: str) -> None:
    assert refused(callers, Credential(text, LOCAL_TYPE)) == "L2"


def test_a_local_name_is_believed_with_what_it_says_of_itself(callers: Callers) -> None:
    who = Principal("User", "dana", {"level": 3}, ('Role::"ops"',))
    for principal in (who, Principal("User", "田中")):
        assert callers.identify(local_credential(principal), NOW).principal == principal


@pytest.mark.rule("local.L1")
def test_only_an_authority_that_says_so_believes_names(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = CONFIG.replace('[[verifier]]\nname = "dev"\nkind = "local"\n', "")
    (folder / "production.toml").write_text(text)
    assert refused(read_identity(folder / "production.toml"), Credential('User::"dana"', LOCAL_TYPE)) == "V1"
    assert "for development only" not in caplog.text
    read_identity(folder / "identity.toml")
    assert "believes whatever name it is told: for development only" in caplog.text


# What is said in the program.


def test_acting_as_takes_a_credential_and_leaves_the_principal_to_the_authority() -> None:
    token = Credential("secret-token")
    with acting_as(token) as given:
        assert given is token
        now = acting_now()
        assert now is not None
        assert (now.principal, now.acting, now.credential) == (UNAUTHENTICATED, None, token)
        assert "secret" not in repr(now) + str(now)
    assert acting_now() is None


def test_acting_as_says_through_whom() -> None:
    with acting_as(Principal("User", "dana"), through=[Principal("Service", "pay"), 'Agent::"bot"']):
        now = acting_now()
        assert now is not None
        assert names_of(now.acting) == ('Service::"pay"', 'Agent::"bot"')
    with pytest.raises(ValueError, match="with a principal"), acting_as(Credential("x"), through=['Agent::"bot"']):
        pass
    with pytest.raises(ValueError, match="Cedar entity"), acting_as(Principal("User", "dana"), through=["bot"]):
        pass


# How a process shows its own.


@pytest.mark.rule("sources.U2")
def test_a_token_file_is_read_again_when_it_changed(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("first\n")
    shows = TokenFile(path, certificate=("c.pem", tmp_path / "k.pem"))
    first = shows.credential()
    assert first == Credential("first", JWT_TYPE)
    assert shows.credential() is first
    (tmp_path / "next").write_text("second")
    (tmp_path / "next").replace(path)
    assert shows.credential().token == "second"
    assert shows.certificate == ("c.pem", str(tmp_path / "k.pem"))
    assert "second" not in repr(shows)


@pytest.mark.rule("sources.U2")
@pytest.mark.rule("documents.D2")
@pytest.mark.rule("documents.D6")
@pytest.mark.parametrize("data", [b"", b" \n", b"two words", b"two\nlines", "ä".encode(), b"\xff\xfe", b"x" * 20_000])
def test_a_file_that_holds_no_token_shows_none(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "token").write_bytes(data)
    with pytest.raises(IdentityUnavailableError) as caught:
        TokenFile(tmp_path / "token").credential()
    assert "two" not in str(caught.value)
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "missing"):
        with pytest.raises(IdentityUnavailableError, match=name):
            TokenFile(tmp_path / name).credential()


@pytest.mark.rule("sources.U1")
def test_a_program_gives_its_token_or_what_gets_it() -> None:
    assert Token("secret").credential().token == "secret"
    given = iter(["one", "two"])
    shows = Token(lambda: next(given))
    assert [shows.credential().token, shows.credential().token] == ["one", "two"]
    with pytest.raises(IdentityUnavailableError, match="StopIteration"):
        shows.credential()

    def fails() -> str:
        raise RuntimeError("secret")

    for bad in (fails, lambda: None, lambda: "two words"):
        with pytest.raises(IdentityUnavailableError) as caught:
            Token(bad).credential()  # type: ignore[arg-type]
        assert "secret" not in str(caught.value)
        assert caught.value.__cause__ is None
    assert "secret" not in repr(Token("secret"))


def test_a_certificate_and_a_name_are_shown_as_they_are() -> None:
    shows = ClientCertificate("cert.pem", Path("key.pem"))
    assert (shows.credential(), shows.certificate) == (None, ("cert.pem", "key.pem"))
    local = LocalIdentity('User::"dana"')
    assert local.credential() == Credential('User::"dana"', LOCAL_TYPE)
    assert local.certificate is None


# The command.


@dataclass
class Ran:
    code: int
    out: str
    err: str
    json: Any = field(default=None)


def run(*args: str | Path, stdin: str | None = None) -> Ran:
    result = CliRunner().invoke(commands, ["identity", "check", *map(str, args)], input=stdin)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    found = Ran(result.exit_code, result.stdout, result.stderr)
    if "--json" in args and found.code < 2:
        found.json = json.loads(found.out)
    return found


def fresh(**changes: Any) -> str:
    now = int(time.time())
    return signed(EC, claims(iat=now, exp=now + 300, **changes))


def test_the_command_says_whom_a_credential_stands_for(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(fresh(act={"sub": "helper"}) + "\n")
    config = folder / "identity.toml"
    ran = run("--config", config, tmp_path / "token")
    assert ran.code == 0
    assert 'Believed: User::"dana"' in ran.out
    assert 'acts for it  Agent::"helper"' in ran.out
    told = run("--config", config, "--json", "-", stdin=(tmp_path / "token").read_text()).json
    assert (told["believed"], told["principal"], told["acting"]) == (True, 'User::"dana"', ['Agent::"helper"'])
    assert run("--config", config, "--type", "local", "-", stdin='User::"dana"').code == 0


def test_the_command_says_why_a_credential_is_refused_and_never_prints_it(folder: Path) -> None:
    config, token = folder / "identity.toml", fresh(aud="other", sub="secret")
    ran = run("--config", config, "-", stdin=token)
    assert (ran.code, ran.err) == (1, "")
    assert ran.out.startswith("Refused: The token is for another audience")
    told = run("--config", config, "--json", "-", stdin=token).json
    assert (told["believed"], told["rule"]) == (False, "O5")
    assert not any(part in ran.out for part in token.split("."))


def test_the_command_says_in_one_line_what_could_not_be_checked(folder: Path, tmp_path: Path) -> None:
    config = folder / "identity.toml"
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "away.toml").write_text(CONFIG.replace("people.jwks", "gone.jwks"))
    (tmp_path / "token").write_text(fresh())
    for args in (
        ("--config", tmp_path / "missing.toml", tmp_path / "token"),
        ("--config", config, tmp_path / "missing"),
        ("--config", config, tmp_path / "binary"),
        ("--config", config, tmp_path),
        ("--config", tmp_path / "away.toml", tmp_path / "token"),
        ("--config", config, "--certificate", tmp_path / "binary", "--actor", tmp_path / "missing"),
    ):
        ran = run(*args)
        assert ran.code == 2, args
        assert ran.out == ""
        assert ran.err.startswith("Error: ")
        assert ran.err.count("\n") == 1
    assert run("--config", config, "-", stdin="x" * 40_000).code == 2
    assert run("--config", config).code == 2


def test_the_command_takes_a_client_certificate(folder: Path, tmp_path: Path) -> None:
    hour_ago = datetime.now(UTC) - timedelta(hours=1)
    authority = Authority("today", begins=hour_ago)
    certificate = authority.issue("pay", names=[uri(SELF)], begins=hour_ago)
    (tmp_path / "identity.toml").write_text(CONFIG)
    (tmp_path / "root.pem").write_bytes(authority.pem)
    (tmp_path / "cert.der").write_bytes(der(certificate))
    (tmp_path / "cert.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    for name in ("cert.der", "cert.pem"):
        ran = run("--config", tmp_path / "identity.toml", "--certificate", tmp_path / name)
        assert ran.code == 0
        assert "may be a worker  ns/prod/sa/pay" in ran.out
    assert run("--config", folder / "identity.toml", "--certificate", tmp_path / "cert.pem").code == 1

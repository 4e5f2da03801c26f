"""From claims to the principal: what becomes of them, and what is refused instead of being made to fit."""

from pathlib import Path
from typing import Any

import pytest

from exequatur.errors import ConfigurationError, IdentityError
from exequatur.identity.config import identity_of, read_identity
from exequatur.identity.credential import Credential
from exequatur.identity.principal import Principal
from exequatur.identity.verifier import Claims
from tests.identity.issuer import NOW, jwks, new_key, signed
from tests.identity.issuer import claims as token_claims

VERIFIER = {"name": "corp", "kind": "oidc", "issuer": "https://login.example.com", "audience": "exequatur", "jwks": "k"}


def claims(values: dict[str, Any], verifier: str = "corp", workload: str | None = None) -> Claims:
    return Claims(verifier, "https://login.example.com", "dana", {"sub": "dana", **values}, 1.0, workload=workload)


def mapped(rules: list[dict[str, Any]] | dict[str, Any], role: Any = "subject", /, **values: Any) -> Principal:
    rules = rules if isinstance(rules, list) else [rules]
    callers = identity_of({"verifier": [VERIFIER], "principal": rules}, Path(), "identity.toml")
    return callers.rules.principal(claims(values), role)


def refused(rules: list[dict[str, Any]] | dict[str, Any], **values: Any) -> str:
    with pytest.raises(IdentityError) as caught:
        mapped(rules, **values)
    assert "secret" not in str(caught.value)
    return caught.value.rule


def worker(
    rules: list[dict[str, Any]], principal: str = 'Service::"pay"', workload: str | None = None, **values: Any
) -> Any:
    from exequatur.identity.mapping import worker_path

    callers = identity_of(
        {"verifier": [VERIFIER], "principal": [{"principal": 'User::"{sub}"'}], "workload": rules},
        Path(),
        "identity.toml",
    )
    return worker_path(callers.workers, claims(values, workload=workload), Principal.parse(principal))


def test_claims_become_the_principal_its_attributes_and_parents() -> None:
    rule = {
        "match": {"email": "*@example.com", "groups": {"contains": "staff"}, "email_verified": True},
        "principal": 'Acme::User::"{email}"',
        "attributes": {
            "department": "org.department",
            "level": {"claim": "level", "type": "Long", "required": True},
            "limit": {"claim": "limit", "type": "Decimal"},
            "admin": {"claim": ["https://example.com/admin"], "type": "Bool"},
            "regions": {"claim": "regions", "type": "Set<String>"},
            "absent": "not.there",
        },
        "parents": [
            {"each": "groups", "as": 'Role::"{each}"', "only": ["ops-*", "staff"]},
            {"each": "scope", "as": 'Scope::"{each}"', "split": " "},
            {"each": "missing", "as": 'Role::"{each}"'},
            'Tenant::"{tid}"',
        ],
    }
    values = {
        "email": "dana@example.com",
        "email_verified": True,
        "groups": ["staff", "ops-eu", "others"],
        "org": {"department": "payments"},
        "level": 7,
        "limit": 12.5,
        "https://example.com/admin": False,
        "regions": ["eu", "us"],
        "scope": "refund  charge",
        "tid": 42,
    }
    found = mapped(rule, **values)
    assert str(found) == 'Acme::User::"dana@example.com"'
    assert found.attributes == {
        "department": "payments",
        "level": 7,
        "limit": {"__extn": {"fn": "decimal", "arg": "12.5"}},
        "admin": False,
        "regions": ["eu", "us"],
    }
    parents = ['Role::"staff"', 'Role::"ops-eu"', 'Scope::"refund"', 'Scope::"charge"', 'Tenant::"42"']
    assert [str(each) for each in found.parents] == parents


@pytest.mark.rule("mapping.M1")
def test_the_first_rule_that_fits_decides_and_without_one_nobody_is_meant() -> None:
    rules = [
        {"match": {"kind": "bot"}, "principal": 'Agent::"{sub}"'},
        {"verifier": "corp", "match": {"kind": "*"}, "principal": 'User::"{sub}"'},
    ]
    assert str(mapped(rules, kind="bot")) == 'Agent::"dana"'
    assert str(mapped(rules, kind="person")) == 'User::"dana"'
    assert refused(rules) == "M1"


@pytest.mark.rule("mapping.M1")
def test_a_rule_may_be_for_actors_only() -> None:
    rules = [{"of": ["actor"], "principal": 'Service::"{sub}"'}, {"of": ["subject"], "principal": 'User::"{sub}"'}]
    assert str(mapped(rules)) == 'User::"dana"'
    assert str(mapped(rules, "actor")) == 'Service::"dana"'
    with pytest.raises(IdentityError, match=r"\[M1\]"):
        mapped(rules[1], "actor")


@pytest.mark.rule("mapping.M2")
@pytest.mark.parametrize(
    ("condition", "value"),
    [
        ("staff", None), ("staff", "Staff"), ("staff", "staff\n"), ("staff", ["staff"]), ("staff", {"staff": 1}),
        ("*", None), ("*", 5), ("*", ["x"]), (True, 1), (True, "true"), (1, True), (1, 1.0), (1, "1"), (False, None),
        ({"contains": "staff"}, "staff"), ({"contains": "staff"}, None), ({"contains": "staff"}, [["staff"]]),
        ({"contains": "*"}, []), ({"contains": "staff"}, {"staff": 1}), ({"contains": "1"}, [1]),
    ],
)  # fmt: skip
def test_a_condition_holds_only_for_a_claim_of_its_type(condition: Any, value: Any) -> None:
    assert refused({"match": {"a.b": condition}, "principal": 'User::"{sub}"'}, a={"b": value}) == "M1"


def test_a_condition_on_a_claim_whose_name_has_a_dot_is_written_as_a_path() -> None:
    rule = {
        "match_paths": [{"path": ["https://example.com/groups"], "value": {"contains": "staff"}}],
        "principal": 'User::"{sub}"',
    }
    assert str(mapped(rule, **{"https://example.com/groups": ["staff"]})) == 'User::"dana"'
    assert refused(rule, **{"https://example.com/groups": []}) == "M1"


@pytest.mark.rule("mapping.M3")
@pytest.mark.rule("mapping.M4")
@pytest.mark.rule("mapping.M6")
@pytest.mark.parametrize(
    ("value", "rule"),
    [
        ('secret" || true', "M3"), ("secret\\", "M3"), ("secret\n", "M3"), ("secret\x00", "M3"), ("secret\u202e", "M3"),
        ("secret\u200b", "M3"), ("secret\u2028", "M3"), ("secret\ud800", "M3"), ("secret\ue000", "M3"), ("", "M3"),
        ("secre\u0301t", "M3"), (True, "M3"), (1.5, "M3"), ([], "M3"), (["secret"], "M3"), ({"secret": 1}, "M3"),
        (2**63, "M3"), ("s" * 501, "M6"), (None, "M4"),
    ],
)  # fmt: skip
def test_a_hostile_claim_names_nobody(value: Any, rule: str) -> None:
    for template in ({"principal": 'User::"{name}"'}, {"principal": 'User::"{sub}"', "parents": ['Tenant::"{name}"']}):
        assert refused(template, name=value) == rule


def test_names_in_any_script_and_numbers_are_taken_as_they_are() -> None:
    for name, shown in (
        ("žofie", "žofie"),
        ("田中", "田中"),
        ("o'hara {x}", "o'hara {x}"),
        (7, "7"),
        (-(2**63), str(-(2**63))),
    ):
        assert mapped({"principal": 'User::"{name}"'}, name=name).id == shown


@pytest.mark.rule("mapping.M5")
@pytest.mark.rule("mapping.M3")
@pytest.mark.rule("mapping.M6")
@pytest.mark.parametrize(
    ("kind", "value", "rule"),
    [
        ("String", 5, "M5"), ("String", ["a"], "M5"), ("String", 'a"', "M3"), ("String", "a" * 501, "M6"),
        ("Long", "5", "M5"),
        ("Long", True, "M5"), ("Long", 5.0, "M5"), ("Long", 2**63, "M5"), ("Bool", 1, "M5"), ("Bool", "true", "M5"),
        ("Decimal", "1.23456", "M5"), ("Decimal", "1e3", "M5"), ("Decimal", 1e300, "M5"), ("Decimal", True, "M5"),
        ("Decimal", "9" * 15, "M5"), ("Decimal", [], "M5"), ("Set<String>", "a", "M5"), ("Set<String>", [1], "M5"),
        ("Set<String>", {"a": 1}, "M5"), ("Set<String>", ["a"] * 101, "M6"), ("Set<String>", ["a\n"], "M3"),
    ],
)  # fmt: skip
def test_an_attribute_has_its_type_exactly_or_the_credential_is_refused(kind: str, value: Any, rule: str) -> None:
    table = {"principal": 'User::"{sub}"', "attributes": {"x": {"claim": "x", "type": kind}}}
    assert refused(table, x=value) == rule


@pytest.mark.rule("mapping.M4")
def test_what_is_required_has_to_be_there() -> None:
    assert refused({"principal": 'User::"{sub}"', "attributes": {"x": {"claim": "x", "required": True}}}) == "M4"
    parents = [{"each": "groups", "as": 'Role::"{each}"', "required": True}]
    assert refused({"principal": 'User::"{sub}"', "parents": parents}) == "M4"
    assert mapped({"principal": 'User::"{sub}"', "parents": parents}, groups=[]).parents == ()


@pytest.mark.rule("mapping.M5")
@pytest.mark.rule("mapping.M6")
@pytest.mark.rule("mapping.M3")
def test_parents_are_named_by_a_list_of_texts_that_is_not_too_long() -> None:
    table = {"principal": 'User::"{sub}"', "parents": [{"each": "groups", "as": 'Role::"{each}"'}]}
    for groups, rule in (
        ("staff", "M5"),
        ([1], "M5"),
        ({"a": 1}, "M5"),
        ([f"g{number}" for number in range(101)], "M6"),
        (["a", 'b"'], "M3"),
    ):
        assert refused(table, groups=groups) == rule
    both = [{"each": "groups", "as": 'Role::"{each}"'}, {"each": "groups", "as": 'Team::"{each}"'}]
    groups = [f"g{number}" for number in range(60)]
    assert refused({"principal": 'User::"{sub}"', "parents": both}, groups=groups) == "M6"
    few = [{"each": "groups", "as": 'Role::"{each}"', "only": ["g1*"]}]
    assert len(mapped({"principal": 'User::"{sub}"', "parents": few}, groups=groups * 50).parents) == 11


@pytest.mark.rule("mapping.M7")
def test_who_may_be_a_worker_and_under_which_path_only_the_configuration_says() -> None:
    rules = [{"principal": 'Service::"*"', "match": {"env": "prod"}, "path": "payments/{sub}"}]
    assert worker(rules, env="prod") == "payments/dana"
    assert worker(rules) is None
    assert worker(rules, 'User::"dana"', env="prod") is None
    assert worker([]) is None
    for name in ("a/b", "..", ".", "a b", "ä", "a%2Fb"):
        with pytest.raises(IdentityError, match=r"\[M7\]"):
            worker([{"path": "payments/{name}"}], name=name)
    with pytest.raises(IdentityError, match=r"\[M4\]"):
        worker([{"path": "payments/{name}"}])


@pytest.mark.rule("mapping.M7")
def test_only_a_spiffe_id_that_was_verified_fills_several_segments_of_a_workers_path() -> None:
    rules = [{"path": "{spiffe_path}"}]
    assert worker(rules, workload="ns/prod/sa/pay", spiffe_path="ns/prod/sa/pay") == "ns/prod/sa/pay"
    with pytest.raises(IdentityError, match=r"\[M7\]"):
        worker(rules, spiffe_path="ns/prod/sa/pay")  # a provider's claim that happens to be called so


@pytest.mark.rule("mapping.M8")
def test_two_credentials_do_not_run_together_into_one_name() -> None:
    rule = {"principal": 'User::"{tenant}--{name}"', "parents": [{"each": "groups", "as": 'Role::"{each}--{tenant}"'}]}
    found = mapped(rule, tenant="acme", name="eu--dana", groups=["ops"])
    assert (found.id, found.parents) == ("acme--eu--dana", (Principal("Role", "ops--acme"),))
    # What another tenant is called decides about no name of this one.
    assert refused(rule, tenant="acme--eu", name="dana", groups=[]) == "M8"
    assert refused(rule, tenant="acme-", name="dana", groups=[]) == "M8"  # acme- and dana, or acme and -dana
    assert refused(rule, tenant="acme", name="dana", groups=["ops--other"]) == "M8"
    workers = [{"path": "fleet/{region}-{name}"}]
    assert worker(workers, region="eu", name="pay-1") == "fleet/eu-pay-1"
    with pytest.raises(IdentityError, match=r"\[M8\]"):
        worker(workers, region="eu-pay", name="1")


@pytest.mark.rule("config.F2")
def test_files_are_named_relative_to_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "elsewhere" / "deep")
    table = {**VERIFIER, "jwks": "../keys.jwks"}
    document = {"verifier": [table], "principal": [{"principal": 'User::"{sub}"'}]}
    callers = identity_of(document, tmp_path / "config", "identity.toml")
    key = new_key("one")
    (tmp_path / "config").mkdir()
    (tmp_path / "keys.jwks").write_bytes(jwks(key))
    (tmp_path / "elsewhere" / "keys.jwks").write_bytes(b"{}")
    assert callers.identify(Credential(signed(key, token_claims())), NOW).principal.id == "dana"


@pytest.mark.rule("config.F1")
@pytest.mark.rule("config.F3")
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "verifier: Field required"),
        ("verifier = []", "verifier"),
        ("[[verifier]]\nname='a'\nkind='saml'", "kind|saml|tag"),
        ("[[verifier]]\nname='a'\nkind='local'\nissuer='x'", "Extra inputs"),
        ("[[verifier]]\nname='a b'\nkind='local'", "name"),
        ("OIDC", r"no \[\[principal\]\]"),
        ("OIDC\njwks='http://x'\n[[principal]]\nprincipal='U::\"{sub}\"'", "https"),
        ("OIDC\nalgorithms=['HS256']\n[[principal]]\nprincipal='U::\"{sub}\"'", "HS256"),
        ("[[verifier]]\nname='a'\nkind='jwt-svid'\ntrust_domain='EXAMPLE'\naudience='a'\nbundle='b'", "trust domain"),
        ("LOCAL\n[[verifier]]\nname='a'\nkind='local'", "Two verifiers"),
        ("OIDC\n[[principal]]\nprincipal='U::\"{tid}{sub}\"'", "nothing between"),
        ("OIDC\n[[principal]]\nprincipal='U::\"{sub}\"'\n[[workload]]\npath='{tid}{sub}'", "nothing between"),
        ("OIDC\nleeway='11m'\n[[principal]]\nprincipal='U::\"{sub}\"'", "leeway"),
        ("LOCAL\n[[principal]]\nprincipal='User'", "does not make an entity"),
        ("LOCAL\n[[principal]]\nprincipal='User::\"{sub\"'", "brace"),
        ("LOCAL\n[[principal]]\nprincipal='U::\"{sub}\"'\nverifier='b'", "no verifier 'b'"),
        ("LOCAL\n[[principal]]\nprincipal='U::\"{sub}\"'\nmtach={a=1}", "mtach"),
        ("LOCAL\n[[principal]]\nprincipal='U::\"{sub}\"'\nmatch={a={conatins='x'}}", "match.a"),
        ("LOCAL\n[[principal]]\nprincipal='U::\"{sub}\"'\nmatch={a=1.5}", "match.a"),
        ("LOCAL\n[[principal]]\nprincipal='U::\"{sub}\"'\nparents=[{as='R::\"{each}\"'}]", "go together"),
        ("LOCAL\n[[principal]]\nprincipal='U::\"{sub}\"'\nparents=[{as='R::\"x\"', each='g'}]", "go together"),
        ("LOCAL\n[[principal]]\nprincipal='U::\"{sub}\"'\nparents=[{as='R::\"x\"', required=true}]", "go with each"),
        ("LOCAL\n[[principal]]\nprincipal='U::\"{sub}\"'\nattributes={a={claim='a', type='Text'}}", "attributes.a"),
        ("LOCAL\n[[workload]]\npath='/a'", "path of a SPIFFE id"),
        ("LOCAL\n[[workload]]\npath='a'\nverifier='b'", "no verifier 'b'"),
        ("LOCAL\n[[nonsense]]\na=1", "nonsense"),
        ("[[verifier", "not TOML"),
        ("\udcff", "not TOML"),
        ("a = " + "[" * 5000, "not TOML"),
    ],
)  # fmt: skip
def test_a_configuration_that_cannot_be_meant_is_refused_with_its_place(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "identity.toml"
    local = "[[verifier]]\nname='a'\nkind='local'"
    oidc = "[[verifier]]\nname='a'\nkind='oidc'\nissuer='https://x'\naudience='a'"
    path.write_bytes(text.replace("LOCAL", local).replace("OIDC", oidc).encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigurationError, match=says) as caught:
        read_identity(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_configuration_that_is_not_there_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(ConfigurationError, match=str(path)):
            read_identity(path)

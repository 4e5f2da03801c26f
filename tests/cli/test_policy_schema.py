"""``exequatur policy schema`` and ``exequatur policy reference``, as policy authors use them."""

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from exequatur.authoring.schema.reference import reference
from exequatur.cli.code import activities_of
from exequatur.errors import ConfigurationError
from exequatur.policy.bundle import PolicyBundle
from exequatur.policy.shapes import arguments_of
from exequatur.policy.types import written
from tests.cli.conftest import ROOT, Ended

CODE = '''
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial

from temporalio import activity
from temporalio.common import RawValue

from exequatur import action


@dataclass
class Refund:
    """Pay back."""
    order_id: str
    amount: Decimal
    data: bytes = b""


@activity.defn
@action(groups=["money"])
def refund_order(refund: Refund) -> None: ...


@activity.defn(name="ping.now")
async def ping(times: int = 1) -> None: ...


class Shop:
    @activity.defn
    def open(self, day: str) -> None: ...

    @staticmethod
    @activity.defn
    def close(day: str) -> None: ...

    def helper(self) -> None: ...


@action(groups=["calls"])
class Call:
    @activity.defn(name="call")
    def __call__(self, number: str) -> None: ...


@activity.defn(dynamic=True)
def anything(args: Sequence[RawValue]) -> None: ...


shop = Shop()
few = [refund_order, shop.open]
helper = partial(print)
'''

PERMIT = '@id("all") permit(principal, action, resource);\n'


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory with a module ``shopcode`` and an empty folder ``policies``."""
    (tmp_path / "shopcode.py").write_text(CODE)
    (tmp_path / "policies").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("shopcode")]:
        del sys.modules[name]


def edit(folder: Path, old: str, new: str) -> None:
    """Change the code, as the next run of the command will see it."""
    file = folder / "shopcode.py"
    file.write_text(file.read_text().replace(old, new))
    sys.modules.pop("shopcode", None)
    shutil.rmtree(folder / "__pycache__", ignore_errors=True)


def test_the_schema_of_a_module_is_written_and_stays_the_same(code: Path, exequatur: Callable[..., Ended]) -> None:
    (code / "policies" / "main.cedar").write_text(PERMIT)
    first = exequatur("policy", "schema", "--from", "shopcode")
    assert (first.code, first.out) == (0, "policies/schema.cedarschema: 5 activities\n")
    assert first.err == (
        "warning: refund_order: args.refund.data is bytes, which Cedar cannot represent; policies cannot read it\n"
    )
    written_first = (code / "policies" / "schema.cedarschema").read_bytes()
    second = exequatur("policy", "schema", "--from", "shopcode")
    assert second.out.endswith("5 activities, unchanged\n")
    assert (code / "policies" / "schema.cedarschema").read_bytes() == written_first
    bundle = PolicyBundle.from_folder(code / "policies")
    assert bundle.model is not None
    asked = {name: each for name, each in bundle.model.actions.items() if each.principals and "." not in name[3:]}
    assert {name: written(each.args) for name, each in asked.items() if each.args is not None} == {
        "call": "{ number: String }",
        "close": "{ day: String }",
        "open": "{ day: String }",
        "refund_order": "{ refund: { order_id: String, amount: decimal } }",
    }
    assert ("Action", "calls") in asked["call"].groups


def test_check_fails_with_the_difference_when_the_code_has_changed(code: Path, exequatur: Callable[..., Ended]) -> None:
    missing = exequatur("policy", "schema", "--from", "shopcode", "--check")
    assert missing.code == 1
    assert '+action "refund_order" in' in missing.out
    exequatur("policy", "schema", "--from", "shopcode")
    same = exequatur("policy", "schema", "--from", "shopcode", "--check")
    assert (same.code, same.out) == (0, "policies/schema.cedarschema is the schema of the code\n")
    before = (code / "policies" / "schema.cedarschema").read_bytes()
    edit(code, "amount: Decimal", "amount: int")
    changed = exequatur("policy", "schema", "--from", "shopcode", "--check")
    assert changed.code == 1
    assert "--- policies/schema.cedarschema\n+++ the code\n" in changed.out
    assert "-      refund: { order_id: String, amount: decimal },\n" in changed.out
    assert "+      refund: { order_id: String, amount: Long },\n" in changed.out
    assert "run this without --check" in changed.err
    assert (code / "policies" / "schema.cedarschema").read_bytes() == before


def test_the_applications_own_declarations_are_taken_in(code: Path, exequatur: Callable[..., Ended]) -> None:
    (code / "policies" / "model.cedarschema").write_text("entity Agent in [Role] { region?: String };")
    printed = exequatur("policy", "schema", "--from", "shopcode:few", "--stdout")
    assert printed.code == 0
    assert "entity Agent in [Role] { region?: String };" in printed.out
    assert printed.out.count("@parameters(") == 2
    assert not (code / "policies" / "schema.cedarschema").exists()


def test_policies_that_do_not_fit_the_new_schema_are_named(code: Path, exequatur: Callable[..., Ended]) -> None:
    (code / "policies" / "main.cedar").write_text(
        '@id("x") forbid(principal, action == Action::"open", resource) when { context.args.date == "x" };'
    )
    ended = exequatur("policy", "schema", "--from", "shopcode")
    assert ended.code == 0
    assert (
        "warning: the policies do not fit this schema, and workers refuse them: policies/main.cedar:1:" in ended.err
    ), ended.err


NOTHING_WRITTEN: list[tuple[list[str], dict[str, str | bytes], str]] = [
    (["--from", "nowhere"], {}, "nowhere: cannot be imported: ModuleNotFoundError"),
    (["--from", "shopcode:nothing"], {}, "shopcode has no nothing"),
    (["--from", "shopcode:helper"], {}, "shopcode:helper: has no activity"),
    (["--from", "json"], {}, "json: has no activity; decorate its functions with @activity.defn"),
    (["--from", ","], {}, "--from names no module"),
    (["--from", "shopcode", "--policies", "nowhere"], {}, "There is no folder nowhere; make it"),
    (["--from", "shopcode", "--check", "--stdout"], {}, "Give either --check or --stdout"),
    (["--from", "shopcode"], {"model.cedarschema": "entity A in [B];"}, "policies/model.cedarschema:1:14: there is no"),
    (["--from", "shopcode"], {"model.cedarschema": b"\n\xff"}, "policies/model.cedarschema:2: not valid UTF-8"),
    (
        ["--from", "shopcode"],
        {"model.cedarschema": 'action "open";'},
        "policies/model.cedarschema:1:1: the action open",
    ),
    (["--from", "shopcode"], {"schema.cedarschema.json": "{}"}, "a folder has one schema; remove this one"),
]


@pytest.mark.parametrize(("options", "files", "message"), NOTHING_WRITTEN, ids=lambda each: str(each)[:40])
def test_what_cannot_be_done_is_said_and_replaces_nothing(
    code: Path, exequatur: Callable[..., Ended], options: list[str], files: dict[str, str | bytes], message: str
) -> None:
    good = code / "policies" / "schema.cedarschema"
    good.write_text("entity Good;")
    for name, content in files.items():
        (code / "policies" / name).write_bytes(content.encode() if isinstance(content, str) else content)
    ended = exequatur("policy", "schema", *options)
    assert ended.code == 2
    assert message in ended.err
    assert ended.err.count("\n") == 1
    assert good.read_text() == "entity Good;"


@pytest.mark.parametrize("statement", ["raise RuntimeError('broken')", "import sys; sys.exit(0)", "1 +", "import nope"])
def test_code_that_cannot_be_imported_is_no_success(
    code: Path, exequatur: Callable[..., Ended], statement: str
) -> None:
    (code / "shopcode_broken.py").write_text(statement)
    ended = exequatur("policy", "schema", "--from", "shopcode_broken")
    assert ended.code == 2
    assert "shopcode_broken: cannot be imported" in ended.err


def test_a_file_or_a_misspelt_module_is_answered_with_the_module(code: Path, exequatur: Callable[..., Ended]) -> None:
    (code / "parts").mkdir()
    (code / "parts" / "refunds.py").write_text("")
    for written_name, meant in (
        ("parts/refunds.py", "did you mean parts.refunds?"),
        ("./shopcode.py", "did you mean shopcode?"),
        ("shopcod", "did you mean shopcode?"),
        ("prts.refunds", "did you mean parts.refunds?"),
        ("parts.refund", "did you mean parts.refunds?"),
        ("zzzzzz", "that can be imported from here"),
    ):
        ended = exequatur("policy", "schema", "--from", written_name)
        assert (ended.code, meant in ended.err) == (2, True), ended.err


def test_a_type_of_the_fragment_that_is_that_of_no_dict_is_named(code: Path, exequatur: Callable[..., Ended]) -> None:
    edit(code, 'data: bytes = b""', "data: dict[str, int] | None = None")
    fragment = code / "policies" / "model.cedarschema"
    fragment.write_text("entity Shop;\ntype refund_order_refund_dta = { weight?: Long };\n")
    wrong = exequatur("policy", "schema", "--from", "shopcode")
    assert "model.cedarschema:2:6: no dict of an activity has the type refund_order_refund_dta" in wrong.err
    assert "did you mean refund_order_refund_data?" in wrong.err
    fragment.write_text("type Shelf = Long; type refund_order_refund_data = { weight?: Shelf };\n")
    assert exequatur("policy", "schema", "--from", "shopcode").err == ""


def test_two_activities_of_one_type_are_refused(code: Path) -> None:
    (code / "shopcode_more.py").write_text(
        "from temporalio import activity\n@activity.defn\ndef open(day: int) -> None: ...\n"
    )
    with pytest.raises(ConfigurationError, match="another activity of the type open"):
        activities_of(["shopcode", "shopcode_more"])
    # The same one, imported twice, is one.
    (code / "shopcode_same.py").write_text("from shopcode import *\n")
    assert set(activities_of(["shopcode", "shopcode_same"])) == set(activities_of(["shopcode"]))


def test_activities_are_found_in_classes_objects_lists_and_modules(code: Path) -> None:
    assert set(activities_of(["shopcode"])) == {"refund_order", "ping.now", "open", "close", "call"}
    assert set(activities_of(["shopcode:Shop"])) == {"open", "close"}
    assert set(activities_of(["shopcode:shop"])) == {"open", "close"}
    assert set(activities_of(["shopcode:few", "shopcode:ping"])) == {"refund_order", "open", "ping.now"}
    for named in ("shopcode", "shopcode:Shop", "shopcode:shop", "shopcode:few"):
        assert arguments_of(activities_of([named])["open"]).names == ("day",)


def test_as_a_user_starts_it_from_the_working_directory(code: Path, process: Callable[..., Ended]) -> None:
    ended = process("policy", "schema", "--from", "shopcode")
    assert ended.code == 0, ended.err
    assert (code / "policies" / "schema.cedarschema").exists()


def test_the_reference_names_every_activity_argument_attribute_and_policy(exequatur: Callable[..., Ended]) -> None:
    ended = exequatur("policy", "reference", "--policies", str(ROOT / "policies"))
    assert ended.code == 0
    for line in (
        "### `refund_order`",
        '* action `Action::"refund_order"`, in `Action::"activity"`, `Action::"money"`',
        "| `context.args.refund.amount` | `decimal` | yes |  |",
        "| `context.run.workflow_type` | `String` | yes |  |",
        "| `context.behavior` | record | no, guard with `has` |  |",
        '| `Action::"money"` | `refund_order` |',
        "| `region` | `String` | no, guard with `has` | the customers' region that it works for, such as emea |",
    ):
        assert line in ended.out.splitlines()
    assert "`refunds-limit` (forbid)" in ended.out


def test_the_reference_can_be_written_to_a_file(code: Path, exequatur: Callable[..., Ended]) -> None:
    (code / "policies" / "main.cedar").write_text(PERMIT)
    without = exequatur("policy", "reference")
    assert without.code == 2
    assert "Make one: exequatur policy schema --from MODULE" in without.err
    exequatur("policy", "schema", "--from", "shopcode")
    ended = exequatur("policy", "reference", "-o", "model.md")
    assert (ended.code, ended.out) == (0, "model.md: written\n")
    page = (code / "model.md").read_text()
    assert "| `context.args.refund.order_id` | `String` | yes |  |" in page
    assert exequatur("policy", "reference", "-o", "nowhere/model.md").code == 2


def test_names_and_descriptions_cannot_break_out_of_the_page() -> None:
    schema = """
    entity Agent; entity Workflow;
    @doc("a | b `c` <script>\\n# heading")
    action "we|rd `name`\\n# x" appliesTo {
      principal: [Agent], resource: [Workflow],
      context: { args: { @doc("[x](javascript:y)") "a|b"?: Long, "if": { "c d": Set<String> } } }
    };
    """
    page = reference(PolicyBundle.from_parts(PERMIT, schema))
    assert "\n# x" not in page
    assert "\n# heading" not in page
    assert "<script>" not in page
    assert '| `context.args["a\\|b"]` | `Long` | no, guard with `has` | \\[x\\](javascript:y) |' in page
    assert '| `context.args["if"]["c d"]` | `Set<String>` | yes |  |' in page

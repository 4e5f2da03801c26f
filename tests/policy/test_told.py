"""What a schema may require of the context: only what the gate tells."""

from pathlib import Path

import pytest

from exequatur.authoring.schema.generate import base_model
from exequatur.policy.bundle import PolicyBundle
from exequatur.policy.conformance import unfit
from exequatur.policy.schema import read_schema
from exequatur.policy.told import OWN_ACTIONS, untold


def schema_with(context: str) -> str:
    return f"""
        entity User; entity Workflow;
        action "freeze" appliesTo {{ principal: [User], resource: [Workflow], context: {{ args: {{}}, {context} }} }};
    """


@pytest.mark.parametrize(
    ("context", "problem"),
    [
        ("frozen: Bool", "context.frozen is required, and the gate does not tell it"),
        ("worker: { id: String, shoe: String }", "context.worker.shoe is required, and the gate does not tell it"),
        ("worker: { id: String, build: String }", "context.worker.build is required, and the gate tells it only"),
        ("now: String", "context.now is a datetime, and the schema declares something else"),
        ("run: String", "context.run is a record, and the schema declares something else"),
        ("activity: { attempt: String }", "context.activity.attempt is a Long"),
    ],
)
@pytest.mark.rule("conformance.C3")
@pytest.mark.rule("told.O1")
def test_a_schema_that_promises_what_is_never_told_fits_no_activity(context: str, problem: str) -> None:
    def freeze() -> None: ...

    bundle = PolicyBundle.from_parts("", schema_with(context), strict=True)
    (found,) = unfit(bundle, {"freeze": freeze})
    assert problem in found


@pytest.mark.parametrize("context", ["frozen?: Bool", "worker: { id: String, build?: String }", "now: datetime"])
@pytest.mark.rule("told.O1")
def test_what_is_optional_may_stay_untold(context: str) -> None:
    action = read_schema(schema_with(context)).actions["freeze"]
    assert list(untold(action)) == []


@pytest.mark.rule("conformance.C3")
@pytest.mark.rule("told.O1")
def test_the_question_whether_a_workflow_may_start_knows_of_no_worker() -> None:
    schema = """
        entity User; entity Workflow;
        action "workflow.start" appliesTo {
          principal: [User], resource: [Workflow], context: { worker: { id: String } }
        };
    """
    (found,) = unfit(PolicyBundle.from_parts("", schema, strict=True), {})
    assert found.startswith("workflow.start: context.worker is required")


@pytest.mark.rule("told.O1")
def test_the_base_model_requires_nothing_that_is_not_told() -> None:
    actions = read_schema(base_model()).actions
    assert actions.keys() >= OWN_ACTIONS
    assert [problem for name in OWN_ACTIONS for problem in untold(actions[name])] == []


def test_the_reference_names_each_of_the_gates_own_actions() -> None:
    page = (Path(__file__).parents[2] / "docs" / "policy-model.md").read_text()
    table = page.partition("## The gate's own actions")[2].partition("\n## ")[0]
    assert {name for name in OWN_ACTIONS if f"`{name}`" not in table} == set()

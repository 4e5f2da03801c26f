"""``exequatur policy explain``, ``who-can`` and ``can``: why the gate answers as it does, and whom it lets do what."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from exequatur.cli.policy.finding import POLICIES, Finding
from exequatur.cli.server import Server, with_server
from exequatur.errors import EvidenceError

if TYPE_CHECKING:  # at run time when a command runs, so that --help is quick
    from exequatur.audit.decided import Decided
    from exequatur.policy.arguments import Conversion
    from exequatur.policy.bundle import PolicyBundle

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_JSON = click.option("--json", "as_json", is_flag=True, help="JSON on standard output.")
_CONTEXT = click.option("--context", metavar="JSON|@FILE", help='For example \'{"run": {"workflow_type": "Refund"}}\'.')
_ARGS = click.option("--args", metavar="JSON|@FILE", help="The arguments by parameter name.")
_RESOURCE = click.option("--resource", metavar='TYPE::"ID"', help="What it is done to; the workflow if left out.")
_NOW = click.option("--now", metavar="TIME", help="For example 2026-01-31T12:00:00+01:00; UTC if bare.")
_PARENT = click.option("--parent", "parents", multiple=True, metavar='TYPE::"ID"', help="A role or group. Repeatable.")
_ATTR = click.option("--attr", "attributes", multiple=True, metavar="NAME=VALUE", help="An attribute. Repeatable.")
_WHERE = click.option(
    "--policies",
    type=click.Path(path_type=Path),
    default=POLICIES,
    show_default=True,
    help="A folder of policies, or a bundle file.",
)


@click.command()
@click.argument("activity", required=False)
@click.option("--principal", metavar='TYPE::"ID"', help="On whose behalf, for a question of your own.")
@_PARENT
@_ATTR
@_ARGS
@_CONTEXT
@_RESOURCE
@_NOW
@click.option(
    "--policies",
    type=click.Path(path_type=Path),
    help="A folder of policies, or a bundle file; ./policies for a question of your own, and for a decision those that "
    "decided, from the evidence.",
)
@click.option(
    "--evidence",
    "sources",
    multiple=True,
    metavar="PATH_OR_URL",
    help="Where the decision is recorded: a journal folder or file, an exported file, a store. Repeatable.",
)
@click.option("--record", metavar="LOG:INDEX", help="A decision by its place in the evidence.")
@click.option("--workflow", "workflow_id", metavar="ID", help="A decision by its workflow, with --activity.")
@click.option("--run", "run_id", metavar="ID", help="The run; the latest if left out.")
@click.option("--activity", "activity_id", metavar="ID", help="The activity's id in its workflow.")
@click.option("--attempt", type=click.IntRange(min=1), help="The attempt; the latest if left out.")
@click.option("--history", "history_file", type=_FILE, help="The run's exported history, instead of a server.")
@click.option("--converter", metavar="MODULE:NAME", help="The workers' DataConverter or PayloadCodec; its code runs.")
@click.option("--all", "everything", is_flag=True, help="Show every policy that nearly decided.")
@_JSON
@with_server
def explain(
    server: Server,
    activity: str | None,
    principal: str | None,
    parents: tuple[str, ...],
    attributes: tuple[str, ...],
    args: str | None,
    context: str | None,
    resource: str | None,
    now: str | None,
    policies: Path | None,
    sources: tuple[str, ...],
    record: str | None,
    workflow_id: str | None,
    run_id: str | None,
    activity_id: str | None,
    attempt: int | None,
    history_file: Path | None,
    converter: str | None,
    everything: bool,
    as_json: bool,
) -> None:
    """Explain a decision: what decided, what nearly did, and what is missing.

    \b
    A question of your own:
      exequatur policy explain refund_order --principal 'Agent::"ops-bot"' --parent 'Role::"operations"' \\
          --args '{"refund": {"order_id": "o-1", "amount": 600, "reason": "late"}}'
    A decision of a worker, from its evidence:
      exequatur policy explain --evidence .exequatur/journal --record 0011223344556677:42
      exequatur policy explain --evidence .exequatur/journal --workflow refund-1 --activity 3
    A decision that the history on a server tells of:
      exequatur policy explain --workflow refund-1 --activity 3 --address localhost:7233

    With evidence, a server is asked only if --address names one. Nothing recorded is verified here; exequatur audit
    does that. Values of the request are shown.

    Exit codes: 0 explained, whatever the decision; 2 it could not be.
    """
    recorded = record is not None or workflow_id is not None
    if recorded and (activity is not None or principal is not None or context or now):
        raise click.UsageError("A recorded decision has its own principal, activity, context and time")
    if recorded and (parents or attributes):
        raise click.UsageError("--parent and --attr go with --principal")
    if not recorded:
        if activity is None or principal is None:
            raise click.UsageError("Give an ACTIVITY and --principal, or --record, or --workflow and --activity")
        if sources or run_id or activity_id or attempt or history_file or converter:
            raise click.UsageError(
                "--evidence, --run, --activity, --attempt, --history and --converter need --workflow"
            )
        _explain_question(
            activity, principal, parents, attributes, args, context, resource, now, policies, everything, as_json
        )
        return
    if record is not None and (workflow_id is not None or run_id or activity_id or attempt):
        raise click.UsageError("--record names a decision by itself; leave --workflow, --run and --activity out")
    if record is not None and not sources:
        raise click.UsageError("--record needs --evidence")
    if workflow_id is not None and activity_id is None:
        raise click.UsageError("--workflow needs --activity")
    named = click.get_current_context().get_parameter_source("address") is not ParameterSource.DEFAULT
    finding = Finding(server, sources, policies, history_file, converter, at_server=named)
    if record is not None:
        decided, bundle, notes = finding.at(record)
    else:
        from exequatur.audit.decided import Wanted

        decided, bundle, notes = finding.of(Wanted(workflow_id or "", activity_id or "", run_id, attempt))
    _explain_decided(finding, decided, bundle, notes, args, resource, everything, as_json)


def _explain_question(
    activity: str,
    principal: str,
    parents: tuple[str, ...],
    attributes: tuple[str, ...],
    args: str | None,
    context: str | None,
    resource: str | None,
    now: str | None,
    policies: Path | None,
    everything: bool,
    as_json: bool,
) -> None:
    from exequatur.authoring.explain.explain import explain as explained
    from exequatur.authoring.request import question
    from exequatur.cli.policy.asking import bundle_at, json_of, moment_of, principal_of

    given, circumstances, moment = json_of("--args", args), json_of("--context", context), moment_of(now)
    bundle = bundle_at(policies or POLICIES)
    who = principal_of(bundle, principal, parents, attributes)
    asked = question(
        bundle, principal=who, activity=activity, args=given, context=circumstances, resource=resource, now=moment
    )
    _show(explained(bundle, asked), None, (), everything, as_json)


_OWN = {
    "workflow.reset": "The workflow had been reset, and it was the reset that was denied.",
    "workflow.child": "Another workflow had started this one, and it was that which was denied (workflow.child).",
    "activity.reset": "The activity had been reset, and it was the reset that was denied.",
}


def _explain_decided(
    finding: Finding,
    decided: Decided,
    bundle: PolicyBundle | None,
    notes: tuple[str, ...],
    args: str | None,
    resource: str | None,
    everything: bool,
    as_json: bool,
) -> None:
    from exequatur.audit.decided import as_recorded, asked_of, own_question_of
    from exequatur.authoring.explain.explain import explain as explained
    from exequatur.cli.policy.asking import entity_of

    notes += decided.notes
    if decided.unasked is not None:
        notes += (f"{decided.unasked.removesuffix('.')}, before the policies were asked.",)
        _show(None, decided, notes, everything, as_json)
        return
    if bundle is None:
        raise EvidenceError(
            f"the policies {decided.bundle} that decided are not in the evidence; name them with --policies, or add "
            "--evidence that holds them"
        )
    if decided.bundle is None:
        notes += ("Which policies decided is not recorded; these are those that were named.",)
    elif bundle.digest != decided.bundle:
        notes += (f"Explained by other policies than those that decided, which are {decided.bundle}.",)
    asked = asked_of(
        decided,
        bundle,
        given=_given(bundle, decided, args),
        instead=finding.arguments(decided),
        resource=entity_of("--resource", resource),
    )
    same = bundle.digest == decided.bundle and args is None and resource is None
    own = own_question_of(decided, asked, bundle) if same else None
    if own is not None:
        asked, notes = own, (*notes, _OWN.get(own.action, f"It was {own.action} that was denied."))
    explanation = explained(bundle, asked)
    if same and not as_recorded(decided, explanation.verdict):
        notes += ("The policies answer otherwise than is recorded; exequatur audit tells why that can be.",)
    _show(explanation, decided, notes, everything, as_json)


def _given(bundle: PolicyBundle, decided: Decided, args: str | None) -> Conversion | None:
    if args is None:
        return None
    from exequatur.authoring.request import read_arguments
    from exequatur.cli.policy.asking import json_of

    return read_arguments(bundle, decided.activity_type, json_of("--args", args))


def _show(explained: Any, decided: Any, notes: tuple[str, ...], everything: bool, as_json: bool) -> None:
    from exequatur.cli.policy.explained import explanation_document, print_explanation

    if as_json:
        click.echo(json.dumps(explanation_document(explained, decided, notes), indent=2))
    else:
        print_explanation(explained, decided, notes, everything=everything)


@click.command("who-can")
@click.argument("activity")
@_ARGS
@_CONTEXT
@_RESOURCE
@_NOW
@_WHERE
@_JSON
def who_can(
    activity: str,
    args: str | None,
    context: str | None,
    resource: str | None,
    now: str | None,
    policies: Path,
    as_json: bool,
) -> None:
    """Tell who can run an activity: the principals that files name, and anyone in a role.

    What is not given is unknown, and the answer may then depend on it:

    \b
      exequatur policy who-can refund_order
      exequatur policy who-can refund_order --args '{"refund": {"order_id": "o-1", "amount": 20, "reason": "late"}}'

    Exit codes: 0 answered, 2 it could not be.
    """
    from exequatur.authoring.explain.access import who_can as answered
    from exequatur.cli.policy.asking import bundle_at, json_of, moment_of

    given, circumstances, moment = json_of("--args", args), json_of("--context", context), moment_of(now)
    access = answered(bundle_at(policies), activity, args=given, context=circumstances, resource=resource, now=moment)
    _show_access(access, f"Who can run {activity}", as_json)


@click.command()
@click.argument("principal", metavar='TYPE::"ID"')
@_PARENT
@_ATTR
@_CONTEXT
@_RESOURCE
@_NOW
@_WHERE
@_JSON
def can(
    principal: str,
    parents: tuple[str, ...],
    attributes: tuple[str, ...],
    context: str | None,
    resource: str | None,
    now: str | None,
    policies: Path,
    as_json: bool,
) -> None:
    """Tell what a principal can run, and under which conditions.

    \b
      exequatur policy can 'Agent::"ops-bot"' --parent 'Role::"operations"' --attr region=emea

    Exit codes: 0 answered, 2 it could not be.
    """
    from exequatur.authoring.explain.access import can as answered
    from exequatur.cli.policy.asking import bundle_at, json_of, moment_of, principal_of

    circumstances, moment = json_of("--context", context), moment_of(now)
    bundle = bundle_at(policies)
    who = principal_of(bundle, principal, parents, attributes)
    access = answered(bundle, who, context=circumstances, resource=resource, now=moment)
    _show_access(access, f"What {principal} can run", as_json)


def _show_access(access: Any, title: str, as_json: bool) -> None:
    from exequatur.cli.policy.explained import access_document, print_access

    if as_json:
        click.echo(json.dumps(access_document(access), indent=2))
    else:
        print_access(access, title)


COMMANDS: tuple[click.Command, ...] = (explain, who_can, can)

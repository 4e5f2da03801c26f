"""The codes of findings: stable names, how much each weighs, and what it means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Code:
    """What a code stands for."""

    severity: Literal["violation", "unchecked", "unproven", "notice"]
    meaning: str


CODES: dict[str, Code] = {
    # The history itself.
    "history-malformed": Code("unchecked", "The input is not a workflow history that can be read."),
    "history-unknown-fields": Code("unchecked", "The history has fields of a newer Temporal version."),
    "history-events": Code("violation", "Events are missing, doubled, out of order or contradict each other."),
    "payload-encoded": Code("unchecked", "What was signed is encoded or stored in a way that the audit was not told."),
    # The run.
    "run-ungoverned": Code("violation", "The run was started without a grant and its type is not exempt."),
    "run-exempt": Code("unproven", "The run was started without a grant, which the trust file allows its type."),
    "start-unreadable": Code("violation", "The start header cannot be read or holds something foreign."),
    "grant-invalid": Code("violation", "The grant or a delegation does not verify, or is for something else."),
    "start-not-granted": Code("violation", "The run was started otherwise than it was granted."),
    "grant-expired": Code("violation", "An activity ran when its grant had not begun or had ended."),
    "grant-revoked": Code("violation", "An activity was allowed although it had been revoked."),
    "key-unknown": Code("unchecked", "The trust file does not know a key that signed something."),
    "self-notarised": Code("unproven", "The issuer is an embedded development authority; it vouches for itself."),
    "time-unproven": Code("unproven", "Times are what server and workers say; no witness bounds them."),
    "time-bounded": Code("notice", "Witnesses of a checkpoint had seen the whole run by a time."),
    "events-unproven": Code("unproven", "Timers, children and results of workflows are what the server says."),
    "run-id-unproven": Code("unproven", "Nothing that was signed names the id of the run."),
    "run-open": Code("unproven", "The history does not show the run's end; what may have followed was not audited."),
    "run-observed": Code("notice", "The run was in observe mode; nothing was enforced."),
    "run-reset": Code("notice", "The run is a reset of another run."),
    "reset-unproven": Code("unchecked", "The server says that the run was reset, and nothing that was signed says so."),
    "base-cut": Code("unchecked", "A run that this one says it was reset from went further; audit its own history."),
    "run-linked": Code("unproven", "A run before or after this one, its parent or a child was not audited with it."),
    # Activities.
    "request-missing": Code("violation", "An activity was scheduled without a signed request."),
    "request-invalid": Code("violation", "A request does not verify, or is for another activity."),
    "request-withdrawn": Code("unproven", "A request left no event; the workflow may have withdrawn it."),
    "chain-broken": Code("violation", "Requests and receipts do not follow from each other."),
    "chain-unchecked": Code("unchecked", "Whether requests are missing could not be found out within bounds."),
    "receipt-missing": Code("violation", "A result has no receipt: whoever made it was not a gated worker."),
    "receipt-invalid": Code("violation", "A receipt does not verify, or is for another activity or result."),
    "end-unproven": Code("unproven", "An activity ended without a receipt; how is what server and workers say."),
    "child-undelegated": Code("violation", "A child was started without a delegation by this run, or otherwise."),
    "approval-invalid": Code("violation", "Approvals that an activity carries do not verify, or are for another one."),
    "approval-missing": Code(
        "violation", "An activity carries a challenge or approval that the history does not have."
    ),
    "approval-rejected": Code("violation", "An activity was asked for with approvals after somebody had rejected it."),
    "approval-reused": Code("violation", "People agreed to one request, and more than one was allowed for that."),
    "approval-miscounted": Code("violation", "A decision counts approvals that it had not, or that did not count."),
    "approval-dropped": Code("notice", "A signal brought an approval that counts for no challenge of the run."),
    "challenge-invalid": Code("violation", "A challenge does not verify, or asks for others than the policies do."),
    "renewal-invalid": Code("violation", "A renewed grant does not renew what the run stood on."),
    "run-renewed": Code("notice", "The run outlived its grant, which was renewed as it allows."),
    "restriction-dropped": Code("violation", "A request leaves out what its run was restricted to from the beginning."),
    "restriction-contradicts": Code("violation", "A decision was made under other restrictions than the request's."),
    "completion-contradicts": Code("violation", "An activity was completed from outside, and had not been let begin."),
    "completion-unproven": Code("unproven", "No authority's record shows that a completion from outside was allowed."),
    "result-recorded": Code("unproven", "The grant lets this task queue leave receipts out."),
    "denial-unsigned": Code("violation", "A failure that claims to be the gate's carries no valid signed denial."),
    "attempt-unaccounted": Code("unproven", "The evidence has no record of an attempt."),
    "enforcement-missing": Code("violation", "The gate said no, and it ran, though the grant demands enforcement."),
    "evidence-unvouched": Code("unchecked", "No worker has signed for a journal that contradicts the history."),
    "not-enforced": Code("notice", "The gate said no, and the activity ran, because it was only observed."),
    # Messages, and what a run sends elsewhere.
    "message-missing": Code("violation", "Something signed tells of a message that the history has not, or otherwise."),
    "message-unpermitted": Code("violation", "A run accepted a message without a valid permit."),
    "messages-broken": Code("violation", "The messages of the history are not those that were signed, in that order."),
    "message-refused": Code("notice", "A message came without a valid permit, and the run refused it."),
    "message-observed": Code("notice", "A message without a valid permit was handled, because it was only observed."),
    "message-unmatched": Code("unproven", "A message was not handled in its order, or left no trace where it should."),
    "messages-unchecked": Code("unchecked", "What messages a run had handled could not be found out."),
    "signal-unsigned": Code("violation", "A signal to another workflow left without a valid message of the run."),
    "call-unsigned": Code("violation", "A Nexus operation was called without a valid statement of the run."),
    "sent-refused": Code("notice", "What a run sent elsewhere was not allowed, so that the other side refuses it."),
    "sent-unknown": Code("unchecked", "A run called an operation of the server that this version cannot read."),
    # What an authority was asked.
    "authority-contradicts": Code("violation", "An authority's record contradicts the statement that came of it."),
    "authority-differs": Code("violation", "Recomputing what an authority or a handler decided gave another answer."),
    "authority-unrecorded": Code("unproven", "The evidence has no record of the decision behind a grant or permit."),
    "call-unrecorded": Code("unproven", "The evidence has no record of how the handler of a Nexus call decided."),
    # Evidence.
    "evidence-missing": Code("unchecked", "The journal that a receipt names is not in the evidence."),
    "evidence-invalid": Code("violation", "A journal record was changed, or is not the one that a receipt names."),
    "decision-contradicts": Code("violation", "A recorded decision contradicts the history, the grant or its receipt."),
    "decision-differs": Code("violation", "Recomputing a recorded decision gave another answer."),
    "bundle-unapproved": Code("violation", "A decision was made by policies that the trust file does not approve."),
    "bundle-unvouched": Code("unproven", "Nobody but the worker vouches for the policies of a decision."),
    "arguments-unproven": Code("unproven", "Arguments that Cedar was given do not stand in the recorded input."),
    "resource-unproven": Code("unproven", "The resource that Cedar was given was named by the worker's own code."),
    "integrity-contradicts": Code("violation", "Policies were told of other code than journal or credential name."),
    "integrity-unchecked": Code("unchecked", "The evidence lacks what a worker wrote down about its own code."),
    "behavior-contradicts": Code("violation", "Policies were told of other behaviour than the evidence adds up to."),
    "behavior-unchecked": Code("unchecked", "The evidence lacks what the behaviour that policies were told of is of."),
    "behavior-restarted": Code("unproven", "What was done before was counted in another ledger, and not told."),
    "bundle-missing": Code("unchecked", "The policy bundle of a decision is not in the evidence."),
    "activity-missing": Code("violation", "The evidence tells of an activity that the history does not have."),
    "seal-missing": Code("unproven", "The evidence has no seal of a run that has closed."),
    "history-cut": Code("unchecked", "The evidence says that the run has closed, and the history does not show it."),
    "seal-invalid": Code("violation", "The seal does not verify, or its head is not the one of the history."),
    # Checkpoints.
    "checkpoint-invalid": Code("violation", "A checkpoint does not verify, or the history is not the one it covers."),
    "checkpoint-unverified": Code("unchecked", "A checkpoint is by a notary that the trust file does not name."),
    "witnesses-missing": Code("unchecked", "Fewer witnesses have cosigned than were demanded."),
    # Replay.
    "replay-nondeterministic": Code("violation", "The workflow code does not replay this history."),
    "replay-failed": Code("unchecked", "The replay could not be run."),
}

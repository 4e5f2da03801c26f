"""What may change in a history without effect on what its audit claims: the reviewed list, with a reason for each.

A rule here is only ever the reason. That a report still claims the same is checked for each mutant: what differs has
to be covered by a finding of :data:`COVERED` in the mutant's own report, which says to the reader that just this is
unproven. With a checkpoint all of it is detected.

What the journals add: the decision of each attempt (so that no activity, attempt or id can be dropped or changed), the
receipts of attempts that failed, and the seal (so that the end of the chain cannot be cut off). Rules with
``evidence=False`` hold only without them.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Protocol

COVERED: dict[str, tuple[str, ...]] = {
    "run": (),
    "activities": (),
    "run id": ("run-id-unproven",),
    "end": ("seal-missing", "run-open"),
    "times": ("time-unproven",),
    "events": ("events-unproven",),
    "order": ("events-unproven",),
    "receipts": ("end-unproven",),
    "fewer activities": ("seal-missing", "run-open"),
    "unproven activities": ("end-unproven", "attempt-unaccounted", "request-withdrawn", "seal-missing", "run-open"),
}
"""For each claim of a report (:func:`tests.audit.judging.claims_of`), the findings that take it back. One of them, or
``run-exempt``, which takes everything back, has to be there when a mutant's report claims something else."""
EVERYTHING = "run-exempt"


class Touched(Protocol):
    @property
    def run(self) -> str: ...
    @property
    def where(self) -> str: ...
    @property
    def how(self) -> str: ...


@dataclass(frozen=True)
class Neutral:
    """Something that may change.

    Args:
        reason: Why.
        where: What is touched, as shell patterns.
        how: What is done to it.
        run: In which runs.
        evidence: Whether it holds only with or only without the journals.
        covered_by: Findings of which one must be there, whatever the report claims.
        tells: Claims that may differ nevertheless, for this very reason.
    """

    reason: str
    where: tuple[str, ...]
    how: str = "*"
    run: str = "*"
    evidence: bool | None = None
    covered_by: tuple[str, ...] = ()
    tells: tuple[str, ...] = ()

    def matches(self, mutant: Touched, evidence: bool) -> bool:
        return (
            self.evidence in (None, evidence)
            and fnmatchcase(mutant.run, self.run)
            and fnmatchcase(mutant.how, self.how)
            and any(fnmatchcase(mutant.where, pattern) for pattern in self.where)
        )


NEUTRAL: tuple[Neutral, ...] = (
    Neutral(
        "Nothing is claimed of a run whose type the trust file exempts from having a grant",
        ("*",), run="ungoverned", covered_by=(EVERYTHING,),
    ),
    Neutral(
        "Times are as server and workers say until a checkpoint bounds them",
        ("*:event_time", "*:event_time.*"), covered_by=("time-unproven",),
    ),
    Neutral(
        "The server's own numbering and cross-references of its records, and texts for its user interface",
        ("*:task_id", "*:version", "*:worker_may_ignore", "*:links*", "*:event_group_markers*", "*:user_metadata*",
         "*:principal*"),
    ),
    Neutral(
        "Names that clients and workers give themselves; the audit names the workers that signed",
        ("*.identity",),
    ),
    Neutral(
        "Which build of a worker served a task, as the server notes it; a receipt names the worker",
        ("*.worker_version*", "*build_id*", "*deployment*", "*versioning*", "*.binary_checksum", "*.sdk_metadata*",
         "*.request_id", "workflow_execution_started.inherited*", "workflow_execution_started.source_version_stamp*",
         "*initial_versioning_behavior*"),
    ),
    Neutral(
        "Deadlines and retries decide when the server tries again or gives up; each attempt is authorized by itself",
        ("*_timeout", "*_timeout.*", "*.retry_policy", "*.retry_policy.*", "*.retry_state", "*.cron_schedule",
         "*backoff*", "*expiration_time*"),
    ),
    Neutral(
        "Routing, search and display; the name of a task queue is signed, its kind is the server's business",
        ("*.priority*", "*.memo*", "*.search_attributes*", "*.task_queue.kind", "*.task_queue.normal_name",
         "*.completion_callbacks*", "*.time_skipping*", "*.propagated_nexus*", "*.eager_execution_accepted",
         "*.declined_target*"),
    ),
    Neutral(
        "Sizes of data that is stored elsewhere; the reference to it is the payload's data, which is digested",
        ("*.external_payloads*",),
    ),
    Neutral(
        "Metadata under our own prefix is left out of digests, so that a receipt fits in; no other is read",
        ("*.metadata?exequatur-*",), how="given",
    ),
    Neutral(
        "A header is read by its data; what metadata is there besides its encoding means nothing",
        ("*.header.fields?exequatur-*?.metadata*", "*.header.fields?exequatur-*?.external*"),
    ),
    Neutral(
        "Headers of others: no statement is about them",
        ("*.header", "*.header.fields", "*.header.fields?other?*"), how="given",
    ),
    Neutral(
        "Other spellings of the same statements: a credential twice or elsewhere, or left out where it came before",
        ("*: start header", "*: activity header", "*: receipt", "*: local receipt"), how="token*",
    ),
    Neutral(
        "A parent counts only by the delegation that it signed, which names it",
        ("workflow_execution_started.parent_*", "workflow_execution_started.root_workflow_execution*"),
    ),
    Neutral(
        "What the run before left; a run that continues one is bound to it by that run's seal, a retry by its grant",
        ("workflow_execution_started.continued*", "workflow_execution_started.last_completion_result*",
         "workflow_execution_started.initiator", "workflow_execution_started.attempt",
         "workflow_execution_started.prev_auto_reset_points*"),
    ),
    Neutral(
        "Of a run that asked for nothing, nothing that was signed names the id",
        ("workflow_execution_started.original_execution_run_id", "workflow_execution_started.first_execution_run_id"),
        covered_by=("run-id-unproven",),
    ),
    Neutral(
        "Workflow tasks are how server and worker take turns; what they bring about stands in events of its own",
        ("workflow_task_*", "*.workflow_task_completed_event_id"),
    ),
    Neutral(
        "Results and failures of workflows are in no statement; a checkpoint covers them",
        ("workflow_execution_completed.*", "workflow_execution_failed.*", "workflow_execution_canceled.*",
         "workflow_execution_terminated.*", "workflow_execution_timed_out.*", "workflow_execution_cancel_requested.*",
         "workflow_execution_continued_as_new.failure*", "workflow_execution_continued_as_new.last_completion_result*"),
        covered_by=("events-unproven",),
    ),
    Neutral(
        "The run that follows is judged by its own history, which begins with this run's seal",
        ("workflow_execution_continued_as_new.new_execution_run_id", "workflow_execution_continued_as_new.initiator"),
    ),
    Neutral(
        "Timers, and what updates, children and others answered are in no statement; a checkpoint covers them",
        ("workflow_execution_update_completed*", "timer_*", "child_workflow_execution_*", "nexus_operation_started*",
         "nexus_operation_completed*", "nexus_operation_failed*", "external_workflow_execution_signaled*",
         "events: nexus_operation_completed*", "events: nexus_operation_failed*", "events: nexus_operation_started*",
         "events: external_workflow_execution_signaled*", "signal_external_workflow_execution_failed*",
         "upsert_workflow_search_attributes.*", "workflow_properties_modified.*"),
        covered_by=("events-unproven",),
    ),
    Neutral(
        "What the server notes beside a message; who sent it and what it says are in its permit",
        ("workflow_execution_signaled.external_workflow_execution*", "workflow_execution_signaled.skip_*",
         "workflow_execution_signaled.input.payloads.metadata?exequatur-other?",
         "workflow_execution_update_accepted.protocol_instance_id",
         "workflow_execution_update_accepted.accepted_request_*",
         "workflow_execution_update_accepted.accepted_request.meta*",
         "workflow_execution_update_accepted.accepted_request.input.args.payloads.metadata?exequatur-other?"),
    ),
    Neutral(
        "Without a request or a seal after it, a message is what the server says, and its permit",
        ("workflow_execution_signaled.*", "workflow_execution_update_accepted.*",
         "events: workflow_execution_signaled*", "events: workflow_execution_update_accepted*"),
        evidence=False, covered_by=("seal-missing", "run-open"),
    ),
    Neutral(
        "A signal that no statement has heard is not said to have been handled",
        ("events: workflow_execution_signaled*", "workflow_execution_signaled.*"), covered_by=("message-unmatched",),
    ),
    Neutral(
        "An open message needs no permit, and nothing that comes with it is looked at",
        ("workflow_execution_signaled.header*",), run="late*",
    ),
    Neutral(
        "An approval proves itself: its token is read, whatever says how it is written and whatever comes beside it",
        ("workflow_execution_signaled.input.payloads", "workflow_execution_signaled.input.payloads.metadata*"),
        run="approved",
    ),
    Neutral(
        "Of a signal that brings an approval, the signed token is all that is read",
        ("workflow_execution_signaled.*",), run="approved*", covered_by=("events-unproven",),
    ),
    Neutral(
        "What a run sent elsewhere is in no chain: a checkpoint covers that it did, and when",
        ("events: nexus_operation_scheduled*", "events: signal_external_workflow_execution_initiated*"),
        covered_by=("events-unproven",),
    ),
    Neutral(
        "What the server notes beside a call or a signal that was sent; what goes where is signed",
        ("nexus_operation_scheduled.endpoint_id", "nexus_operation_scheduled.nexus_header?x-own?",
         "nexus_operation_scheduled.nexus_header?other?", "nexus_operation_scheduled.input.metadata?exequatur-*",
         "signal_external_workflow_execution_initiated.namespace*",
         "signal_external_workflow_execution_initiated.control",
         "signal_external_workflow_execution_initiated.child_workflow_only",
         "signal_external_workflow_execution_initiated.workflow_execution.run_id",
         "signal_external_workflow_execution_initiated.input.payloads.metadata?exequatur-other?"),
    ),
    Neutral(
        "Which run began the series is in requests; the report does not claim it",
        ("workflow_execution_started.first_execution_run_id",),
    ),
    Neutral(
        "What a child is to be besides its delegation: policies and control data of the server",
        ("start_child_workflow_execution_initiated.parent_close_policy",
         "start_child_workflow_execution_initiated.control",
         "start_child_workflow_execution_initiated.namespace", "start_child_workflow_execution_initiated.namespace_id",
         "start_child_workflow_execution_initiated.workflow_id_reuse_policy",
         "start_child_workflow_execution_initiated.input.payloads.metadata?exequatur-other?"),
    ),
    Neutral(
        "Texts and details of a failure are what the worker says; of the gate's own only the signed record counts",
        ("activity_task_failed.*", "activity_task_timed_out.*", "activity_task_canceled.*",
         "activity_task_started.last_failure*", "marker_recorded.failure", "marker_recorded.failure.*"),
    ),
    Neutral(
        "What a cancellation was asked for by, and when, decides nothing",
        ("activity_task_cancel_requested.*",),
    ),
    Neutral(
        "The server's count of how often a task was redirected",
        ("activity_task_started.build_id_redirect_counter",),
    ),
    Neutral(
        "How often an activity without a receipt was tried is not claimed",
        ("activity_task_started.attempt", "activity_task_started.scheduled_event_id",
         "activity_task_completed.started_event_id"),
        covered_by=("end-unproven", "events-unproven"),
    ),
    Neutral(
        "Without a receipt, an id that the workflow did not choose is what the server says",
        ("activity_task_scheduled.activity_id",), evidence=False, covered_by=("end-unproven",),
    ),
    Neutral(
        "The same arguments, only not encoded with the user's codec",
        ("activity_task_scheduled.input", "workflow_execution_started.input", "activity_task_completed.result"),
        how="taken from *", run="turned*",
    ),
    Neutral(
        "The codec's own wrapping: once decoded, the payload is the one that was signed",
        ("*.payloads*", "*.header.fields*", "marker_recorded.details*"), run="turned*",
    ),
    Neutral(
        "The SDK's bookkeeping of a local activity; its id, type and attempt stand in the receipt",
        ("marker_recorded.details?data?.payloads", "marker_recorded.details?data?.payloads.data",
         "marker_recorded.details?data?.payloads.data.*",
         "marker_recorded.details?data?.payloads.metadata*", "marker_recorded.details?other?*",
         "marker_recorded.details?exequatur-other?*", "marker_recorded.details"),
    ),
    Neutral(
        "Markers that are no local activities: versions and side effects, which replay judges",
        ("marker_recorded.*",), run="talkative",
    ),
    Neutral(
        "A local activity that failed or was denied has its request in its end only; without that it is unaccounted",
        ("marker_recorded.marker_name", "marker_recorded.details?*", "events: marker_recorded",
         "events: local activity"),
        covered_by=("attempt-unaccounted", "request-withdrawn", "seal-missing"), tells=("fewer activities",),
    ),
    Neutral(
        "Before the reset, it is the history of the run that was reset, and is taken for that",
        ("events: cut", "events: end of base"), run="reset", covered_by=("events-unproven",),
        tells=("run id", "activities", "fewer activities", "end", "unproven activities"),
    ),
    Neutral(
        "A shorter history is what an earlier export would have been: the report says that the run is open",
        ("events: cut",), covered_by=("run-open",),
    ),
    Neutral(
        "Without the journals nothing shows that more followed: the report says that the end is the history's word",
        ("events: activity", "events: activity_task_*", "events: workflow_execution_*", "events: end of *",
        ),
        evidence=False, covered_by=("seal-missing", "run-open"),
    ),
    Neutral(
        "Nobody seals a run that is open, terminated or timed out: what had not begun is in the history only",
        ("events: activity_task_scheduled", "events: activity_task_completed", "events: activity_task_timed_out",
         "events: activity", "events: workflow_execution_*"),
        covered_by=("run-open", "seal-missing", "end-unproven"),
    ),
    Neutral(
        "No statement is about these events: a checkpoint covers how many there are, and where",
        ("events: workflow_task_*", "events: timer_*", "events: child_*", "events: start_child_*",
         "events: workflow_execution_cancel_requested*", "events: workflow_execution_signaled*",
         "events: workflow_execution_update_*", "events: workflow_properties_modified*",
         "events: upsert_*", "events: activity_task_cancel_requested*", "events: *, *", "events: marker_recorded",
         "events: activity_task_*", "events: end of *", "events: local activity"),
        covered_by=("events-unproven",),
    ),
)  # fmt: skip

"""What an operator does goes straight to the server, and no worker can stop it: the questions to ask before it leaves.

Rules, numbered as the code marks them; :mod:`exequatur.gate.client.service` asks them:

L1  A call that ends, deletes, resets, pauses or changes a workflow is asked for that workflow. A start that would end
    the one that runs is asked for that as well.
L2  A call that does the like to an activity is asked for it, by its id or type as the call names it.
L3  A call that changes a schedule is asked with what the schedule starts, now and after the change.
L4  A batch is asked for every execution that it names, or that its query finds; and a query, before that, once for no
    workflow in particular (``Workflow::""``).
L5  What decides which workers serve, or acts on whatever comes later, is asked for no workflow in particular.

Messages are not here: a run takes none without a permit. Neither are starts: what is started without a grant or permit
may do nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from temporalio.api.enums.v1 import WorkflowIdConflictPolicy, WorkflowIdReusePolicy
from temporalio.api.schedule.v1 import Schedule, SchedulePatch
from temporalio.api.workflowservice.v1 import StartBatchOperationRequest, StartWorkflowExecutionRequest

from exequatur.policy.told import (
    ACTIVITY_CANCEL_ACTION,
    ACTIVITY_OPTIONS_ACTION,
    ACTIVITY_PAUSE_ACTION,
    ACTIVITY_RESET_ACTION,
    ACTIVITY_TERMINATE_ACTION,
    ACTIVITY_UNPAUSE_ACTION,
    CANCEL_ACTION,
    DELETE_ACTION,
    OPTIONS_ACTION,
    PAUSE_ACTION,
    RESET_ACTION,
    SCHEDULE_BACKFILL_ACTION,
    SCHEDULE_PAUSE_ACTION,
    SCHEDULE_TRIGGER_ACTION,
    SCHEDULE_UNPAUSE_ACTION,
    TERMINATE_ACTION,
    UNPAUSE_ACTION,
)


@dataclass(frozen=True)
class Question:
    """What is asked before a call leaves.

    Args:
        action: One of the gate's own Cedar actions.
        workflow_id: Of the resource.
        facts: The context without ``now``.
    """

    action: str
    workflow_id: str
    facts: Mapping[str, Any]

    @property
    def what(self) -> str:
        """What is about to be done, for those who named nobody to do it for."""
        return f"{self.action} is done to {self.workflow_id or 'no workflow in particular'}"


def of_workflow(action: str, namespace: str, workflow_id: str) -> Question:
    """About a workflow; about none in particular where the id is empty."""
    run: dict[str, Any] = {"namespace": namespace, "workflow_id": workflow_id}
    if action != RESET_ACTION:
        return Question(action, workflow_id, {"run": run})
    # The gate asks the same of every activity that the reset run repeats; here there is none yet.
    activity = {"type": "", "id": "", "attempt": 0, "task_queue": "", "local": False}
    run |= {"workflow_type": "", "run_id": "", "governed": False}
    return Question(
        action, workflow_id, {"activity": activity, "run": run, "worker": {"id": "", "integrity": "unmeasured"}}
    )


def of_activity(action: str, namespace: str, workflow_id: str, *, id: str = "", type: str = "") -> Question:
    """About an activity, by what is known of it; about all of the workflow's where that is nothing."""
    facts = {
        "run": {"namespace": namespace, "workflow_id": workflow_id},
        "activity": {"type": type, "id": id, "task_queue": ""},
    }
    return Question(action, workflow_id, facts)


def of_schedule(action: str, namespace: str, schedule_id: str, schedule: Schedule) -> Question:
    """About a schedule and what it starts."""
    starts = schedule.action.start_workflow
    run = {
        "namespace": namespace,
        "workflow_id": starts.workflow_id,
        "workflow_type": starts.workflow_type.name,
        "task_queue": starts.task_queue.name,
    }
    return Question(action, starts.workflow_id, {"run": run, "schedule": {"id": schedule_id}})


def patched(namespace: str, schedule_id: str, schedule: Schedule, patch: SchedulePatch) -> list[Question]:
    """L3, of what is done to a schedule beside changing its description."""
    done = {
        SCHEDULE_TRIGGER_ACTION: patch.HasField("trigger_immediately"),
        SCHEDULE_BACKFILL_ACTION: bool(patch.backfill_request),
        SCHEDULE_PAUSE_ACTION: bool(patch.pause),
        SCHEDULE_UNPAUSE_ACTION: bool(patch.unpause),
    }
    return [of_schedule(action, namespace, schedule_id, schedule) for action, asked in done.items() if asked]  # [L3]


def updated(before: Schedule, after: Schedule, action: str, namespace: str, schedule_id: str) -> list[Question]:
    """L3, of a schedule whose description changes."""
    questions = [of_schedule(action, namespace, schedule_id, each) for each in (before, after)]  # [L3]
    if before.state.paused != after.state.paused:
        paused = SCHEDULE_PAUSE_ACTION if after.state.paused else SCHEDULE_UNPAUSE_ACTION
        questions.append(of_schedule(paused, namespace, schedule_id, after))
    return questions if questions[0] != questions[1] else questions[1:]


def _workflow(action: str) -> Callable[[Any], list[Question]]:
    def asked(req: Any) -> list[Question]:
        named = req.workflow_execution.workflow_id if hasattr(req, "workflow_execution") else req.workflow_id
        return [of_workflow(action, req.namespace, named)]  # [L1]

    return asked


def _reset(req: Any) -> list[Question]:
    changes = any(each.HasField("update_workflow_options") for each in req.post_reset_operations)
    actions = (RESET_ACTION, OPTIONS_ACTION) if changes else (RESET_ACTION,)
    return [of_workflow(action, req.namespace, req.workflow_execution.workflow_id) for action in actions]  # [L1]


def _ending(req: StartWorkflowExecutionRequest) -> list[Question]:
    ends = (
        req.workflow_id_conflict_policy == WorkflowIdConflictPolicy.WORKFLOW_ID_CONFLICT_POLICY_TERMINATE_EXISTING
        or req.workflow_id_reuse_policy == WorkflowIdReusePolicy.WORKFLOW_ID_REUSE_POLICY_TERMINATE_IF_RUNNING
    )
    return [of_workflow(TERMINATE_ACTION, req.namespace, req.workflow_id)] if ends else []  # [L1]


def _ending_several(req: Any) -> list[Question]:
    starts = (each.start_workflow for each in req.operations if each.HasField("start_workflow"))
    return [question for start in starts for question in _ending(start)]


def _activity(action: str) -> Callable[[Any], list[Question]]:
    """Of a call that names an activity of a workflow by its id or type, or all of them."""

    def asked(req: Any) -> list[Question]:
        return [of_activity(action, req.namespace, req.execution.workflow_id, id=req.id, type=req.type)]  # [L2]

    return asked


def _execution(action: str) -> Callable[[Any], list[Question]]:
    """Of a call that names an activity by its id, of a workflow or by itself."""

    def asked(req: Any) -> list[Question]:
        return [of_activity(action, req.namespace, getattr(req, "workflow_id", ""), id=req.activity_id)]  # [L2]

    return asked


def _nowhere(action: str) -> Callable[[Any], list[Question]]:
    def asked(req: Any) -> list[Question]:
        ask = of_activity if action == ACTIVITY_PAUSE_ACTION else of_workflow
        return [ask(action, req.namespace, "")]  # [L5]

    return asked


def _rule(req: Any) -> list[Question]:
    return [of_activity(ACTIVITY_PAUSE_ACTION, req.namespace, req.execution.workflow_id)]  # [L2]


QUESTIONS: Mapping[str, Callable[[Any], list[Question]]] = MappingProxyType(
    {
        "request_cancel_workflow_execution": _workflow(CANCEL_ACTION),
        "terminate_workflow_execution": _workflow(TERMINATE_ACTION),
        "delete_workflow_execution": _workflow(DELETE_ACTION),
        "pause_workflow_execution": _workflow(PAUSE_ACTION),
        "unpause_workflow_execution": _workflow(UNPAUSE_ACTION),
        "update_workflow_execution_options": _workflow(OPTIONS_ACTION),
        "reset_workflow_execution": _reset,
        "start_workflow_execution": _ending,
        "signal_with_start_workflow_execution": _ending,
        "execute_multi_operation": _ending_several,
        "pause_activity": _activity(ACTIVITY_PAUSE_ACTION),
        "unpause_activity": _activity(ACTIVITY_UNPAUSE_ACTION),
        "reset_activity": _activity(ACTIVITY_RESET_ACTION),
        "update_activity_options": _activity(ACTIVITY_OPTIONS_ACTION),
        "request_cancel_activity_execution": _execution(ACTIVITY_CANCEL_ACTION),
        "terminate_activity_execution": _execution(ACTIVITY_TERMINATE_ACTION),
        "delete_activity_execution": _execution(ACTIVITY_TERMINATE_ACTION),
        "pause_activity_execution": _execution(ACTIVITY_PAUSE_ACTION),
        "unpause_activity_execution": _execution(ACTIVITY_UNPAUSE_ACTION),
        "reset_activity_execution": _execution(ACTIVITY_RESET_ACTION),
        "update_activity_execution_options": _execution(ACTIVITY_OPTIONS_ACTION),
        "trigger_workflow_rule": _rule,
        "create_workflow_rule": _nowhere(ACTIVITY_PAUSE_ACTION),
        "update_worker_build_id_compatibility": _nowhere(OPTIONS_ACTION),
        "update_worker_versioning_rules": _nowhere(OPTIONS_ACTION),
        "set_current_deployment": _nowhere(OPTIONS_ACTION),
        "set_worker_deployment_current_version": _nowhere(OPTIONS_ACTION),
        "set_worker_deployment_ramping_version": _nowhere(OPTIONS_ACTION),
    }
)
"""What is asked before a call of the workflow service, by its name, where the call itself says it all."""

_BATCHES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "termination_operation": (TERMINATE_ACTION,),
        "signal_operation": (),
        "cancellation_operation": (CANCEL_ACTION,),
        "deletion_operation": (DELETE_ACTION,),
        "reset_operation": (RESET_ACTION,),
        "update_workflow_options_operation": (OPTIONS_ACTION,),
        "unpause_activities_operation": (ACTIVITY_UNPAUSE_ACTION,),
        "reset_activities_operation": (ACTIVITY_RESET_ACTION,),
        "update_activity_options_operation": (ACTIVITY_OPTIONS_ACTION,),
        "cancel_activities_operation": (ACTIVITY_CANCEL_ACTION,),
        "terminate_activities_operation": (ACTIVITY_TERMINATE_ACTION,),
        "delete_activities_operation": (ACTIVITY_TERMINATE_ACTION,),
    }
)
_ALONE = frozenset({"cancel_activities_operation", "terminate_activities_operation", "delete_activities_operation"})


@dataclass(frozen=True)
class Batch:
    """A batch, with the executions that are looked for where it names none.

    Args:
        req: The call.
    """

    req: StartBatchOperationRequest

    @property
    def operation(self) -> str:
        return self.req.WhichOneof("operation") or ""

    @property
    def actions(self) -> tuple[str, ...]:
        """What is asked for each execution. A batch that does nothing known is asked as a termination."""
        actions = _BATCHES.get(self.operation, (TERMINATE_ACTION,))
        changes = self.operation == "reset_operation" and any(
            each.HasField("update_workflow_options") for each in self.req.reset_operation.post_reset_operations
        )
        return (*actions, OPTIONS_ACTION) if changes else actions

    @property
    def of_activities(self) -> bool:
        """Whether the executions are activities that stand by themselves."""
        return self.operation in _ALONE

    @property
    def named(self) -> list[str]:
        """The ids that it names."""
        ids = [each.workflow_id for each in self.req.executions]
        return [*ids, *(each.business_id for each in self.req.target_executions)]

    def questions(self, id: str) -> Iterator[Question]:
        """L4, about one execution, or about none in particular where the id is empty."""
        for action in self.actions:
            if self.of_activities:
                yield of_activity(action, self.req.namespace, "", id=id)  # [L4]
            elif action.startswith("activity."):
                type = getattr(self.req, self.operation).type
                yield of_activity(action, self.req.namespace, id, type=type)  # [L4]
            else:
                yield of_workflow(action, self.req.namespace, id)  # [L4]

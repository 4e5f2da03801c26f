"""Checks, once at start, that the SDK has the private places that the gate relies on (DESIGN section 7).

The dependency is bounded to one minor version of the SDK. Should a patch release move one of these, the plugin refuses
to start instead of letting something run ungated.
"""

from __future__ import annotations

import temporalio.activity
import temporalio.client
import temporalio.nexus._link_conversion as link_conversion
import temporalio.nexus.system._support as system_nexus
import temporalio.service
import temporalio.worker._activity as activity_worker
import temporalio.worker._workflow_instance as workflow_worker
from temporalio.converter import DataConverter
from temporalio.worker import WorkerTuner

from exequatur.errors import ConfigurationError

_NEEDED = (
    (
        workflow_worker._ActivityHandle,
        ("_resolve_success", "_resolve_failure", "_request_cancel", "_apply_schedule_command"),
    ),
    (
        workflow_worker._WorkflowInstanceImpl,
        (
            "_convert_payloads",
            "_make_workflow_input",
            "_process_handler_args",
            "_apply_signal_workflow",
            "_process_signal_job",
            "_add_command",
            "_next_seq",
            "_run_top_level_workflow_function",
            "workflow_is_failure_exception",
            "workflow_set_signal_handler",
        ),
    ),
    (link_conversion, ("nexus_link_to_temporal_link",)),
    (system_nexus, ("signal_function_to_proto", "workflow_function_name")),
    (temporalio.service.ServiceClient, ("_rpc_call",)),
    (temporalio.client.ActivityHandle, ("_poll_until_outcome",)),
    (DataConverter, ("_transform_inbound_payload", "_transform_outbound_payload")),
    (temporalio.activity._Context, ("current", "payload_converter")),
    (temporalio.activity._Definition, ("from_callable", "must_from_callable")),
    (activity_worker._ThreadExceptionRaiser, ("raise_in_thread", "shielded")),
    (
        WorkerTuner,
        (
            "_get_workflow_task_slot_supplier",
            "_get_activity_task_slot_supplier",
            "_get_local_activity_task_slot_supplier",
            "_get_nexus_slot_supplier",
            "_get_activities_max",
            "_get_nexus_tasks_max",
        ),
    ),
)


def check_platform() -> None:
    """Check the SDK.

    Raises:
        ConfigurationError: It is not one that this version of the gate was made for.
    """
    missing = [f"{owner.__name__}.{name}" for owner, names in _NEEDED for name in names if not hasattr(owner, name)]
    if missing:
        raise ConfigurationError(
            f"temporalio {temporalio.service.__version__} lacks {', '.join(missing)}, which the gate relies on; "
            "install temporalio 1.35"
        )

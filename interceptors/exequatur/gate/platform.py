"""Checks, once at start, that the SDK has the private places that the gate relies on (DESIGN section 7).

The dependency is bounded to one minor version of the SDK. Should a patch release move one of these, the plugin refuses
to start instead of letting something run ungated.
"""

from __future__ import annotations

import temporalio.activity
import temporalio.service
import temporalio.worker._activity as activity_worker
import temporalio.worker._worker as worker
import temporalio.worker._workflow_instance as workflow_worker
from temporalio.worker import WorkerTuner

from exequatur.errors import ConfigurationError

_NEEDED = (
    (workflow_worker._ActivityHandle, ("_resolve_success", "_resolve_failure")),
    (workflow_worker._WorkflowInstanceImpl, ("_convert_payloads", "_make_workflow_input")),
    (temporalio.activity._Context, ("current", "payload_converter")),
    (temporalio.activity._Definition, ("from_callable", "must_from_callable")),
    (worker, ("_warn_if_activity_executor_max_workers_is_inconsistent",)),
    (activity_worker._ThreadExceptionRaiser, ("raise_in_thread", "shielded")),
    (
        WorkerTuner,
        (
            "_get_workflow_task_slot_supplier",
            "_get_activity_task_slot_supplier",
            "_get_local_activity_task_slot_supplier",
            "_get_nexus_slot_supplier",
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

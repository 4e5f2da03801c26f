"""A worker of the reference application, with the plugin: ``python -m workflows.worker --help``."""

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import Worker

from exequatur import AuthorizationPlugin, ExequaturError
from workflows.activities import Operations
from workflows.agent import LedgerMigration, OperationsAgent, RefundCase, RefundDesk
from workflows.ledger import Ledger

READY = "The worker is ready"
_THREADS = 20

logger = logging.getLogger("workflows")


async def serve(options: argparse.Namespace) -> None:
    """Work until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    plugin = AuthorizationPlugin.embedded(options.policies, state_dir=options.state_dir, mode=options.mode)
    client = await Client.connect(options.target, data_converter=pydantic_data_converter, plugins=[plugin])
    ledger = Ledger(options.ledger) if options.ledger.exists() else Ledger.create(options.ledger)
    operations = Operations(ledger, options.exports)
    activities: list[Callable[..., Any]] = [
        operations.refund_order,
        operations.export_customers,
        operations.delete_records,
        operations.migrate_ledger,
    ]
    with ThreadPoolExecutor(_THREADS) as executor:
        async with Worker(
            client,
            task_queue=options.task_queue,
            workflows=[OperationsAgent, RefundDesk, RefundCase, LedgerMigration],
            activities=[] if options.workflows_only else activities,
            activity_executor=executor,
            max_concurrent_activities=_THREADS,
        ):
            logger.info("%s, task queue %s, mode %s", READY, options.task_queue, options.mode)
            await stop.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", default="127.0.0.1:7233", help="host:port of the Temporal server")
    parser.add_argument("--task-queue", default="operations")
    parser.add_argument("--ledger", type=Path, default=Path("ledger.db"), help="the ledger's SQLite file")
    parser.add_argument("--exports", type=Path, default=Path("exports"), help="folder for exported files")
    parser.add_argument("--policies", default="policies", help="folder, bundle file or address")
    parser.add_argument("--state-dir", type=Path, default=Path(".exequatur"))
    parser.add_argument("--mode", choices=("enforce", "observe"), default="enforce")
    parser.add_argument("--workflows-only", action="store_true", help="leave the activities to other workers")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    try:
        asyncio.run(serve(options))
    except (ExequaturError, OSError, RuntimeError) as err:
        print(f"The worker cannot start: {err}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

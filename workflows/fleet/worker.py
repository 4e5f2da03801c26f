"""A worker of the fleet: ``python -m workflows.fleet.worker``. It holds no key but its own; the authority is elsewhere.

Its settings are in the file that ``EXEQUATUR_CONFIG`` names.
"""

import argparse
import asyncio
import logging
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.worker import Worker

from exequatur import AuthorizationPlugin, ExequaturError
from exequatur.identity.sources import TokenFile
from workflows.activities import Operations
from workflows.agent import LedgerMigration, OperationsAgent, RefundCase, RefundDesk
from workflows.ledger import Ledger

READY = "The worker is ready"
_THREADS = 10

logger = logging.getLogger("workflows")


async def serve(options: argparse.Namespace) -> None:
    """Work until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    plugin = AuthorizationPlugin(options.authority, identity=TokenFile(options.token), state_dir=options.state_dir)
    client = await Client.connect(options.target, data_converter=pydantic_data_converter, plugins=[plugin])
    operations = Operations(Ledger(options.ledger), options.exports)
    with ThreadPoolExecutor(_THREADS) as executor:
        async with Worker(
            client,
            task_queue=options.task_queue,
            workflows=[OperationsAgent, RefundDesk, RefundCase, LedgerMigration],
            activities=[
                operations.refund_order,
                operations.export_customers,
                operations.delete_records,
                operations.migrate_ledger,
            ],
            activity_executor=executor,
            max_concurrent_activities=_THREADS,
        ):
            logger.info("%s, task queue %s", READY, options.task_queue)
            await stop.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", required=True, help="host:port of the Temporal server")
    parser.add_argument("--task-queue", required=True)
    parser.add_argument("--authority", required=True, help="URL of the authority service")
    parser.add_argument("--token", type=Path, required=True, help="file with this worker's own token")
    parser.add_argument("--ledger", type=Path, required=True)
    parser.add_argument("--exports", type=Path, required=True)
    parser.add_argument("--state-dir", type=Path, required=True)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        asyncio.run(serve(options))
    except (ExequaturError, OSError, RuntimeError) as err:
        print(f"The worker cannot start: {err}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

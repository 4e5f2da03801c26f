"""Web servers on this machine, each in a thread of its own, for the time of a ``with`` block."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import uvicorn


@contextmanager
def hosting(app: Any) -> Iterator[int]:
    """Serve an ASGI application, and give its port."""
    listening = socket.create_server(("127.0.0.1", 0))
    runner = uvicorn.Server(
        uvicorn.Config(app, log_config=None, lifespan="off", timeout_graceful_shutdown=0, ws="none", http="h11")
    )
    thread = threading.Thread(target=lambda: asyncio.run(runner.serve([listening])), daemon=True)
    thread.start()
    try:
        while not runner.started:
            time.sleep(0.005)
        yield listening.getsockname()[1]
    finally:
        runner.should_exit = True
        thread.join(10)
        listening.close()


@contextmanager
def answering(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Have requests handled, and give the URL of the server."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

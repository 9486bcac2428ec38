"""The server itself, on this computer's own address and no other."""

from __future__ import annotations

import contextlib
import socket
import sys

import uvicorn
from fastapi import FastAPI

from spanseg.errors import SpansegError

HOST = "127.0.0.1"
_BACKLOG = 64
_PATIENCE_S = 10


def listen(port: int = 0) -> socket.socket:
    """Open a port of this computer that other computers cannot reach.

    Args:
        port: its number; 0 for any that is free.

    Raises:
        SpansegError: the port is taken, or may not be used.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if sys.platform != "win32":  # there it would let others take the port over
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen(_BACKLOG)  # a browser that is opened before the server runs has to wait only
    except (OSError, OverflowError) as error:
        listener.close()
        raise SpansegError(f"port {port} cannot be used ({error}); choose another one with --port.") from error
    return listener


def run(app: FastAPI, listener: socket.socket) -> None:
    """Serve until Ctrl-C; requests that are being answered are finished first."""
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,  # addresses hold the token
        server_header=False,
        proxy_headers=False,
        ws="none",
        timeout_graceful_shutdown=_PATIENCE_S,
    )
    with listener, contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listener])

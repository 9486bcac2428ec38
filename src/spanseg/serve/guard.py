"""What stands before every request: who may ask, from where, and how much; and what every answer carries."""

from __future__ import annotations

import hmac
import json
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qs

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MOST_BYTES = 2**20
"""Largest body of a request; a scribble of 10,000 voxels takes a fifth of it."""
_MOST_DRAINED = 64 * MOST_BYTES
TOKEN_HEADER = b"x-spanseg-token"
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self' blob:",
        "worker-src 'self' blob:",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' blob: data:",
        "font-src 'self' data:",
        "connect-src 'self' blob: data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
"""What the page may load: its own files, and blobs that its workers and textures are made of."""
HEADERS = (
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),  # the token is in the address
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)
_log = logging.getLogger("spanseg.serve")


class Guard:
    """Lets through what comes from the page itself, and answers all else with a sentence.

    Args:
        app: what answers requests that may pass.
        token: the secret in the page's address.
        port: of this server.
    """

    def __init__(self, app: App, token: str, port: int) -> None:
        self._app = app
        self._token = token.encode()
        self._hosts = {f"{name}:{port}".encode() for name in ("127.0.0.1", "localhost")}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close"})
            return
        answer = _Answer(send)
        refused = self._refusal(scope)
        if refused is not None:
            await answer.error(403, refused)
            return
        body = await _body(receive)
        if body is None:
            await answer.error(413, f"this request is larger than {MOST_BYTES // 2**20} MB; nothing of it was used.")
            return
        try:
            await self._app(scope, _Replay(body, receive), answer.send)
        except Exception as error:
            _log.exception("a request failed")
            sentence = (
                f"spanseg stopped on an error of its own ({type(error).__name__}); nothing that was clicked is lost."
            )
            await answer.error(500, sentence)

    def _refusal(self, scope: Scope) -> str | None:
        """Why a request may not pass; ``None`` if it may."""
        headers = [(name.lower(), value) for name, value in scope["headers"]]
        hosts = [value for name, value in headers if name == b"host"]
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            return "this server answers to 127.0.0.1 and localhost with its own port only; use the address it printed."
        origins = [value for name, value in headers if name == b"origin"]
        if any(origin.lower() not in {b"http://" + host for host in self._hosts} for origin in origins):
            return "this request came from another site; only the page of this server may ask."
        if scope["path"] != "/" and not scope["path"].startswith("/api"):
            return None  # the page's own files hold no data, and are asked for without the token
        given = [value for name, value in headers if name == TOKEN_HEADER]
        query = parse_qs(scope["query_string"].decode("latin-1"))
        given += [value.encode("utf-8", "replace") for value in query.get("token", [])]
        if not given or not all(hmac.compare_digest(value, self._token) for value in given):
            return "the token is missing or wrong; use the whole address that spanseg printed when it started."
        return None


class _Answer:
    """Sends an answer with the headers that all have."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._started = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._started = True
            message["headers"] = [*message.get("headers", []), *HEADERS]
        await self._send(message)

    async def error(self, status: int, sentence: str) -> None:
        """Answer with one sentence, unless an answer has begun."""
        if self._started:
            return
        body = json.dumps({"error": sentence}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})


class _Replay:
    """Gives the application a body that was read already."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> Message:
        if self._body is None:
            return await self._receive()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}


async def _body(receive: Receive) -> bytes | None:
    """Read the body of a request, announced or in chunks; ``None`` for one that is too large.

    What is too large is read to its end and thrown away, within reason, for a client that is still sending does not
    listen.
    """
    kept, count, more = bytearray(), 0, True
    while more and count <= _MOST_DRAINED:
        message = await receive()
        if message["type"] != "http.request":
            break
        piece = message.get("body", b"")
        count += len(piece)
        if count <= MOST_BYTES:
            kept += piece
        more = message.get("more_body", False)
    return bytes(kept) if count <= MOST_BYTES else None

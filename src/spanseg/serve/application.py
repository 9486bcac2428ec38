"""The application: which address asks the desk for what."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from spanseg import __version__
from spanseg.errors import SpansegError
from spanseg.serve.desk import Desk, RefusedError
from spanseg.serve.guard import Guard
from spanseg.serve.page_files import page_files
from spanseg.serve.wire import API

_KEEP_S = 300.0
_UNKNOWN = {
    404: "there is nothing at this address; see the page for what there is.",
    405: "this address does not take this kind of request.",
}


def application(desk: Desk, token: str, port: int) -> FastAPI:
    """Make the application.

    Args:
        desk: what answers.
        token: the secret in the page's address.
        port: of the server; requests that name another one are refused.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False, lifespan=_living(desk))
    app.add_middleware(Guard, token=token, port=port)
    app.add_exception_handler(SpansegError, _refused)
    app.add_exception_handler(HTTPException, _unknown)
    app.add_api_route("/api/health", _health, methods=["GET"])
    for name, asked in (("cases", desk.cases), ("state", desk.state)):
        app.add_api_route(f"/api/{name}", _told(asked), methods=["GET"])
    for name, drawn in (("image", desk.image), ("labels", desk.labels), ("doubt", desk.doubt)):
        app.add_api_route(f"/api/{name}.nii.gz", _sent(drawn), methods=["GET"])
    doing = (desk.open, desk.prompt, desk.undo, desk.redo, desk.save, desk.export)
    for done in doing:
        app.add_api_route(f"/api/{done.__name__}", _done(done), methods=["POST"])
    _add_page(app)
    return app


def _json(content: dict[str, Any], status: int = 200) -> Response:
    """An answer in ASCII: file names and what the page sends may hold what is no text in UTF-8."""
    return Response(json.dumps(content, allow_nan=False), status, media_type="application/json")


def _add_page(app: FastAPI) -> None:
    files = page_files()
    for path, (content, kind) in files.items():
        app.add_api_route(path, _file(content, kind), methods=["GET"])
    if "/" not in files:
        app.add_api_route("/", _no_page, methods=["GET"])


def _file(content: bytes, kind: str) -> Callable[[], Any]:
    async def send() -> Response:
        return Response(content, media_type=kind)

    return send


async def _no_page() -> Response:
    return _json({"error": "this installation lacks the built page; build it with: make web"}, 404)


async def _health() -> Response:
    return _json({"spanseg": __version__, "api": API})


def _told(ask: Callable[[], dict[str, Any]]) -> Callable[[], Any]:
    async def answer() -> Response:
        return _json(await run_in_threadpool(ask))

    return answer


def _sent(draw: Callable[[], bytes]) -> Callable[[], Any]:
    async def answer() -> Response:
        return Response(await run_in_threadpool(draw), media_type="application/gzip")

    return answer


def _done(act: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[Request], Any]:
    async def answer(request: Request) -> Response:
        return _json(await run_in_threadpool(act, await _body(request)))

    return answer


async def _body(request: Request) -> dict[str, Any]:
    """The JSON object of a request.

    Raises:
        RefusedError: it is something else.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise RefusedError("this server takes JSON only; files are given to 'spanseg serve' when it is started.", 415)
    try:
        found = json.loads(await request.body())
    except (ValueError, RecursionError):
        raise RefusedError("the request is not JSON that can be read.", 400) from None
    if not isinstance(found, dict):
        raise RefusedError("the request is JSON, but not an object {…}.", 400)
    return found


async def _refused(request: Request, error: Exception) -> Response:
    status = error.status if isinstance(error, RefusedError) else 400
    return _json({"error": str(error)}, status)


async def _unknown(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 400
    return _json({"error": _UNKNOWN.get(status, "this request makes no sense here.")}, status)


def _living(desk: Desk) -> Callable[[FastAPI], Any]:
    """What goes on while the server runs: the open session is kept, so that no other process takes it for abandoned."""

    async def keep() -> None:
        while True:
            await asyncio.sleep(_KEEP_S)
            with contextlib.suppress(SpansegError):  # the next click says so
                await run_in_threadpool(desk.keep)

    @contextlib.asynccontextmanager
    async def living(app: FastAPI) -> AsyncIterator[None]:
        keeping = asyncio.create_task(keep())
        yield
        keeping.cancel()

    return living

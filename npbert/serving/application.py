"""The app: paths, keys, origins, bodies that must come in time, and what is said of faults."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive

from npbert import __version__
from npbert.errors import InputError, quote
from npbert.jobs.lines import to_line
from npbert.serving.compatible import COMPATIBLE
from npbert.serving.document import describe_endpoints, describe_server, list_models
from npbert.serving.gate import Gate
from npbert.serving.metrics import CONTENT_TYPE, ServerMetrics
from npbert.serving.page import PAGE_POLICY, page_html
from npbert.serving.questions import Endpoint, task_endpoint
from npbert.serving.service import NOTICE, RefusedError, Reply, Service, logger
from npbert.tasks import find_row
from npbert.tasks.rows import TASKS

DRAINED_BODIES: Final = 16  # times the greatest size: what of a larger body is read before 413
HUNG_UP: Final = 499  # for the metrics; nobody hears it
CLOSE: Final = {"Connection": "close"}  # where the rest of a body is not read

# What went wrong, in text-embeddings-inference's words and in OpenAI's.
ERROR_WORDS: Final[Mapping[int, tuple[str, str]]] = {
    401: ("Unauthorized", "authentication_error"),
    403: ("Forbidden", "permission_error"),
    404: ("NotFound", "invalid_request_error"),
    405: ("NotFound", "invalid_request_error"),
    408: ("Timeout", "invalid_request_error"),
    413: ("Validation", "invalid_request_error"),
    415: ("Validation", "invalid_request_error"),
    422: ("Validation", "invalid_request_error"),
    424: ("Backend", "server_error"),
    429: ("Overloaded", "rate_limit_error"),
    500: ("Backend", "server_error"),
    503: ("Unhealthy", "server_error"),
    504: ("Timeout", "server_error"),
}
FAILED: Final = "the model failed; the server's log says when"
HEADERS: Final = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}

Handler = Callable[[Request], Awaitable[Response]]


def answer_json(
    value: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return a reply of a JSON value, or of its bytes."""
    body = value if isinstance(value, bytes) else to_line(value).encode()
    return Response(body, status, {**HEADERS, **(headers or {})}, "application/json")


def answer_error(refused: RefusedError, *, nested: bool = False) -> Response:
    """Return a reply that says what was wrong, as the endpoint's clients read it."""
    word, openai = ERROR_WORDS[refused.status]
    error: dict[str, Any] = {"error": refused.message, "error_type": word}
    if nested:
        said = {"message": refused.message, "type": openai, "param": None, "code": None}
        error = {"error": said}
    return answer_json(error, refused.status, refused.headers)


class Application:
    """The handlers of all paths.

    Parameters
    ----------
    service : Service
    gate : Gate
    metrics : ServerMetrics
    batching : mapping
        How batches are made, for GET /info.
    """

    def __init__(
        self, service: Service, gate: Gate, metrics: ServerMetrics, batching: Mapping[str, Any]
    ) -> None:
        self.service = service
        self.gate = gate
        self.metrics = metrics
        self.endpoints = [*map(task_endpoint, TASKS.values()), *COMPATIBLE]
        self.info = to_line(describe_server(service, batching)).encode()
        self.document = to_line(describe_endpoints(service, self.endpoints)).encode()
        self.models = to_line(list_models(service, int(time.time()))).encode()
        self.page = page_html(service).encode()

    def list_routes(self) -> list[Route]:
        """Return the paths and what answers them."""
        fixed: list[tuple[str, Callable[[], Response], bool]] = [
            ("/health", lambda: answer_json({"status": "ok", "npbert": __version__}), False),
            ("/ready", lambda: answer_json({"status": "ready"}), False),
            ("/info", lambda: answer_json(self.info), True),
            ("/v1/models", lambda: answer_json(self.models), True),
            ("/openapi.json", lambda: answer_json(self.document), True),
            ("/metrics", lambda: Response(self.metrics.report(), media_type=CONTENT_TYPE), True),
            ("/", self.page_response, False),
        ]
        return [
            *(Route(path, self.guard(path, make, guarded)) for path, make, guarded in fixed),
            *(
                Route(each.path, self.make_handler(each), methods=["POST"])
                for each in self.endpoints
            ),
            Route("/v1/{task}", self.refuse_task, methods=["POST"]),
        ]

    def page_response(self) -> Response:
        """Return the page with a form for each task."""
        headers = {**HEADERS, "Content-Security-Policy": PAGE_POLICY}
        return Response(self.page, headers=headers, media_type="text/html")

    def guard(self, path: str, make: Callable[[], Response], guarded: bool) -> Handler:
        """Return what answers a path that takes no body."""

        async def handle(request: Request) -> Response:
            try:
                if guarded:
                    self.gate.check(request)
            except RefusedError as refused:
                return answer_error(refused)
            return make()

        return handle

    async def refuse_task(self, request: Request) -> Response:
        """Say which task is meant by a name that none has."""
        try:
            self.gate.check(request)
            find_row(request.path_params["task"])
        except RefusedError as refused:
            return answer_error(refused)
        except InputError as error:
            return answer_error(RefusedError(404, str(error), CLOSE))
        raise AssertionError("every task has a path")

    def make_handler(self, endpoint: Endpoint) -> Handler:
        """Return what answers requests at an endpoint."""

        async def handle(request: Request) -> Response:
            began = time.monotonic()
            try:
                reply = await self.answer(endpoint, request, began)
                response = answer_json(reply.body, headers=reply.headers)
            except asyncio.CancelledError:  # the time is over that the server has to end
                refused = RefusedError(503, "the server ends, and had no time to answer", CLOSE)
                response = answer_error(refused, nested=endpoint.nests_errors)
            except RefusedError as refused:
                response = (
                    Response(status_code=HUNG_UP)
                    if refused.status == HUNG_UP
                    else answer_error(refused, nested=endpoint.nests_errors)
                )
            seconds, status = time.monotonic() - began, response.status_code
            self.metrics.requests.labels(endpoint.path, status).inc()
            self.metrics.seconds.labels(endpoint.path).observe(seconds)
            logger.debug("%s %d, %.1f ms", endpoint.path, status, 1000 * seconds)
            return response

        return handle

    async def answer(self, endpoint: Endpoint, request: Request, began: float) -> Reply:
        """Return the reply to a request, however it ends.  Raises RefusedError."""
        try:
            self.gate.check(request)
        except RefusedError as refused:
            refused.headers |= CLOSE
            raise
        check_head(request.headers, self.service.limits.max_body_bytes)
        body = await read_body(request.receive, self.service.limits.max_body_bytes,
                               self.service.limits.body_timeout)  # fmt: skip
        work = asyncio.ensure_future(self.service.answer(endpoint, body))
        gone = asyncio.ensure_future(wait_for_hangup(request.receive))
        self.metrics.taken.inc()
        try:
            left = began + self.service.limits.timeout - time.monotonic()
            await asyncio.wait((work, gone), timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return work.result()
            if gone.done():
                raise RefusedError(HUNG_UP, "")
            raise RefusedError(504, f"there was no answer in {self.service.limits.timeout} seconds")
        except InputError as error:
            raise RefusedError(422, str(error)) from None
        except RefusedError:
            raise
        except Exception as error:
            known = logger.isEnabledFor(10)
            logger.error(
                "%s failed: %s", endpoint.path, type(error).__name__,
                exc_info=error if known else None,
            )  # fmt: skip
            raise RefusedError(endpoint.failure, FAILED) from None
        finally:
            self.metrics.taken.dec()
            for each in (work, gone):
                each.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)


def check_head(headers: Headers, limit: int) -> None:
    """Refuse a body that need not be read to know that it is not wanted.  Raises RefusedError."""
    encoding = headers.get("content-encoding", "identity")
    if encoding.strip().lower() not in ("", "identity"):
        raise RefusedError(
            415, f"Content-Encoding is {quote(encoding)}, but this server reads plain JSON only; "
            "send the body uncompressed", CLOSE,
        )  # fmt: skip
    size = int(headers.get("content-length", "0"))
    # One who sends it all the same hears nothing before that, so what is not much larger is read.
    most = limit if headers.get("expect", "").lower() == "100-continue" else DRAINED_BODIES * limit
    if size > most:
        raise RefusedError(
            413, f"the body has {size} bytes, but this server reads {limit}; send fewer texts at "
            "once", CLOSE,
        )  # fmt: skip


async def read_body(receive: Receive, limit: int, seconds: float) -> bytes:
    """Return the body of a request.  Raises RefusedError for one too large, or too slow."""
    parts: list[bytes] = []
    size, more = 0, True
    try:
        async with asyncio.timeout(seconds):
            while more and size <= DRAINED_BODIES * limit:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise RefusedError(HUNG_UP, "")
                part = message.get("body", b"")
                size, more = size + len(part), message.get("more_body", False)
                if size <= limit:
                    parts.append(part)
                else:
                    parts.clear()
    except TimeoutError:
        raise RefusedError(
            408, f"the body did not come in {seconds:g} seconds, but {size} bytes of it", CLOSE
        ) from None
    if size > limit:
        raise RefusedError(
            413, f"the body has more than {limit} bytes, which is all that this server reads",
            CLOSE if more else {},
        )  # fmt: skip
    return b"".join(parts)


async def wait_for_hangup(receive: Receive) -> None:
    """Return when the caller has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


def make_app(application: Application) -> Starlette:
    """Return the ASGI app."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(application.service.close)

    async def refuse_path(request: Request, error: Exception) -> Response:
        status = getattr(error, "status_code", 404)
        what = f"{request.method} {quote(request.url.path)}"
        message = f"there is no {what} here; GET /openapi.json lists what there is"
        allowed = getattr(error, "headers", None) or {}  # Allow, where the path has other methods
        return answer_error(RefusedError(status, message, {**CLOSE, **allowed}))

    async def report_failure(request: Request, error: Exception) -> Response:
        logger.error("a request failed: %s", type(error).__name__)
        return answer_error(RefusedError(500, FAILED, {**CLOSE}))

    origins = application.gate.origins
    cors = Middleware(
        CORSMiddleware, allow_origins=list(origins), allow_methods=["GET", "POST"],
        allow_headers=["Authorization", "Content-Type"],
        expose_headers=[NOTICE, "Retry-After"],
    )  # fmt: skip
    made = Starlette(
        routes=application.list_routes(), lifespan=lifespan, middleware=[cors] if origins else [],
        exception_handlers={404: refuse_path, 405: refuse_path, 500: report_failure},
    )  # fmt: skip
    made.router.redirect_slashes = False  # to where the Host of a request says
    made.state.service = application.service
    return made

"""The HTTP endpoint: POST /v1/predict, streams that are removed, GET /v1/health and /metrics."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match, Route
from torch import Tensor

from allweather.errors import AllWeatherError, InputError, SettingsError, unknown
from allweather.pictures.enlarge import labels_at
from allweather.serve.access import told
from allweather.serve.answers import as_json, facts, label_png
from allweather.serve.limits import Limits
from allweather.serve.networks import Network
from allweather.serve.pool import BusyError, StoppingError
from allweather.serve.serving import Serving
from allweather.serve.streams import StreamConflictError, Wanted
from allweather.serve.uploads import UploadError, check_name, hold, read_picture
from allweather.session import Result

LOG = logging.getLogger(__name__)
EVERY = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
FIELDS = ("method", "preset", "set", "stream", "network", "answer")
UPLOADS = {"bytes": 413, "pixels": 413, "format": 415, "foreign": 415, "damaged": 422, "name": 400, "folder": 400}
ERRORS: dict[type[AllWeatherError], int] = {
    StoppingError: 503, StreamConflictError: 409, SettingsError: 422, InputError: 422,
}  # fmt: skip
FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "properties": {
                        "image": {"type": "string", "format": "binary", "description": "PNG, JPEG, WebP, BMP or TIFF."},
                        "method": {
                            "type": "string",
                            "description": "A method of the catalogue; default: the server's.",
                        },
                        "preset": {
                            "type": "string",
                            "description": "recommended, paper, or another that the method has.",
                            "default": "recommended",
                        },
                        "set": {
                            "type": "array",
                            "items": {"type": "string"},
                            "description": "FIELD=VALUE of the method; may be given several times.",
                        },
                        "stream": {
                            "type": "string",
                            "description": "Pictures of one name are adapted to one after another, by one session. "
                            "Without it each picture is adapted to on its own.",
                        },
                        "network": {"type": "string", "description": "A network of this server; default: its first."},
                        "answer": {"type": "string", "enum": ["png", "json"], "default": "png"},
                    },
                }
            }
        },
    },
}
ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Labels at the picture's own size: a PNG whose values are classes, or JSON that holds it.",
        "content": {"image/png": {"schema": {"type": "string", "format": "binary"}}, "application/json": {}},
    },
    **{
        status: {"description": text}
        for status, text in {
            400: "No such request.",
            401: "The token is missing or wrong.",
            403: "A page of another site asked.",
            408: "The request took too long to arrive.",
            409: "The stream began with other settings.",
            413: "Too many bytes or pixels.",
            415: "Not a picture alone.",
            421: "The server is not called by that name.",
            422: "A damaged picture, one without a finite prediction, or a setting that is not allowed.",
            429: "Too much is waiting, or too many streams: try again.",
            500: "The server failed: its log says why.",
            503: "The server is being stopped.",
        }.items()
    },
}


def make_router(serving: Serving) -> APIRouter:
    """The routes of the endpoint."""
    streams, metrics = serving.streams, serving.metrics
    router = APIRouter()

    @router.post("/v1/predict", openapi_extra=FORM, responses=ANSWERS, response_class=Response)
    async def predict(request: Request) -> Response:
        """Adapt to a picture and predict it."""
        return await _answered(request, serving)

    @router.delete("/v1/streams/{stream}", responses={404: {"description": "There is no such stream."}})
    async def remove(stream: str) -> dict[str, str]:
        """Forget a stream, and the session that was kept of it."""
        if not await asyncio.to_thread(streams.close, stream):
            raise HTTPException(404, "there is no such stream")
        return {"removed": stream}

    @router.get("/v1/health")
    async def health() -> dict[str, Any]:
        """Whether the server takes requests, and what it serves."""
        return {
            "status": "ok",
            "version": version("allweather"),
            "networks": list(streams.networks.offers),
            "method": serving.method,
            "running": streams.pool.admitted,
            "streams": len(streams),
        }

    @router.get("/metrics", response_class=Response)
    async def counted() -> Response:
        """Counters as Prometheus reads them."""
        return Response(metrics.text(), media_type=metrics.content_type)

    @router.api_route("/v1/{rest:path}", methods=EVERY, include_in_schema=False)
    async def other(request: Request) -> None:  # the page, which takes all that is left, knows nothing of these
        known = [route for route in router.routes if isinstance(route, Route)]
        partly = [route for route in known if route.matches(request.scope)[0] is Match.PARTIAL]
        if not partly:
            raise HTTPException(404, "there is no such thing here: see /docs")
        allowed = ", ".join(sorted({method for route in partly for method in route.methods or ()}))
        raise HTTPException(405, f"expected {allowed}, got {request.method}", {"allow": allowed})

    return router


async def refuse(request: Request, error: Exception) -> Response:
    """The answer to an HTTPException, as those of `/v1/predict` are."""
    assert isinstance(error, HTTPException)
    answer = failure(error.status_code, str(error.detail))
    answer.headers.update(error.headers or {})
    return answer


async def _answered(request: Request, serving: Serving) -> Response:
    allowed, limits = serving.networks.allowed, serving.limits
    try:
        with serving.pool.admission():
            async with _form(request, limits) as form:
                image, name, wanted, stream, answer = await _asked(form, serving.method)
            return await _predicted(serving, (image, name), wanted, stream, answer)
    except UploadError as error:
        serving.metrics.refused.labels(error.reason).inc()
        LOG.warning("refused an upload: %s", error)
        return failure(UPLOADS[error.reason], error, allowed)
    except BusyError as error:
        with suppress(TimeoutError, ClientDisconnect, RuntimeError):  # RuntimeError: the body has been read already
            async with asyncio.timeout(limits.body_seconds):
                async for _ in request.stream():  # one that is cut off while it sends reads no answer
                    pass
        return failure(429, error)
    except AllWeatherError as error:
        status = next((status for kind, status in ERRORS.items() if isinstance(error, kind)), 422)
        return failure(status, error, allowed)
    except TimeoutError:
        return failure(408, f"the request took more than {limits.body_seconds:g} seconds to arrive")
    except ClientDisconnect:
        return failure(400, "the request broke off")
    except HTTPException as error:  # a body that is no form
        return failure(error.status_code, str(error.detail))
    except Exception:
        LOG.exception("a request was not answered")
        return failure(500, "the server failed at this request: its log says why")


async def _predicted(
    serving: Serving, image: tuple[bytes, str], wanted: Wanted, stream: str | None, answer: str
) -> Response:
    size: tuple[int, int] | None = None

    def read(network: Network) -> Tensor:
        nonlocal size
        limits, (content, name) = serving.limits, image
        held = hold(read_picture(content, limits, name), name, network.size, limits)
        size = held.size
        return held.image

    result = await asyncio.wrap_future(await asyncio.to_thread(serving.streams.predict, stream, wanted, read))
    serving.metrics.decisions.labels(result.decision.kind).inc()
    return await asyncio.to_thread(_spelt, result, cast(tuple[int, int], size), answer)


def _spelt(result: Result, size: tuple[int, int], answer: str) -> Response:
    classes = result.classes
    assert classes is not None
    labels = labels_at(result.logits, size)
    if answer == "json":
        return JSONResponse(as_json(result, labels, classes))
    said = facts(result)
    headers = {f"x-allweather-{name}": str(said[name]) for name in ("decision", "iterations", "seconds")}
    return Response(label_png(labels, classes), media_type="image/png", headers=headers)


@asynccontextmanager
async def _form(request: Request, limits: Limits) -> AsyncIterator[FormData]:
    """The request's form; what it laid on the disk is gone afterwards."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        raise HTTPException(400, f"expected multipart/form-data with a file named image, got {kind[:60] or 'nothing'}")
    async with asyncio.timeout(limits.body_seconds):
        form = await request.form(max_files=1, max_fields=64, max_part_size=1 << 16)
    try:
        yield form
    finally:
        await form.close()


async def _asked(form: FormData, method: str) -> tuple[bytes, str, Wanted, str | None, str]:
    """The picture's bytes and name, what is wanted of it, the stream's name, and the kind of answer."""
    image = form.get("image")
    if not isinstance(image, UploadFile):
        raise HTTPException(400, "expected a file named image")
    name = check_name(image.filename or "image")
    for field in form:
        if field not in ("image", *FIELDS):
            raise unknown("field of /v1/predict", field[:60], ["image", *FIELDS])
        if field != "set" and (times := len(form.getlist(field))) > 1:
            raise SettingsError(f"{field}: expected once, came {times} times. Only set may be given several times.")
    texts = {field: value for field in FIELDS if isinstance(value := form.get(field), str) and value}
    answer = texts.get("answer", "png")
    if answer not in ("png", "json"):
        raise unknown("answer", answer[:60], ("png", "json"))
    settings = _settings([text for text in form.getlist("set") if isinstance(text, str) and text])
    wanted = Wanted(texts.get("network", ""), texts.get("method", method), texts.get("preset", "recommended"), settings)
    return await image.read(), name, wanted, texts.get("stream"), answer


def _settings(pairs: list[str]) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for pair in pairs:
        field, equals, value = pair.partition("=")
        if not equals or not field or field in found:
            raise SettingsError(f"set: expected FIELD=VALUE, each field once; got {pair[:60]!r}.")
        found[field] = value
    return found


def failure(status: int, error: AllWeatherError | str, allowed: Path | None = None) -> JSONResponse:
    """An error as JSON, as `told` words it."""
    reason = {"reason": error.reason} if isinstance(error, UploadError) else {}
    headers = {"retry-after": "1"} if status in (429, 503) else None
    text = error if isinstance(error, str) else told(error, allowed)
    return JSONResponse({"error": text, **reason}, status, headers)

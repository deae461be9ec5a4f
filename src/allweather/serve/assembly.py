"""The whole server as one FastAPI application: endpoint, page, downloads, and what is done at its end."""

from importlib.metadata import version
from pathlib import Path
from tempfile import NamedTemporaryFile

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException

from allweather.errors import SettingsError
from allweather.serve.access import Gate, choose_token, is_loopback
from allweather.serve.choosing import choose_method
from allweather.serve.downloads import make_downloads
from allweather.serve.endpoint import make_router, refuse
from allweather.serve.limits import Limits
from allweather.serve.metrics import Counted, Metrics
from allweather.serve.networks import Networks, Offer
from allweather.serve.page import mount_page
from allweather.serve.payloads import LocalFiles
from allweather.serve.pool import Pool
from allweather.serve.room import Room
from allweather.serve.serving import Serving, Started, lifespan
from allweather.serve.streams import Streams
from allweather.serve.uploads_folder import uploads_folder
from allweather.serve.visitor import Visitors

LOCAL = frozenset({"127.0.0.1", "localhost", "::1"})
ABOUT = "Adapts segmentation networks to the weather in front of the camera, without labels."


def build(
    offers: list[Offer],
    *,
    method: str,
    limits: Limits,
    host: str,
    token: str | None,
    allowed: Path | None,
    sessions: Path | None,
    workers: int,
) -> FastAPI:
    """The application; as `allweather.serve.application`.

    Raises:
        SettingsError: as there.
    """
    if not is_loopback(host) and token is None:
        raise SettingsError(
            f"host {host} can be reached from other machines: expected a token of 16 characters or more."
        )
    choose_token(host, token)
    if workers < 1:
        raise SettingsError(f"workers: expected a number above 0, got {workers}.")
    choose_method(method, "recommended", {}, None, limits)  # a misspelt one must not wait for a visitor
    networks = Networks(offers, allowed)
    networks.get()
    _check_place(sessions)
    pool = Pool(workers, limits.waiting)
    streams = Streams(networks, pool, limits, sessions)
    visitors = Visitors(limits, tell=lambda kind: metrics.decisions.labels(kind).inc())
    metrics = Metrics(lambda: pool.admitted, lambda: len(streams), lambda: len(visitors))
    room = Room(limits, uploads_folder())
    serving = Serving(networks, limits, method, pool, streams, visitors, metrics, room)

    app = FastAPIOffline(
        title="allweather",
        version=version("allweather"),
        description=ABOUT,
        redoc_url=None,
        lifespan=lifespan(serving),
    )
    app.state.serving = serving
    app.add_exception_handler(HTTPException, refuse)
    app.include_router(make_router(serving))
    app.include_router(make_downloads(visitors))
    app.add_middleware(LocalFiles, folder=uploads_folder())  # inside the gate
    app.add_middleware(Started, serving=serving)
    app.add_middleware(
        Gate,
        token=token,
        names=LOCAL | {host} if is_loopback(host) else None,
        room=room,
        refused=lambda reason: metrics.refused.labels(reason).inc(),
    )
    app.add_middleware(Counted, metrics=metrics)
    mount_page(app, serving)
    return app


def _check_place(sessions: Path | None) -> None:
    """Refuses a folder that streams could not be saved in, before they have learnt anything; a missing one is made.

    Raises:
        SettingsError: for a file, or a folder that cannot be made or written.
    """
    if sessions is None:
        return
    try:
        sessions.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=sessions) as probe:
            probe.write(b"0")
    except OSError as error:
        raise SettingsError(
            f"--sessions {sessions}: streams cannot be saved there ({error.strerror or error}). Name a folder of yours."
        ) from error

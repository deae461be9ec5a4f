"""A page to see adaptation at work and an HTTP endpoint to use it, in one server; needs the extra `web`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from allweather.errors import optional
from allweather.models.segmenter import Segmenter
from allweather.serve.limits import Limits

if TYPE_CHECKING:
    from fastapi import FastAPI

LIBRARIES = ("fastapi", "fastapi_offline", "gradio", "prometheus_client", "python_multipart", "uvicorn")


def application(
    networks: Segmenter | Mapping[str, Segmenter] | None = None,
    *,
    size: tuple[int, int] | None = None,
    method: str = "mall-domain",
    limits: Limits | None = None,
    host: str = "127.0.0.1",
    token: str | None = None,
    allow_dir: Path | str | None = None,
    sessions: Path | str | None = None,
    workers: int = 1,
) -> FastAPI:
    """The server as an ASGI application, for `uvicorn.run(application(model))` or a larger one of one's own.

    Args:
        networks: a network, or several by the names that visitors choose them by; the first is the default. None
            serves the shipped one, `demo:streetnet`.
        size: (width, height) that pictures are resampled to before the network; None keeps them up to
            `Limits.network_pixels`. Labels come back at the picture's own size.
        method: of the catalogue, where a request names none.
        limits: of bytes, pixels, requests, streams and visitors.
        host: the address that it will listen on: requests by other names than this machine's are refused, and beyond
            this machine a token is needed.
        token: that requests must carry: at least 16 letters, digits, `-`, `.`, `_` and `~`.
        allow_dir: the one folder of the server whose checkpoints and pictures visitors may name.
        sessions: folder where streams' sessions are kept when the server stops; None forgets them. A larger
            application that mounts this one must enter its lifespan then: `app.router.lifespan_context(app)`.
        workers: pictures that are worked on at once.

    Raises:
        MissingLibraryError: without the extra `web`.
        SettingsError: for an unknown method, a size that is none, a token that is too short or has other characters, a
            token that lacks beyond this machine, or no folder.

    Example:
        >>> import allweather as aw
        >>> app = aw.serve.application(aw.load_model("demo:streetnet"))
        >>> app.title
        'allweather'
    """
    check_libraries()
    from allweather.serve.assembly import build
    from allweather.serve.networks import given, shipped

    offers = [shipped()] if networks is None else given(networks, size)
    return build(
        offers,
        method=method,
        limits=limits or Limits(),
        host=host,
        token=token,
        allowed=None if allow_dir is None else Path(allow_dir),
        sessions=None if sessions is None else Path(sessions),
        workers=workers,
    )


def check_libraries() -> None:
    """Refuses to go on without the libraries of the extra `web`.

    Raises:
        MissingLibraryError: with the command that installs them.
    """
    from allweather.serve.uploads_folder import uploads_folder

    uploads_folder()
    for library in LIBRARIES:
        optional(library, "web")


__all__ = ["Limits", "application", "check_libraries"]

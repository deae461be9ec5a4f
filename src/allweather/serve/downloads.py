"""What a visitor takes home: labels, overlay and adapted weights, made when they are asked for, never kept."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
from fastapi import APIRouter, HTTPException, Response

from allweather.errors import AllWeatherError
from allweather.pictures.drawing import overlay_of
from allweather.pictures.enlarge import labels_at
from allweather.pictures.writing import encode_image
from allweather.serve.answers import label_png
from allweather.serve.uploads import Held
from allweather.serve.visitor import Seen, Visitor, Visitors
from allweather.session import Result, Session

TYPES = {".png": "image/png", ".zip": "application/zip"}


def make_downloads(visitors: Visitors) -> APIRouter:
    """The routes under which a visitor's browser fetches files, by the visitor's secret key."""
    router = APIRouter(include_in_schema=False)

    @router.get("/take/{key}/{name}")
    def take(key: str, name: str) -> Response:  # no coroutine: it may take seconds, and runs in a thread
        visitor = visitors.by_key(key)
        made = MADE.get(name)
        if visitor is None or made is None:
            raise HTTPException(404, "there is nothing here any more: go back to the page and start again")
        try:
            content = made(visitor)
        except AllWeatherError as error:
            raise HTTPException(409, str(error)) from error
        kind = TYPES.get(Path(name).suffix, "application/octet-stream")
        return Response(content, media_type=kind, headers={"content-disposition": f'attachment; filename="{name}"'})

    @router.get("/see/{key}/{name}")
    def see(key: str, name: str) -> Response:
        visitor = visitors.by_key(key)
        picture = None if visitor is None or name not in SEEN else SEEN[name](visitor)
        if picture is None:
            raise HTTPException(404, "there is nothing to see")
        content = encode_image(picture, "JPEG", quality=90)
        return Response(content, media_type="image/jpeg", headers={"cache-control": "no-store"})

    return router


def _labels(visitor: Visitor) -> bytes:
    seen = _shown(visitor)
    classes = seen.adapted.classes
    assert classes is not None
    return label_png(labels_at(seen.adapted.logits, seen.picture.size), classes)


def _overlay(visitor: Visitor) -> bytes:
    seen = _shown(visitor)
    return encode_image(_over(seen.picture, seen.picture.drawn, seen.adapted))


def _weights(visitor: Visitor) -> bytes:
    """The adapted network's state dict, as `Session.export` writes it."""
    return _file(visitor, lambda session, path: session.export(path))


def _session(visitor: Visitor) -> bytes:
    """The session, as `Session.save` writes it."""
    return _file(visitor, lambda session, path: session.save(path))


def _file(visitor: Visitor, write: Callable[[Session, Path], None]) -> bytes:
    if (session := visitor.session) is None or visitor.shown is None:
        raise AllWeatherError("nothing has been adapted yet: press Start first.")
    if visitor.at_work:
        raise AllWeatherError("a run is going on: wait until it has ended, or cancel it.")
    with TemporaryDirectory(prefix="allweather-") as folder:
        path = Path(folder) / "adapted.safetensors"
        write(session, path)
        return path.read_bytes()


def _shown(visitor: Visitor) -> Seen:
    if (shown := visitor.shown) is None:
        raise AllWeatherError("nothing has been predicted yet: press Start first.")
    return shown


def _all_labels(visitor: Visitor) -> bytes:
    """The labels of all pictures of the run, each at its own size, as a ZIP file."""
    _shown(visitor)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in list(visitor.kept.items()):
            archive.writestr(name, content)
    return buffer.getvalue()


def _picture(visitor: Visitor) -> np.ndarray | None:
    return pictures[0].at(pictures[0].on_page) if (pictures := visitor.pictures) else None


def _drawn(which: Literal["source", "adapted"]) -> Callable[[Visitor], np.ndarray | None]:
    def draw(visitor: Visitor) -> np.ndarray | None:
        if (shown := visitor.shown) is None:
            return None
        return _over(shown.picture, shown.picture.on_page, getattr(shown, which))

    return draw


def _over(picture: Held, size: tuple[int, int], result: Result) -> np.ndarray:
    """The classes' colors over the picture, at that size."""
    assert result.classes is not None
    return overlay_of(result.logits, picture.at(size), result.classes)


SEEN: dict[str, Callable[[Visitor], np.ndarray | None]] = {
    "picture.jpg": _picture, "source.jpg": _drawn("source"), "adapted.jpg": _drawn("adapted"),
}  # fmt: skip
MADE: dict[str, Callable[[Visitor], bytes]] = {
    "labels.png": _labels, "labels.zip": _all_labels, "overlay.png": _overlay, "adapted.safetensors": _weights,
    "session.safetensors": _session,
}  # fmt: skip

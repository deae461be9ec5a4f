"""What a visitor's browser tells the page's library: it may name its own uploads, no other file and no address.

The library itself checks paths only where it runs the server; mounted as here, it would read any file and fetch any
address.
"""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.responses import JSONResponse

from allweather.errors import SettingsError
from allweather.serve.access import App, Message, Receive, Scope, Send, inside, path_of
from allweather.serve.room import UPLOAD

LOG = logging.getLogger(__name__)
PREFIX = "/gradio_api/"
NEEDED = (  # all that the page asks of the library; it has more, for makers of pages
    "upload", "upload_progress", "run/predict", "queue/join", "queue/data", "cancel", "reset", "heartbeat",
    "startup-events", "info",
)  # fmt: skip


@dataclass(frozen=True)
class LocalFiles:
    """An ASGI application that never hears of a file elsewhere: such a request is refused.

    Attributes:
        app: what lies behind; bodies are bounded by what lies in front.
        folder: where uploads lie.
    """

    app: App
    folder: Path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = path_of(scope)
        if scope["type"] != "http" or not path.startswith(PREFIX) or path == UPLOAD:  # a form, which has no addresses
            await self.app(scope, receive, send)
            return
        asked = path.removeprefix(PREFIX).strip("/")
        if not any(asked == name or asked.startswith(f"{name}/") for name in NEEDED):
            await JSONResponse({"error": "there is no such thing here."}, 404)(scope, receive, send)
            return
        body, more = bytearray(), scope["method"] == "POST"
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        if names_elsewhere(body, self.folder):
            LOG.warning("refused a request of the page: it names a file that was not uploaded")
            await JSONResponse({"error": "a file is named that was not uploaded."}, 403)(scope, receive, send)
            return
        told = scope["method"] != "POST"

        async def again() -> Message:
            nonlocal told
            if told:
                return await receive()
            told = True
            return {"type": "http.request", "body": bytes(body), "more_body": False}

        await self.app(scope, again, send)


def names_elsewhere(body: bytes | bytearray, folder: Path) -> bool:
    """Whether JSON holds, at any depth, a path that does not lie below `folder`; what is no JSON names nothing."""
    try:
        left: list[Any] = [json.loads(body)] if body else []
    except RecursionError:
        return True
    except ValueError:  # the library will say so
        return False
    while left:
        item = left.pop()
        if isinstance(item, dict):
            if "path" in item and not _lies_in(folder, item["path"]):
                return True
            left.extend(item.values())
        elif isinstance(item, list):
            left.extend(item)
    return False


def _lies_in(folder: Path, path: Any) -> bool:
    try:
        return isinstance(path, str) and inside(folder, path) != folder.resolve()
    except SettingsError:
        return False

"""Who may come in, and what may be named: a token beyond this machine, one folder at most."""

import asyncio
import hmac
import ipaddress
import json
import logging
import re
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qs, quote, urlsplit

from allweather.errors import SettingsError
from allweather.serve.room import Body, Room

LOG = logging.getLogger(__name__)
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

COOKIE = "allweather_token"
OPEN = ("/v1/health",)  # what a load balancer asks has no secrets
PATIENCE = 10.0  # seconds that a body which is refused may still take
SHORTEST = 16  # characters of a token
AS_IT_IS = re.compile(r"[A-Za-z0-9._~-]+")  # a token that addresses, headers and cookies leave as it is
POLICY = (  # a browser loads nothing from another machine, whatever a library's page would ask for
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; "
    "worker-src 'self' blob:; object-src 'none'; frame-ancestors 'none'; form-action 'self'; base-uri 'self'"
)
HEADERS = {
    b"content-security-policy": POLICY.encode(),
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
}


def is_loopback(host: str) -> bool:
    """Whether an address or name means this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def choose_token(host: str, given: str | None) -> str | None:
    """The token that requests must carry; a fresh one for an address beyond this machine where none was given.

    Raises:
        SettingsError: for a token that could be guessed, or that an address or a cookie would change.
    """
    if given is not None and len(given) < SHORTEST:
        raise SettingsError(f"the token has {len(given)} characters: expected at least {SHORTEST}.")
    if given is not None and not AS_IT_IS.fullmatch(given):
        raise SettingsError(
            "the token has other characters than letters, digits, '-', '.', '_' and '~', which not every client sends "
            "as they are. Make one of those, such as by `openssl rand -hex 24`."
        )
    if given is None and not is_loopback(host):
        return secrets.token_urlsafe(24)
    return given


def inside(folder: Path, relative: str) -> Path:
    """The path of a file or folder below `folder`, links followed.

    Raises:
        SettingsError: for one that is not there, or lies outside.
    """
    root = folder.resolve()
    try:
        path = (root / relative).resolve(strict=True)
    except (OSError, ValueError, RuntimeError):
        path = root.parent  # said in the same words, so that nobody learns what lies outside
    if path != root and root not in path.parents:
        raise SettingsError(f"{relative[:200]!r}: expected a path inside the folder that this server allows.")
    return path


def told(error: Exception, allowed: Path | None) -> str:
    """What a visitor reads of a failure: paths are relative to the allowed folder, as visitors name them.

    Args:
        allowed: the folder; None where there is none.
    """
    root = "" if allowed is None else str(allowed.resolve())
    if len(root) < 2:  # no folder, or all of them
        return str(error)
    named = rf"{re.escape(root)}(?:[\\/]|(?![\w-]|\.\w))"  # no folder whose name merely begins like it
    return re.sub(named, lambda found: "." if found[0] == root else "", str(error))


def path_of(scope: Scope) -> str:
    """The path as the routes compare it: without the root path of a larger application or a proxy before it."""
    path, root = str(scope.get("path", "")), str(scope.get("root_path", ""))
    below = path.removeprefix(root)
    return below if not below or below.startswith("/") else path  # as Starlette tells them, so that the two agree


@dataclass(frozen=True)
class Gate:
    """An ASGI application behind checks of token, host, origin and length.

    Attributes:
        app: what lies behind.
        token: that requests must carry, as `Authorization: Bearer TOKEN`, a cookie, or once as `?token=TOKEN`.
        names: hosts by which this server may be called; None allows any.
        room: says how many bytes the body of a request may have.
        refused: told in one word why files were.
    """

    app: App
    token: str | None
    names: frozenset[str] | None
    room: Room
    refused: Callable[[str], object]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if refused := self._refused(scope, headers):
            await _refuse(scope, send, *refused)
        elif scope["type"] == "http" and (given := self._given_in_address(scope)):
            await _remember(scope, send, given)
        else:
            await self._pass(scope, receive, send, headers)

    def _refused(self, scope: Scope, headers: dict[str, str]) -> tuple[int, str] | None:
        """Status and reason of a request that is not let in."""
        host = headers.get("host", "")
        if self.names is not None and _split(f"//{host}").hostname not in self.names:
            return 421, "this server is not called by that name"
        origin = headers.get("origin")
        if origin and _split(origin).netloc != host:
            return 403, "a page of another site asked"
        if self.token and path_of(scope) not in OPEN and not self._knows(scope, headers):
            return 401, "expected the server's token: Authorization: Bearer TOKEN, or /?token=TOKEN in a browser"
        return None

    def _knows(self, scope: Scope, headers: dict[str, str]) -> bool:
        kind, _, bearer = headers.get("authorization", "").partition(" ")
        given = [bearer if kind.lower() == "bearer" else "", _cookie(headers), self._given_in_address(scope)]
        return any(hmac.compare_digest(text.encode(), str(self.token).encode()) for text in given)

    def _given_in_address(self, scope: Scope) -> str:
        if not self.token or path_of(scope) != "/":
            return ""
        return parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]

    async def _pass(self, scope: Scope, receive: Receive, send: Send, headers: dict[str, str]) -> None:
        """Lets the request in; it ends with 413 where its body is too long, said or not."""
        length = headers.get("content-length", "")
        said = int(length) if length.isdecimal() and len(length) < 20 else None
        with self.room.body(path_of(scope), said) as body:
            if (said is None and length) or (said or 0) > body.most:
                await self._too_long(scope, receive, send, body)
            else:
                await self._bounded(scope, receive, send, body)

    async def _bounded(self, scope: Scope, receive: Receive, send: Send, body: Body) -> None:
        """Lets the request in, and reads its body as far as its bounds."""
        most, arrived, told = body.most, 0, False

        async def counted() -> Message:
            nonlocal arrived
            body.read = arrived  # whoever asks for more has dealt with what came
            message = await receive()
            arrived += len(message.get("body", b""))
            return {"type": "http.disconnect"} if arrived > most else message

        async def answered(message: Message) -> None:
            nonlocal told
            if arrived > most:
                if not told:
                    told = True
                    await self._too_long(scope, receive, send, body)
                return
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *HEADERS.items()]}
            await send(message)

        await self.app(scope, counted, answered)

    async def _too_long(self, scope: Scope, receive: Receive, send: Send, body: Body) -> None:
        await _drain(receive, 2 * body.limit)
        if body.files is None:
            await _refuse(scope, send, 413, f"expected a body of at most {body.most} bytes")
        else:
            self.refused("bytes")
            await _refuse(scope, send, 413, f"expected files of at most {body.files} bytes", reason="bytes")


async def _drain(receive: Receive, most: int) -> None:
    """Takes what a client still sends, and throws it away: one that is cut off while it sends reads no answer."""
    with suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE):
            while most > 0:
                message = await receive()
                most -= len(message.get("body", b""))
                if not message.get("more_body", False):
                    return


def _split(address: str) -> SplitResult:
    """The address in its parts; an empty one for what is none."""
    try:
        return urlsplit(address)
    except ValueError:
        return urlsplit("")


def _cookie(headers: dict[str, str]) -> str:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found else ""


async def _refuse(scope: Scope, send: Send, status: int, why: str, **more: str) -> None:
    LOG.warning("refused a request for %r: %s", scope["path"][:100], why)
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    body = json.dumps({"error": f"{why}.", **more}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(b"www-authenticate", b"Bearer")] if status == 401 else []
    headers += [(b"connection", b"close")] if status == 413 else []
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *HEADERS.items()]})
    await send({"type": "http.response.body", "body": body})


async def _remember(scope: Scope, send: Send, token: str) -> None:
    """Puts the token into a cookie, and takes it out of the address."""
    root = quote(scope.get("root_path", ""))
    cookie = f"{COOKIE}={token}; HttpOnly; SameSite=Strict; Path={root or '/'}".encode()
    headers = [(b"location", f"{root}/".encode()), (b"set-cookie", cookie), (b"content-length", b"0"), *HEADERS.items()]
    await send({"type": "http.response.start", "status": 303, "headers": headers})
    await send({"type": "http.response.body", "body": b""})

"""Who may speak to the app: the page that it serves itself, from this machine or with its token, and nobody else."""

from __future__ import annotations

import secrets
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

LOOPBACK = ("127.0.0.1", "localhost", "::1")

COOKIE = "token"


class Guard:
    """Refuses requests under another host's name, from pages of other sites, and, if there is a token, without it.

    A page elsewhere could otherwise let a visitor's browser post to this machine (cross-site request forgery), or give
    its own name this machine's address (DNS rebinding).
    """

    def __init__(self, app: ASGIApp, token: str | None):
        self.app, self.token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            refusal = self._refusal(HTTPConnection(scope))
            if refusal:
                await refusal(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _refusal(self, request: HTTPConnection) -> Response | None:
        host = request.headers.get("host", "")
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            name = ""
        if self.token is None and name not in LOOPBACK:
            return PlainTextResponse("This app is for this machine alone: open it as http://127.0.0.1.", 403)
        origin = request.headers.get("origin")
        if origin is not None and origin != f"http://{host}":
            return PlainTextResponse("Pages of other sites may not speak to this app.", 403)
        if request.headers.get("sec-fetch-site", "same-origin") == "cross-site" and request.scope["path"] != "/":
            return PlainTextResponse("Pages of other sites may not speak to this app.", 403)
        if self.token is None or self._matches(request.cookies.get(COOKIE, "")):
            return None
        if self._matches(request.query_params.get(COOKIE, "")):
            answer = RedirectResponse("/", 303)
            answer.set_cookie(COOKIE, self.token, httponly=True, samesite="strict")
            return answer
        return PlainTextResponse("Open the address that the app printed: it has a token in it.", 403)

    def _matches(self, token: str) -> bool:
        return secrets.compare_digest(token.encode(), (self.token or "").encode())

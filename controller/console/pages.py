"""noVNC's files, as Debian's package `novnc` has them. Open to everybody: they show nothing without a token.

Answers carry what keeps a console's URL to itself: no referrer, no guessing of types, and scripts from here only.
"""

import os
from pathlib import Path
from typing import Final

from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PAGE: Final = "vnc_lite.html"

MISSING: Final = (
    b"The console's page is not installed here: the Debian package novnc has it (or set controller.novnc to a folder"
    b" with its files). The websocket in this URL works without it.\n"
)

_POLICY: Final = (
    b"default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline';"
    b" connect-src 'self' ws: wss:; img-src 'self' data:"
)
_HEADERS: Final = (
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", _POLICY),
    (b"cache-control", b"private, max-age=300"),
)


def pages(folder: Path) -> ASGIApp:
    """The application for what is below /console, with that prefix taken off."""
    files: ASGIApp = StaticFiles(directory=folder) if _is_readable(folder / PAGE) else _missing

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *_HEADERS]}
            await send(message)

        try:
            await files(scope, receive, named)
        except HTTPException as error:  # Starlette's way to say 404 and 405.
            await PlainTextResponse(f"{error.detail}\n", error.status_code)(scope, receive, named)

    return answer


def _is_readable(path: Path) -> bool:
    return os.access(path, os.R_OK)


async def _missing(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse(MISSING, 503)(scope, receive, send)

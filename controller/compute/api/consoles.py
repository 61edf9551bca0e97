"""Handlers of consoles: POST /servers/{server_id}/remote-consoles, and the actions that came before it."""

from typing import Any, Final
from urllib.parse import quote, urlsplit

from controller.console import consoles, gate, pages
from controller.errors import Invalid
from controller.http.op import Call

OFFERED: Final = {("vnc", "novnc"): consoles.SCREEN, ("serial", "serial"): consoles.SERIAL}
"""(protocol, type) → the console."""


async def create(call: Call) -> dict[str, Any]:
    """POST /servers/{server_id}/remote-consoles, from 2.6."""
    wanted = call.body.remote_console
    url = await _url(call, wanted.protocol, wanted.type)
    return {"remote_console": {"protocol": wanted.protocol, "type": wanted.type, "url": url}}


async def vnc(call: Call) -> dict[str, Any]:
    """os-getVNCConsole, until 2.5"""
    return {"console": {"type": call.body.type, "url": await _url(call, "vnc", call.body.type)}}


async def serial(call: Call) -> dict[str, Any]:
    """os-getSerialConsole, until 2.5"""
    return {"console": {"type": call.body.type, "url": await _url(call, "serial", call.body.type)}}


async def _url(call: Call, protocol: str, kind: str) -> str:
    """Where a browser finds the page, or, for a serial port, a client its websocket."""
    offered = OFFERED.get((protocol, kind))
    if offered is None:
        raise Invalid(f"Unavailable console type {kind}.")
    token = await consoles.permit(call.cloud, call.ctx, call.params["server_id"], offered)
    public = urlsplit(call.cloud.settings.controller.public_url.rstrip("/"))
    socket = f"{public.path}{gate.SOCKET}?token={token}"
    if offered == consoles.SERIAL:
        return f"{'wss' if public.scheme == 'https' else 'ws'}://{public.netloc}{socket}"
    page = f"{public.scheme}://{public.netloc}{public.path}{gate.PREFIX}/{pages.PAGE}"
    return f"{page}?path={quote(socket.removeprefix('/'), safe='')}"

"""Consoles from the request to the first frame: a real listener, a real host channel with a guest that is not there."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import msgspec
import pytest
import sqlalchemy as sa

from agent.channel import HostChannel
from agent.wire.errors import Failed, NotFound
from agent.wire.world import SystemClock, SystemEntropy, World
from controller.__main__ import _server
from controller.authority import Authority
from controller.channel import Channel
from controller.compute import store
from controller.compute.api.routes import SERVICE
from controller.compute.model import PowerState
from controller.compute.store import Guest
from controller.console import consoles, gate
from controller.db.tables.console import console_token
from controller.db.tx import Tx
from controller.http.app import build
from controller.identity.api.routes import SERVICE as IDENTITY
from drivers.hypervisor import fake_console
from tests.agent.identities import a_host
from tests.controller.compute import rows
from tests.controller.compute.cloud import ComputeCloud, compute_cloud
from tests.rfb import Viewer
from tests.websocket import Refused, Websocket, of_page

pytestmark = pytest.mark.timeout(60)

SERVER_ID = "11111111-1111-4111-8111-111111111111"
VNC = {"remote_console": {"protocol": "vnc", "type": "novnc"}}
SERIAL = {"remote_console": {"protocol": "serial", "type": "serial"}}


class Stand:
    """A cloud with one server on one host that has a channel."""

    def __init__(self, cloud: ComputeCloud, url: str) -> None:
        self.cloud, self.url = cloud, url
        self.is_off = False
        self.channel: HostChannel

    async def ask(self, body: Any = VNC, **options: Any) -> httpx.Response:
        return await self.cloud.call("POST", f"/servers/{SERVER_ID}/remote-consoles", json=body, **options)

    async def page(self, body: Any = VNC) -> str:
        reply = await self.ask(body)
        assert reply.status_code == 200, reply.text
        return str(reply.json()["remote_console"]["url"])

    async def connect(self, **options: Any) -> Websocket:
        return await opened(of_page(await self.page()), **options)

    async def screen(self, domain_id: str) -> socket.socket:
        if self.is_off:
            raise Failed(f"domain {domain_id} is off; it has no screen")
        assert domain_id == SERVER_ID
        return fake_console.screen("a guest")

    async def no_image(self, sha256: str) -> str:
        raise NotFound(f"there is no image {sha256}")

    async def serial(self, domain_id: str) -> socket.socket:
        return fake_console.serial("login: ")


async def opened(url: str, **options: Any) -> Websocket:
    return await asyncio.to_thread(Websocket, url, **options)


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Stand]:
    novnc = tmp_path / "novnc"
    (novnc / "core").mkdir(parents=True)
    (novnc / "vnc_lite.html").write_text("<title>noVNC</title>")
    (novnc / "core" / "rfb.js").write_text("export default class RFB {}")
    (tmp_path / "secret").write_text("not to be read")
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    async with compute_cloud(tmp_path, runs=False) as made, asyncio.TaskGroup() as tasks:
        cloud = made.api.cloud
        own = msgspec.structs.replace(cloud.settings.controller, public_url=url, novnc=str(novnc))
        cloud.settings = msgspec.structs.replace(cloud.settings, controller=own)
        stand = Stand(made, url)
        server = rows.a_server(
            SERVER_ID, project_id=made.project_id, vm_state="active", task_state=None, host_id="h1", host_name="h1"
        )
        await made.write(store.insert, server, [], Guest(None, None), ())
        authority, world = (
            Authority(tmp_path / "real", time.time()),
            World(SystemClock(), SystemEntropy(), cloud.world.threads),
        )
        cloud.channel = Channel("127.0.0.1:1", world, authority)
        files = a_host(authority, tmp_path / "h1", "h1", time.time())
        tunnels = {"vnc": stand.screen, "serial": stand.serial}
        channel = HostChannel(world, "127.0.0.1:0", files, images=stand.no_image, disks=stand.no_image, tunnels=tunnels)
        stand.channel = channel
        app = build(cloud, (IDENTITY, SERVICE), mounts={gate.PREFIX: gate.Gate(cloud)})
        api = _server(cloud.settings, app)
        running = [tasks.create_task(channel.run()), tasks.create_task(api.serve(sockets=[listener]))]
        await api.ready.wait()
        while (door := channel.door()) is None:
            await asyncio.sleep(0.01)
        made.hosts.doors["h1"] = door
        yield stand
        api.should_exit = True
        running[0].cancel()
        await running[1]


async def test_the_printed_page_leads_to_a_frame(stand: Stand) -> None:
    url = await stand.page()
    async with httpx.AsyncClient() as browser:
        page = await browser.get(url)
        assert page.status_code == 200 and "noVNC" in page.text
        assert page.headers["referrer-policy"] == "no-referrer"
    screen = await opened(of_page(url), origin=stand.url)
    frame = await asyncio.to_thread(lambda: Viewer(screen).frame())
    assert (frame.width, frame.height) == (fake_console.WIDTH, fake_console.HEIGHT)
    assert frame.colours() > 1
    await asyncio.to_thread(screen.close)


async def test_the_serial_port_is_a_websocket_too(stand: Stand) -> None:
    serial = await opened(await stand.page(SERIAL), subprotocols=("binary",))
    assert serial.subprotocol == "binary"
    assert await asyncio.to_thread(serial.receive) == b"login: "
    serial.send(b"root\n")
    assert await asyncio.to_thread(serial.receive) == b"root\n"
    serial.close()


async def test_a_token_opens_one_console_once(stand: Stand) -> None:
    url = of_page(await stand.page())
    screen = await opened(url)
    with pytest.raises(Refused, match="not valid any more"):
        await opened(url)
    screen.close()
    for bad in ("", "x" * 5000, "../..", "%00", "x" + "&a=b" * 50):
        with pytest.raises(Refused, match="403"):
            await opened(f"{stand.url.replace('http', 'ws', 1)}{gate.SOCKET}?token={bad}")


async def test_a_token_ends_with_its_time(stand: Stand) -> None:
    url = of_page(await stand.page())
    stand.cloud.api.clock.time += consoles.LIFE_S + 1
    with pytest.raises(Refused, match="403"):
        await opened(url)


async def test_a_token_ends_when_the_server_is_another(stand: Stand) -> None:
    """A rebuild, a reboot, another host: whoever got the URL asks for a new one."""
    for changes in ({"generation": store.NEXT_GENERATION}, {"host_id": None}, {"deleted_at": 1.0}):
        url = of_page(await stand.page())
        await stand.cloud.write(store.change, SERVER_ID, changes)
        with pytest.raises(Refused, match="403"):
            await opened(url)
        await stand.cloud.write(store.change, SERVER_ID, {"host_id": "h1", "deleted_at": None})


async def test_another_sites_page_gets_nothing(stand: Stand) -> None:
    for origin in ("https://evil.example", "null", "http://127.0.0.1", f"{stand.url}.evil.example"):
        with pytest.raises(Refused, match="own page"):
            await stand.connect(origin=origin)
    (await stand.connect(origin=stand.url)).close()


async def test_only_hashes_of_tokens_are_kept(stand: Stand) -> None:
    (token,) = parse_qs(urlsplit(of_page(await stand.page())).query)["token"]

    def rows_of(tx: Tx) -> list[Any]:
        return [tuple(row) for row in tx.execute(sa.select(console_token))]

    kept = await stand.cloud.api.cloud.db.read(rows_of)
    assert kept and token not in str(kept)


async def test_a_host_that_is_away_is_said_so(stand: Stand) -> None:
    url = of_page(await stand.page())
    stand.cloud.hosts.doors.clear()
    with pytest.raises(Refused, match="503"):
        await opened(url)


async def test_a_guest_that_went_off_meanwhile_has_no_screen(stand: Stand) -> None:
    stand.is_off = True
    with pytest.raises(Refused, match="503"):
        await stand.connect()


async def test_when_the_guest_ends_the_console_does(stand: Stand) -> None:
    near, far = socket.socketpair()

    async def screen(domain_id: str) -> socket.socket:
        return near

    stand.channel._tunnels = {"serial": screen}
    serial = await opened(await stand.page(SERIAL))
    far.sendall(b"x")
    assert await asyncio.to_thread(serial.receive) == b"x"
    far.close()
    assert await asyncio.to_thread(serial.receive) == b""


async def test_a_removed_hosts_consoles_end(stand: Stand) -> None:
    serial = await stand_serial(stand)
    for callback in stand.cloud.api.cloud.enrollment._on_removed:
        callback("another")
    serial.send(b"x")
    assert await asyncio.to_thread(serial.receive) == b"x"
    for callback in stand.cloud.api.cloud.enrollment._on_removed:
        callback("h1")
    assert await asyncio.to_thread(serial.receive) == b""


async def stand_serial(stand: Stand) -> Websocket:
    serial = await opened(await stand.page(SERIAL))
    assert await asyncio.to_thread(serial.receive) == b"login: "
    return serial


async def test_when_the_client_hangs_up_the_screen_is_let_go(stand: Stand) -> None:
    near, far = socket.socketpair()

    async def screen(domain_id: str) -> socket.socket:
        return near

    stand.channel._tunnels = {"serial": screen}
    serial = await opened(await stand.page(SERIAL))
    serial.send(b"x")
    far.settimeout(20)
    assert await asyncio.to_thread(far.recv, 10) == b"x"
    serial.close()
    assert await asyncio.to_thread(far.recv, 10) == b""


async def test_what_has_no_console_says_why(stand: Stand) -> None:
    for changes, why in (
        ({"power_state": PowerState.SHUTDOWN}, "powered off"),
        ({"host_id": None}, "not ready"),
    ):
        await stand.cloud.write(store.change, SERVER_ID, changes)
        reply = await stand.ask()
        assert (reply.status_code, why in reply.text) == (409, True), reply.text
        await stand.cloud.write(store.change, SERVER_ID, {"host_id": "h1", "power_state": PowerState.RUNNING})


async def test_kinds_that_there_are_not_are_refused(stand: Stand) -> None:
    for protocol, kind, version, status in (
        ("vnc", "xvpvnc", "2.6", 400),
        ("spice", "spice-html5", "2.6", 400),
        ("vnc", "serial", "2.8", 400),
        ("mks", "webmks", "2.8", 400),
        ("mks", "webmks", "2.6", 400),
        ("vnc", "novnc", "2.5", 404),
        ("vnc", "novnc", "2.6", 200),
    ):
        reply = await stand.ask({"remote_console": {"protocol": protocol, "type": kind}}, version=version)
        assert reply.status_code == status, (protocol, kind, version, reply.text)


async def test_older_clients_ask_by_an_action(stand: Stand) -> None:
    reply = await stand.cloud.act(SERVER_ID, "os-getVNCConsole", {"type": "novnc"}, version="2.1")
    assert reply.json()["console"]["url"].startswith(f"{stand.url}/console/vnc_lite.html?path=")
    reply = await stand.cloud.act(SERVER_ID, "os-getSerialConsole", {"type": "serial"}, version="2.1")
    assert reply.json()["console"]["url"].startswith("ws://")
    assert (await stand.cloud.act(SERVER_ID, "os-getVNCConsole", {"type": "novnc"}, version="2.6")).status_code == 400
    assert (await stand.cloud.act(SERVER_ID, "os-getVNCConsole", {"type": "xvpvnc"}, version="2.1")).status_code == 400


async def test_nobody_elses_console_is_shown(stand: Stand) -> None:
    _, _, other = await stand.cloud.api.a_member(stand.cloud.admin, "other")
    assert (await stand.ask(token=other)).status_code == 404
    _, _, reader = await stand.cloud.api.a_member(stand.cloud.admin, "reader", "reader")
    assert (await stand.ask(token=reader)).status_code == 403


async def test_tokens_that_nobody_uses_are_bounded(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consoles, "OPEN_MAX", 2)
    assert [(await stand.ask()).status_code for _ in range(3)] == [200, 200, 409]
    stand.cloud.api.clock.time += consoles.LIFE_S + 1
    assert (await stand.ask()).status_code == 200


async def test_open_consoles_are_bounded(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "OF_SERVER_MAX", 1)
    first = await stand.connect()
    with pytest.raises(Refused, match="Too many"):
        await stand.connect()
    first.close()


async def test_the_pages_show_nothing_but_novnc(stand: Stand) -> None:
    async with httpx.AsyncClient(base_url=stand.url) as browser:
        assert (await browser.get("/console/core/rfb.js")).status_code == 200
        for path in ("/console/", "/console/core", "/console/../secret", "/console/%2e%2e/secret", "/console/none"):
            assert (await browser.get(path)).status_code == 404, path
        assert (await browser.post("/console/vnc_lite.html")).status_code == 405
        assert (await browser.head("/console/vnc_lite.html")).status_code == 200
    for elsewhere in ("/", "/console/elsewhere", "/compute/v2.1/servers"):
        with pytest.raises((Refused, OSError)):
            await opened(stand.url.replace("http", "ws", 1) + elsewhere)


async def test_without_novnc_the_page_says_what_is_missing(tmp_path: Path) -> None:
    async with compute_cloud(tmp_path, runs=False) as made:
        cloud = made.api.cloud
        own = msgspec.structs.replace(cloud.settings.controller, novnc=str(tmp_path / "nothing"))
        cloud.settings = msgspec.structs.replace(cloud.settings, controller=own)
        app = build(cloud, (IDENTITY, SERVICE), mounts={gate.PREFIX: gate.Gate(cloud)})
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as browser:
            reply = await browser.get("/console/vnc_lite.html")
            assert (reply.status_code, "novnc" in reply.text) == (503, True)

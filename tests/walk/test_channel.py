"""What travels over host channels, with two hosts and real guests: consoles in a browser, images from a neighbour."""

import json
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.rfb import Viewer
from tests.walk import client
from tests.walk.client import OpenStack
from tests.walk.cloud import Cloud, eventually
from tests.walk.leftovers import leftovers
from tests.websocket import Refused, Websocket, of_page

IMAGE = "hostler-tiny"


@pytest.fixture(scope="module")
def openstack(pair: Cloud) -> OpenStack:
    return client.openstack(pair)


@pytest.fixture(scope="module")
def holder(pair: Cloud) -> str:
    """The host of the server `first`, which is made of the image."""
    (server,) = pair.admin().get("/compute/v2.1/servers/detail?name=^first$&all_tenants=1")["servers"]
    return str(server["OS-EXT-SRV-ATTR:host"])


@pytest.fixture(scope="module")
def other(pair: Cloud, holder: str) -> str:
    """The host where nothing is."""
    (found,) = set(pair.trial.hosts) - {holder}
    return found


@pytest.fixture(scope="module", autouse=True)
def pair_left_as_it_was(pair: Cloud, other: str) -> Iterator[None]:
    """A first guest makes folders and rows that stay; after it, everything is as it was."""
    with a_server(pair, "first-there", other):
        pass
    with leftovers(pair):
        yield


# Consoles.


def test_the_printed_url_leads_to_the_guests_screen(pair: Cloud, openstack: OpenStack) -> None:
    shown = openstack.show("console", "url", "show", "--novnc", "first")
    assert (shown["protocol"], shown["type"]) == ("vnc", "novnc")
    with urllib.request.urlopen(shown["url"], timeout=10) as page:
        assert b"core/rfb.js" in page.read()
    with urllib.request.urlopen(f"{pair.trial.api_url}/console/core/rfb.js", timeout=10) as script:
        assert b"class RFB" in script.read()
    screen = Websocket(of_page(shown["url"]), origin=pair.trial.api_url)
    try:
        viewer = Viewer(screen)
        assert viewer.name.startswith("QEMU (instance-")
        frame = viewer.until(lambda frame: frame.colours() > 1, lambda: time.sleep(1.0))
        assert frame.width * frame.height > 100_000
    finally:
        screen.close()
    with pytest.raises(Refused, match="not valid any more"):
        Websocket(of_page(shown["url"]))


def test_another_sites_page_does_not_get_the_screen(openstack: OpenStack) -> None:
    url = of_page(openstack.show("console", "url", "show", "--novnc", "first")["url"])
    with pytest.raises(Refused, match="own page"):
        Websocket(url, origin="https://evil.example")


def test_the_serial_port_answers(openstack: OpenStack) -> None:
    shown = openstack.show("console", "url", "show", "--serial", "first")
    serial = Websocket(shown["url"])
    try:
        heard = b""

        def prompt() -> bool:
            nonlocal heard
            serial.send(b"\n")
            heard += serial.receive()
            return b"login:" in heard

        eventually("the guest's prompt", prompt)
    finally:
        serial.close()


def test_no_host_listens_for_screens(pair: Cloud) -> None:
    for host in pair.trial.hosts:
        ports = {line.split()[3].rpartition(":")[2] for line in pair.inside("ss", "-Hltn", host=host).splitlines()}
        assert not {port for port in ports if 5900 <= int(port) < 6000}, ports
        assert "5444" in ports


# Images.


def test_a_neighbour_gives_the_image_and_a_second_boot_needs_no_transfer(pair: Cloud, holder: str, other: str) -> None:
    forget(pair, other)
    before = fetches(pair)
    with a_server(pair, "near", other):
        pass
    new = fetches(pair)[len(before) :]
    assert [(one["host"], one["last"].split("/")[2]) for one in new] == [(other, channel_of(pair, holder))]
    with a_server(pair, "again", other):
        pass
    assert fetches(pair)[len(before) :] == new, "the second boot fetched nothing"


def test_a_neighbour_whose_copy_is_damaged_is_not_believed(pair: Cloud, holder: str, other: str) -> None:
    forget(pair, other)
    (path,) = (pair.trial.agent_folder(holder) / "images").glob("*.qcow2")
    honest = path.read_bytes()
    try:
        path.write_bytes(honest[:-1000] + bytes(byte ^ 0xFF for byte in honest[-1000:]))
        before = fetches(pair)
        with a_server(pair, "wary", other):
            pass
        (one,) = fetches(pair)[len(before) :]
        assert one["last"].split("/")[2] == f"{pair.trial.underlay_address(0)}:{pair.trial.channel_port}"
    finally:
        path.write_bytes(honest)


def test_what_is_in_use_is_not_evicted(pair: Cloud, other: str) -> None:
    with a_server(pair, "needy", other):
        listed = pair.hostler("image-cache", "list")
        assert "in use" in listed and IMAGE in listed
        said = pair.hostler("image-cache", "evict", IMAGE, "--host", other, "--force", ok=False)
        assert "in use" in said
    assert "may be about to use it" in pair.hostler("image-cache", "evict", IMAGE, "--host", other, ok=False)
    forget(pair, other)
    assert not list((pair.trial.agent_folder(other) / "images").glob("*.qcow2"))


class a_server:  # noqa: N801 - reads as a statement.
    """A server on one host, while it is needed."""

    def __init__(self, pair: Cloud, name: str, host: str) -> None:
        self._pair, self._name, self._host = pair, name, host
        self._id = ""

    def __enter__(self) -> str:
        admin = self._pair.admin()
        (image,) = admin.get(f"/image/v2/images?name={IMAGE}")["images"]
        wanted = {"name": self._name, "imageRef": image["id"], "flavorRef": "42", "networks": "none"}
        body = {"server": {**wanted, "host": self._host}}
        self._id = admin.post("/compute/v2.1/servers", body, "compute 2.74")["server"]["id"]
        eventually("the server runs", lambda: status(self._pair, self._id) == "ACTIVE")
        return self._id

    def __exit__(self, *_: object) -> None:
        self._pair.admin().delete(f"/compute/v2.1/servers/{self._id}")
        eventually("the server is gone", lambda: status(self._pair, self._id) is None)


def status(pair: Cloud, server_id: str) -> str | None:
    try:
        server = pair.admin().get(f"/compute/v2.1/servers/{server_id}")["server"]
    except Exception as error:
        assert getattr(error, "status", 0) == 404, error
        return None
    assert server["status"] != "ERROR", server
    return str(server["status"])


def forget(pair: Cloud, host: str) -> None:
    """The image is not in that host's cache."""

    def is_gone() -> bool:
        caches = pair.admin().get("/operator/v1/image-cache")["hosts"]
        (cache,) = [one for one in caches if one["hostname"] == host]
        if not cache["images"]:
            return True
        if not any(one["is_used"] for one in cache["images"]):
            pair.hostler("image-cache", "evict", IMAGE, "--host", host, "--force")
        return False

    eventually("the image leaves the cache", is_gone)


def fetches(pair: Cloud) -> list[dict[str, Any]]:
    """Images that hosts have fetched, by their logs."""
    logs = {host: pair.trial.folder / "logs" / f"agent-{host}.log" for host in pair.trial.hosts}
    lines = [(host, line) for host, log in logs.items() for line in log.read_text().splitlines()]
    found = [{"host": host, **json.loads(line)} for host, line in lines if '"image fetched"' in line]
    return sorted(found, key=lambda one: one["timestamp"])


def channel_of(pair: Cloud, host: str) -> str:
    return f"{pair.space_of(host).address}:5444"

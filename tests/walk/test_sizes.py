"""A server with a real guest gets another size on another host, and goes back, or stays."""

import time
from typing import Any

import pytest

from controller.cli.api import ApiError
from tests.walk.cloud import Cloud, eventually
from tests.walk.test_two_hosts import COMPUTE, host_of, inside, left_of, shown

MEMORY = ("awk", "'/MemTotal/ {print $2}'", "/proc/meminfo")


def asked(pair: Cloud, server_id: str, body: dict[str, Any], wanted: str) -> None:
    """As the user; until the server has that status and rests."""
    began = time.monotonic()
    pair.demo().post(f"{COMPUTE}/servers/{server_id}/action", body)

    def probe() -> bool:
        found = shown(pair, server_id)
        if found["status"] == "ERROR":
            pytest.fail(f"{body}: {found.get('fault')}")
        return bool(found["OS-EXT-STS:task_state"] is None and found["status"] == wanted)

    eventually(f"{body} done", probe)
    print(f"{next(iter(body))}: {time.monotonic() - began:.1f} s")


def emptied(pair: Cloud, host: str) -> None:
    """It takes no new server."""
    pair.admin().put(f"{COMPUTE}/os-services/disable", {"host": host, "binary": "nova-compute"})


def flavor(pair: Cloud, name: str) -> str:
    return next(str(one["id"]) for one in pair.demo().get(f"{COMPUTE}/flavors")["flavors"] if one["name"] == name)


def test_a_resize_leaves_a_host_that_is_emptied_and_comes_back_to_the_disk_that_stayed(pair: Cloud) -> None:
    first = pair.server_id("first")
    before, address = host_of(pair, first), pair.floating_address(first)
    inside(pair, address, "rm -f later; echo kept > kept; sync")
    memory = int(inside(pair, address, *MEMORY))
    tiny, nano = flavor(pair, "m1.tiny"), flavor(pair, "m1.nano")
    emptied(pair, before)
    try:
        asked(pair, first, {"resize": {"flavorRef": tiny}}, "VERIFY_RESIZE")
        there = host_of(pair, first)
        assert there != before
        assert inside(pair, address, "cat", "kept").strip() == "kept"
        assert int(inside(pair, address, *MEMORY)) > memory + 100_000
        eventually("just the disk stays", lambda: left_of(pair, before, first) == [f"{first}-root.qcow2"])
        with pytest.raises(ApiError, match="while it is in vm_state resized"):
            pair.demo().post(f"{COMPUTE}/servers/{first}/action", {"resize": {"flavorRef": nano}})
        inside(pair, address, "echo lost > later; sync")
        asked(pair, first, {"revertResize": None}, "ACTIVE")
        assert host_of(pair, first) == before
        eventually("nothing is left", lambda: not left_of(pair, there, first))
        assert inside(pair, address, "ls").split() == ["kept"]
        assert int(inside(pair, address, *MEMORY)) < memory + 100_000
    finally:
        pair.hostler("host", "enable", before)


def test_a_confirmed_resize_leaves_nothing_on_the_host_where_it_was(pair: Cloud) -> None:
    first = pair.server_id("first")
    before, address = host_of(pair, first), pair.floating_address(first)
    inside(pair, address, "echo kept > kept; sync")
    emptied(pair, before)
    try:
        asked(pair, first, {"resize": {"flavorRef": flavor(pair, "m1.tiny")}}, "VERIFY_RESIZE")
        asked(pair, first, {"confirmResize": None}, "ACTIVE")
        assert host_of(pair, first) != before
        eventually("nothing is left", lambda: not left_of(pair, before, first))
        assert inside(pair, address, "cat", "kept").strip() == "kept"
    finally:
        pair.hostler("host", "enable", before)

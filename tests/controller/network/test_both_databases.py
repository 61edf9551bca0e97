"""The API on either database: the usual steps, then every filter and every sort key of every collection."""

import pytest

from controller.network.api import floating_ips, groups, networks, ports, routers, subnets
from controller.network.api.lists import Listed
from tests.controller.network.cloud import Api, a_cloud, a_routed_port
from tests.databases import AnyDatabase

COLLECTIONS: dict[str, Listed] = {
    "networks": networks.LISTED,
    "subnets": subnets.LISTED,
    "ports": ports.LISTED,
    "routers": routers.LISTED,
    "floatingips": floating_ips.LISTED,
    "security-groups": groups.LISTED,
    "security-group-rules": groups.RULES_LISTED,
}


async def test_every_list_can_be_filtered_and_sorted_by_all_it_offers(database: AnyDatabase) -> None:
    api = Api(a_cloud(database))
    external, _, port = await a_routed_port(api)
    await api.make("floatingips", floating_network_id=external["id"], port_id=port["id"])
    for path, what in COLLECTIONS.items():
        caller = api.as_("admin")
        everything = await caller.get(f"/{path}")
        assert everything
        for number, key in enumerate(what.sortable):
            await _sorted(caller, path, f"sort_key={key}&sort_dir={('asc', 'desc')[number % 2]}", len(everything))
        for key in what.filters:
            await _filtered(caller, path, key, everything)


async def _sorted(caller: Api, path: str, order: str, count: int) -> None:
    """Pages of one forwards, and back from the end, are the whole list."""
    whole = await caller.get(f"/{path}?{order}")
    assert len(whole) == count
    first = await caller.get(f"/{path}?{order}&limit=1")
    assert first + await caller.get(f"/{path}?{order}&marker={first[0]['id']}") == whole, (path, order)
    back = await caller.get(f"/{path}?{order}&limit=1&page_reverse=true&marker={whole[-1]['id']}")
    assert back == whole[-2:-1], (path, order)


async def _filtered(caller: Api, path: str, key: str, everything: list[dict[str, object]]) -> None:
    """What an object shows finds it; what no object shows finds nothing, or is a 400."""
    shown = next((one[key] for one in everything if one.get(key) not in (None, [], {})), None)
    if isinstance(shown, list):
        shown = shown[0] if not isinstance(shown[0], dict) else f"ip_address={shown[0].get('ip_address')}"
    if shown is not None and not isinstance(shown, dict):
        assert await caller.get(f"/{path}?{key}={shown}"), (path, key, shown)
    for odd in ("nothing", "0", "99999999999999"):
        answer = await caller("GET", f"/{path}?{key}={odd}")
        assert answer.status in (200, 400), (path, key, odd, answer.body)


@pytest.mark.parametrize("path", sorted(COLLECTIONS))
async def test_empty_filters_mean_empty_values(path: str) -> None:
    api = Api(a_cloud())
    await a_routed_port(api)
    everything = await api.get(f"/{path}")
    described = await api.get(f"/{path}?description=")
    assert described == [one for one in everything if one["description"] == ""]

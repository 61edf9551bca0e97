"""Addresses: what is given, what is refused, and that nobody gets what another has."""

import ipaddress
import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.db.tx import Tx
from controller.errors import CloudError
from controller.network import addresses, networks, subnets, user_ports
from controller.network.addresses import Pool
from controller.network.errors import IpAddressGenerationFailure
from controller.network.model import Fixed, Port
from controller.network.store import ports as port_store
from tests.controller.network.cloud import DEMO, a_context
from tests.databases import AnyDatabase, memory_database, race

NOW = 1_800_000_000.0


def a_standard(object_id: str) -> dict[str, Any]:
    return {"id": object_id, "project_id": DEMO, "created_at": NOW, "updated_at": NOW}


def a_small_network(tx: Tx, cidr: str = "10.0.0.0/28", *, enable_dhcp: bool = False) -> None:
    networks.create(tx, [networks.Draft(**a_standard("net"))])
    draft = subnets.Draft(
        **a_standard("sub"), network_id="net", ip_version=4, cidr=cidr, enable_dhcp=enable_dhcp, gateway=None
    )
    subnets.create(tx, [draft], NOW)


def a_port(tx: Tx, port_id: str, fixed: tuple[Fixed, ...] | None = None) -> Port:
    draft = user_ports.Draft(**a_standard(port_id), network_id="net", fixed_ips=fixed)
    (made,) = user_ports.create(tx, a_context("demo"), [draft], NOW)
    return made


async def test_fifty_at_once_get_fourteen_addresses_and_no_one_two(database: AnyDatabase) -> None:
    await database.write(a_small_network)
    outcomes = await race(50, lambda i: database.write(a_port, f"p{i}"))
    made = [one for one in outcomes if isinstance(one, Port)]
    refused = [one for one in outcomes if not isinstance(one, Port)]
    assert len(made) == 14, {str(one)[:300] for one in refused}
    assert len({one.fixed_ips[0].ip_address for one in made}) == 14
    assert {type(one) for one in refused} == {IpAddressGenerationFailure}


async def test_one_of_ten_gets_the_address_that_all_ask_for(database: AnyDatabase) -> None:
    await database.write(a_small_network)
    wanted = (Fixed(subnet_id="", ip_address="10.0.0.9"),)
    outcomes = await race(10, lambda i: database.write(a_port, f"p{i}", wanted))
    assert sum(isinstance(one, Port) for one in outcomes) == 1
    assert all(isinstance(one, Port | CloudError) for one in outcomes), outcomes


async def test_ten_networks_at_once_have_ten_segments(database: AnyDatabase) -> None:
    def a_network(tx: Tx, network_id: str) -> int:
        return networks.create(tx, [networks.Draft(**a_standard(network_id))])[0].segment

    outcomes = await race(10, lambda i: database.write(a_network, f"n{i}"))
    assert sorted(outcomes) == list(range(1, 11))  # type: ignore[type-var]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.one_of(st.none(), st.integers(0, 15), st.integers(-20, -1)), max_size=40))
def test_any_order_of_giving_and_taking_back_keeps_addresses_distinct_and_uses_them_all(
    steps: list[int | None],
) -> None:
    """None: any address; 0 to 15: that one; negative: delete some port."""
    database = memory_database(lambda: NOW)

    def play(tx: Tx) -> None:
        a_small_network(tx)
        held: dict[str, str] = {}
        for number, step in enumerate(steps):
            if step is not None and step < 0:
                if held:
                    port_id = sorted(held)[step % len(held)]
                    user_ports.delete(tx, port_id, None, NOW)
                    del held[port_id]
                continue
            wanted = None if step is None else (Fixed(subnet_id="sub", ip_address=f"10.0.0.{step}"),)
            try:
                address = a_port(tx, f"p{number:02}", wanted).fixed_ips[0].ip_address
            except CloudError:
                taken = set(held.values())
                edges = {"10.0.0.0", "10.0.0.15"}
                assert (len(held) == 14) if step is None else f"10.0.0.{step}" in taken | edges
                _remove_half_made(tx, f"p{number:02}")
                continue
            assert address not in held.values()
            assert ipaddress.ip_address(address) in ipaddress.ip_network("10.0.0.0/28")
            held[f"p{number:02}"] = address

    database.build(play)


def _remove_half_made(tx: Tx, port_id: str) -> None:
    """What the end of the transaction would have undone."""
    port_store.delete(tx, port_id)


@given(
    st.integers(2, 30).flatmap(
        lambda length: st.tuples(st.just(length), st.integers(0, 2**length - 1), st.integers(0, 2**32 - 2**length))
    ),
    st.booleans(),
)
def test_default_pools_are_every_usable_address_but_the_gateway(drawn: tuple[int, int, int], has_gateway: bool) -> None:
    size_bits, offset, base = drawn
    cidr = ipaddress.ip_network((base >> size_bits << size_bits, 32 - size_bits))
    low, high = addresses.usable(cidr)
    gateway = cidr[offset] if has_gateway and int(low) <= int(cidr[offset]) <= int(high) else None
    pools = addresses.default_pools(cidr, gateway)
    count = sum(int(last) - int(first) + 1 for first, last in pools)
    assert count == int(high) - int(low) + 1 - (gateway is not None)
    assert not any(_has(pool, gateway) for pool in pools)
    addresses.checked_pools(cidr, gateway, [(str(first), str(last)) for first, last in pools])


def _has(pool: Pool, gateway: addresses.Address | None) -> bool:
    return gateway is not None and int(pool[0]) <= int(gateway) <= int(pool[1])


@given(st.lists(st.tuples(st.integers(0, 260), st.integers(0, 260)), min_size=1, max_size=5), st.integers(1, 254))
def test_pools_are_accepted_exactly_when_they_fit(pairs: list[tuple[int, int]], gateway_at: int) -> None:
    cidr = ipaddress.ip_network("10.0.0.0/24")
    base = int(cidr.network_address)
    gateway = cidr[gateway_at]
    texts = [(str(ipaddress.ip_address(base + low)), str(ipaddress.ip_address(base + high))) for low, high in pairs]
    ordered = sorted(pairs)
    fits = all(1 <= low <= high <= 254 for low, high in pairs)
    is_apart = all(one[1] < other[0] for one, other in itertools.pairwise(ordered))
    is_clear = not any(low <= gateway_at <= high for low, high in pairs)
    try:
        found = addresses.checked_pools(cidr, gateway, texts)
    except CloudError:
        assert not (fits and is_apart and is_clear)
    else:
        assert fits and is_apart and is_clear
        assert [(int(low) - base, int(high) - base) for low, high in found] == ordered


@pytest.mark.parametrize("text", ["10.0.0.1/24", "10.0.0.0", "fe80::1%eth0/64", "x", "10.0.0.0/33", "", "1/8"])
def test_a_cidr_with_host_bits_or_without_length_is_none(text: str) -> None:
    with pytest.raises(CloudError):
        addresses.parsed_cidr("cidr", text)


@pytest.mark.parametrize("text", ["fa:16:3e:00:00:0g", "01:00:5e:00:00:01", "00:00:00:00:00:00", "fa:16:3e", "\n"])
def test_a_mac_that_no_port_can_have_is_refused(text: str) -> None:
    with pytest.raises(CloudError):
        addresses.parsed_mac("mac_address", text)


def test_slaac_addresses_follow_from_the_mac() -> None:
    cidr = ipaddress.ip_network("2001:db8::/64")
    assert str(addresses.eui64(cidr, "fa:16:3e:01:02:03")) == "2001:db8::f816:3eff:fe01:203"

"""Interfaces that come to servers and go from them."""

from typing import TYPE_CHECKING, Any, Final

import msgspec

from controller.compute import powers, store
from controller.compute.model import Event, Nic, Server
from controller.compute.sagas.interface_attach import ATTACH_INTERFACE, InterfaceParams, leave
from controller.compute.sagas.interface_detach import DETACH_INTERFACE
from controller.context import Context
from controller.db.tx import Tx
from controller.errors import Conflict, Forbidden, Invalid, NotFound
from controller.network import ports
from controller.network.ports import Wanted

if TYPE_CHECKING:
    from controller.cloud import Cloud

NICS_MAX: Final = 32
"""Interfaces of one server, however they came."""


class WantedInterface(msgspec.Struct, frozen=True, kw_only=True):
    """A port of the user's, or one to be made: on that network, or on the one that there is."""

    port_id: str | None = None
    network_id: str | None = None
    fixed_ip: str | None = None
    tag: str | None = None


async def attach(cloud: "Cloud", ctx: Context, server_id: str, wanted: WantedInterface) -> str:
    """Accept one; the id of its port. Raises Invalid, Forbidden, OverQuota, NotFound, Conflict."""
    uuid = cloud.world.entropy.uuid
    ids = (uuid(), uuid())
    port_id: str = await cloud.db.write(_attach, ctx, server_id, wanted, ids, cloud.world.clock.now())
    cloud.sagas.kick(ids[0])
    return port_id


def _attach(tx: Tx, ctx: Context, server_id: str, wanted: WantedInterface, ids: tuple[str, str], now: float) -> str:
    server = store.take(tx, powers.ready(tx, ctx, server_id), Event.ATTACH_INTERFACE, now)
    known = store.nics(tx, server_id)
    if len(known) >= NICS_MAX:
        raise Forbidden(f"A server has at most {NICS_MAX} interfaces.")
    saga_id, new_id = ids
    network_id = _network(tx, ctx, wanted)
    port_id, is_ours = wanted.port_id or new_id, wanted.port_id is None
    bound = _bind(tx, server, wanted, (port_id, is_ours, network_id), now)
    position = max((nic.position for nic in known), default=-1) + 1
    addresses: list[str] = bound["fixed_ips"]
    # Without a MAC it is no part of the domain yet: the saga wires the port first.
    row = Nic(server_id, position, port_id, is_ours, network_id, None, [], wanted.tag, None, None, addresses)
    store.insert_nic(tx, row)
    params = _params(ctx, server, row, bound["mac"], bound["mtu"])
    powers.run(tx, ctx, server, "attach_interface", ATTACH_INTERFACE, params, saga_id)
    return port_id


def _network(tx: Tx, ctx: Context, wanted: WantedInterface) -> str:
    """The network of the new interface. Raises Invalid, NotFound, Conflict, OverQuota."""
    asked = wanted.network_id
    if wanted.port_id is None and asked is None:
        known = ports.default_networks(tx, ctx)
        if not known:
            raise Invalid(f"No network is available for project {ctx.project}: name a port or a network.")
        asked = known[0]
    one = Wanted(port_id=wanted.port_id, network_id=asked, fixed_ip=wanted.fixed_ip)
    return ports.check_requested(tx, ctx, [one])[0]


def _bind(tx: Tx, server: Server, wanted: WantedInterface, port: tuple[str, bool, str], now: float) -> dict[str, Any]:
    port_id, is_ours, network_id = port
    assert server.host_id is not None, "checked before"
    return ports.bind_for_server(
        tx,
        port_id=port_id,
        created=is_ours,
        network_id=network_id,
        fixed_ip=wanted.fixed_ip,
        groups_wanted=[],
        project_id=server.project_id,
        server_id=server.id,
        hostname=server.hostname,
        host_id=server.host_id,
        zone=server.availability_zone or "",
        now=now,
    )


def _params(ctx: Context, server: Server, nic: Nic, mac: str, mtu: int) -> InterfaceParams:
    return InterfaceParams(
        **powers.params_of(ctx, server),
        port_id=nic.port_id,
        is_ours=nic.is_ours,
        mac=mac,
        mtu=mtu,
        addresses=tuple(nic.addresses),
    )


async def detach(cloud: "Cloud", ctx: Context, server_id: str, port_id: str) -> None:
    """Accept that one goes. Raises NotFound, Conflict."""
    saga_id = cloud.world.entropy.uuid()
    await cloud.db.write(_detach, ctx, server_id, port_id, saga_id, cloud.world.clock.now())
    cloud.sagas.kick(saga_id)


def _detach(tx: Tx, ctx: Context, server_id: str, port_id: str, saga_id: str, now: float) -> None:
    server = powers.ready(tx, ctx, server_id)
    nic = next((one for one in store.nics(tx, server_id) if one.port_id == port_id), None)
    if nic is None:
        raise NotFound(f"Port {port_id} could not be found on instance {server_id}.")
    after = store.take(tx, server, Event.DETACH_INTERFACE, now)
    if nic.mac is None or nic.mtu is None:
        raise Conflict(f"Port {port_id} is on its way to instance {server_id}, or from it.")
    params = _params(ctx, after, nic, nic.mac, nic.mtu)
    if not leave(tx, params):
        raise Conflict(f"Instance {server_id} is being deleted.")
    powers.run(tx, ctx, after, "detach_interface", DETACH_INTERFACE, params, saga_id)

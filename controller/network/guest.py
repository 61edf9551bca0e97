"""network_data.json: what cloud-init in a guest reads about its interfaces."""

import ipaddress
from collections.abc import Container
from typing import Any

from controller.db.tx import Tx
from controller.network.model import Network, Port, Subnet
from controller.network.ports import of_servers
from controller.network.store import networks, subnets


def network_data(tx: Tx, server_id: str, port_ids: Container[str]) -> dict[str, Any]:
    """The document for these of a server's ports, in their order (OpenStack's network_data.json format)."""
    found = [one for one in of_servers(tx, [server_id]) if one.id in port_ids]
    network_ids = {one.network_id for one in found}
    known = {one.id: one for one in networks.some(tx, network_ids)}
    return render(found, known, {one.id: one for one in subnets.of_networks(tx, network_ids)})


def render(found: list[Port], known: dict[str, Network], parts: dict[str, Subnet]) -> dict[str, Any]:
    """Pure."""
    links: list[dict[str, Any]] = []
    described: list[dict[str, Any]] = []
    services: list[dict[str, str]] = []
    for one in found:
        link_id = f"tap{one.id[:11]}"
        mtu = known[one.network_id].mtu
        link = {"id": link_id, "vif_id": one.id, "type": "bridge", "mtu": mtu, "ethernet_mac_address": one.mac_address}
        links.append(link)
        for fixed in one.fixed_ips:
            part = parts[fixed.subnet_id]
            described.append(_network(f"network{len(described)}", link_id, one.network_id, part, fixed.ip_address))
            services += [{"type": "dns", "address": server} for server in part.dns_nameservers]
    unique = list({service["address"]: service for service in services}.values())
    return {"links": links, "networks": described, "services": unique}


def _network(name: str, link_id: str, network_id: str, part: Subnet, address: str) -> dict[str, Any]:
    base = {"id": name, "link": link_id, "network_id": network_id}
    cidr = ipaddress.ip_network(part.cidr)
    if part.enable_dhcp:
        kind = "ipv4_dhcp" if part.ip_version == 4 else f"ipv6_{part.ipv6_address_mode or 'dhcpv6-stateful'}"
        return {**base, "type": kind}
    routes = [_route(route.destination, route.nexthop) for route in part.host_routes]
    if part.gateway_ip:
        routes.append(_route("0.0.0.0/0" if part.ip_version == 4 else "::/0", part.gateway_ip))
    kind = f"ipv{part.ip_version}"
    return {**base, "type": kind, "ip_address": address, "netmask": str(cidr.netmask), "routes": routes}


def _route(destination: str, nexthop: str) -> dict[str, str]:
    target = ipaddress.ip_network(destination)
    return {"network": str(target.network_address), "netmask": str(target.netmask), "gateway": nexthop}

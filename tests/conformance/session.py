"""What people write with openstacksdk, from an empty project to an empty one. Run by the environment that has the SDK.

    python session.py CLOUDS_YAML       prints a line a claim: `ok NAME`, or `FAILED NAME: why`

The claims build on each other in the order of the file: later ones use what earlier ones made, as a session does.
"""

import hashlib
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openstack
from openstack import exceptions

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ me"
WAIT_S = 60

CLAIMS: list[Callable[["Stage"], None]] = []


class Stage:
    """Two users of one cloud and what they have made so far."""

    def __init__(self) -> None:
        self.demo = openstack.connect(cloud="hostler")
        self.admin = openstack.connect(cloud="hostler-admin")
        self.made: dict[str, Any] = {}

    def server(self) -> Any:
        """The server, read anew."""
        return self.demo.get_server_by_id(self.made["server"].id)

    def until(self, status: str) -> None:
        """Wait for the server's status."""
        server = self.demo.compute.get_server(self.made["server"].id)
        self.demo.compute.wait_for_server(server, status, wait=WAIT_S, interval=0.3)


def claim(function: Callable[[Stage], None]) -> Callable[[Stage], None]:
    """One line of the outcome."""
    CLAIMS.append(function)
    return function


def same(found: Any, expected: Any) -> None:
    """An assertion that says both."""
    assert found == expected, f"{found!r} is not {expected!r}"


@claim
def an_image_is_uploaded_found_changed_and_read_back(stage: Stage) -> None:
    demo, data = stage.demo, os.urandom(70_000)
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        meta = {"os_distro": "debian"}
        made = demo.create_image(
            "sdk", filename=file.name, disk_format="raw", container_format="bare", wait=True, tags=["x"], meta=meta
        )
    stage.made["image"] = made
    shown = demo.get_image("sdk")
    same((shown.status, shown.checksum, shown.size), ("active", hashlib.md5(data).hexdigest(), len(data)))
    same(demo.image.download_image(made.id, stream=False).content, data)
    demo.image.update_image(made.id, name="sdk2", min_ram=64)
    demo.image.add_tag(made.id, "blue")
    demo.update_image_properties(made, arch="x")
    changed = demo.get_image("sdk2")
    same((changed.min_ram, sorted(changed.tags)), (64, ["blue", "x"]))
    demo.image.deactivate_image(made.id)
    demo.image.reactivate_image(made.id)
    same([one.id for one in demo.image.images(name="sdk2", size_min=1)], [made.id])


@claim
def a_network_of_both_families_is_routed_and_changed_in_place(stage: Stage) -> None:
    demo = stage.demo
    stage.made["external"] = demo.get_external_networks()[0]
    network = stage.made["network"] = demo.create_network("sdk", mtu_size=1400)
    pools = [{"start": "10.1.0.10", "end": "10.1.0.100"}]
    four = demo.create_subnet("sdk", cidr="10.1.0.0/24", subnet_name="four", enable_dhcp=True, allocation_pools=pools)
    slaac = {"ipv6_ra_mode": "slaac", "ipv6_address_mode": "slaac"}
    six = demo.create_subnet("sdk", cidr="fd00:7::/64", ip_version=6, subnet_name="six", enable_dhcp=True, **slaac)
    router = stage.made["router"] = demo.create_router("sdk", ext_gateway_net_id=stage.made["external"].id)
    for subnet in (four, six):
        demo.add_router_interface(router, subnet_id=subnet.id)
    same(len(demo.list_router_interfaces(router, "internal")), 2)
    routes = [{"destination": "10.9.0.0/16", "nexthop": "10.1.0.50"}]
    same(demo.update_router("sdk", routes=routes).routes, routes)
    same(demo.update_router("sdk", routes=[]).routes, [])
    same(demo.network.update_router(router, external_gateway_info={}).external_gateway_info, None)
    again = demo.network.update_router(router, external_gateway_info={"network_id": stage.made["external"].id})
    same(again.external_gateway_info["network_id"], stage.made["external"].id)
    servers = ["1.1.1.1", "9.9.9.9"]
    wider = [{"start": "10.1.0.10", "end": "10.1.0.200"}]
    changed = demo.network.update_subnet(four, dns_nameservers=servers, allocation_pools=wider)
    same((changed.dns_nameservers, changed.allocation_pools), (servers, wider))
    same(demo.network.update_subnet(four, dns_nameservers=[]).dns_nameservers, [])
    same(demo.network.update_network(network, description="d", mtu=1300).mtu, 1300)


@claim
def a_group_gets_rules_loses_them_and_is_renamed(stage: Stage) -> None:
    demo = stage.demo
    group = stage.made["group"] = demo.create_security_group("sdk", "of the session")
    rule = demo.create_security_group_rule("sdk", 22, 22, "tcp", "0.0.0.0/0")
    try:
        demo.network.create_security_group_rule(
            security_group_id=group.id, direction="ingress", protocol="tcp", port_range_min=22, port_range_max=22,
            remote_ip_prefix="0.0.0.0/0",
        )  # fmt: skip
    except exceptions.ConflictException:
        pass
    else:
        raise AssertionError("the same rule twice")
    demo.create_security_group_rule("sdk", protocol="icmp")
    demo.create_security_group_rule("sdk", 443, 443, "tcp", "fd00::/8", ethertype="IPv6")
    demo.create_security_group_rule("sdk", 80, 81, "tcp", remote_group_id=group.id)
    assert demo.delete_security_group_rule(rule.id)
    demo.update_security_group("sdk", name="sdk2", description="still")
    same(len(demo.get_security_group("sdk2").security_group_rules), 5)


@claim
def a_flavor_is_made_for_one_project(stage: Stage) -> None:
    admin, demo = stage.admin, stage.demo
    flavor = stage.made["flavor"] = admin.create_flavor("sdk", 128, 1, 1, is_public=False)
    same(demo.get_flavor("sdk"), None)
    admin.set_flavor_specs(flavor.id, {"a:b": "c"})
    admin.unset_flavor_specs(flavor.id, ["a:b"])
    admin.add_flavor_access(flavor.id, demo.current_project_id)
    same(demo.get_flavor("sdk").id, flavor.id)


@claim
def a_server_is_created_with_everything_in_one_call(stage: Stage) -> None:
    demo = stage.demo
    demo.create_keypair("sdk", KEY)
    assert demo.create_keypair("sdk-made").private_key
    stage.made["server"] = demo.create_server(
        "sdk", image="sdk2", flavor="m1.nano", network="sdk", key_name="sdk", security_groups=["sdk2"],
        userdata="#!/bin/sh\ntrue", meta={"a": "b"}, description="d", auto_ip=True, wait=True, timeout=WAIT_S,
    )  # fmt: skip
    server = stage.server()
    same((server.status, server.key_name, dict(server.metadata)), ("ACTIVE", "sdk", {"a": "b"}))
    same(server.private_v4.rpartition(".")[0], "10.1.0")
    same(len(demo.list_floating_ips()), 1)
    same(server.public_v4, demo.list_floating_ips()[0].floating_ip_address)


@claim
def a_server_is_found_and_changed_in_place(stage: Stage) -> None:
    demo, server_id = stage.demo, stage.made["server"].id
    same([one.name for one in demo.search_servers("sd*")], ["sdk"])
    same([one.id for one in demo.compute.servers(status="ACTIVE", name="^sdk$")], [server_id])
    demo.set_server_metadata(server_id, {"k": "v"})
    demo.delete_server_metadata(server_id, ["a"])
    demo.update_server(server_id, name="sdk2", description="other")
    same((stage.server().name, dict(stage.server().metadata)), ("sdk2", {"k": "v"}))
    same([group["name"] for group in demo.list_server_security_groups(server_id)], ["sdk2"])
    demo.add_server_security_groups(server_id, ["default"])
    demo.remove_server_security_groups(server_id, ["default"])
    same([group["name"] for group in demo.list_server_security_groups(server_id)], ["sdk2"])
    interfaces = list(demo.compute.server_interfaces(server_id))
    same(len(interfaces[0].fixed_ips), 2)


@claim
def a_server_is_stopped_started_rebooted_locked_and_tells_its_actions(stage: Stage) -> None:
    demo, server_id = stage.demo, stage.made["server"].id
    demo.compute.stop_server(server_id)
    stage.until("SHUTOFF")
    demo.compute.start_server(server_id)
    stage.until("ACTIVE")
    demo.compute.reboot_server(server_id, "HARD")
    stage.until("ACTIVE")
    demo.compute.lock_server(server_id, locked_reason="why")
    assert demo.compute.get_server(server_id).is_locked
    demo.compute.unlock_server(server_id)
    actions = {one.action: one for one in demo.compute.server_actions(server_id)}
    assert {"create", "stop", "start", "reboot"} <= set(actions), set(actions)
    assert demo.compute.get_server_action(actions["create"].request_id, server_id).events
    assert demo.get_server_console(server_id)
    tail = demo.compute.get_server_console_output(server_id, length=2)["output"]
    same(len(tail.split("\n")), 2)  # As Nova counts: what follows the last line break is a line.


@claim
def floating_ips_move_and_idle_ones_are_swept(stage: Stage) -> None:
    demo, server = stage.demo, stage.server()
    old = demo.search_floating_ips(filters={"floating_ip_address": server.public_v4})[0]
    idle = demo.create_floating_ip(stage.made["external"].name)
    same(demo.available_floating_ip(stage.made["external"].name).id, idle.id)
    assert demo.detach_ip_from_server(server.id, old.id)
    demo.add_ip_list(stage.server(), [idle.floating_ip_address], wait=True, timeout=WAIT_S)
    same(stage.server().public_v4, idle.floating_ip_address)
    same(demo.delete_unattached_floating_ips(), 1)
    port = demo.create_port(stage.made["network"].id, name="sdk", fixed_ips=[{"ip_address": "10.1.0.77"}])
    demo.update_port(port.id, name="sdk2", security_groups=[], allowed_address_pairs=[{"ip_address": "10.1.0.78"}])
    on_port = demo.create_floating_ip(stage.made["external"].name, port=port.id)
    same((on_port.fixed_ip_address, on_port.status), ("10.1.0.77", "ACTIVE"))
    assert demo.delete_floating_ip(on_port.id)
    assert demo.delete_port(port.id)


@claim
def a_given_port_outlives_its_server_and_several_servers_are_one_call(stage: Stage) -> None:
    demo = stage.demo
    port = demo.create_port(stage.made["network"].id, name="given")
    named = {"image": "sdk2", "flavor": "m1.nano", "auto_ip": False}
    demo.create_server("sdk-port", nics=[{"port-id": port.id}], wait=True, timeout=WAIT_S, **named)
    assert demo.delete_server("sdk-port", wait=True, timeout=WAIT_S)
    kept = demo.get_port(port.id)
    same((kept.device_id, kept.mac_address), ("", port.mac_address))
    assert demo.delete_port(port.id)
    demo.create_server("sdk-two", network="sdk", min_count=2, max_count=2, wait=False, **named)
    two = demo.search_servers("sdk-two-*")
    same(sorted(one.name for one in two), ["sdk-two-1", "sdk-two-2"])
    for one in two:
        assert demo.delete_server(one.id, wait=True, timeout=WAIT_S)


@claim
def quotas_are_set_read_and_reset(stage: Stage) -> None:
    admin, demo = stage.admin, stage.demo
    default = demo.get_compute_limits().max_total_instances
    admin.set_compute_quotas("demo", instances=5)
    same(demo.get_compute_limits().max_total_instances, 5)
    same(demo.get_compute_limits().total_instances_used, 1)
    admin.delete_compute_quotas("demo")
    same(demo.get_compute_limits().max_total_instances, default)
    admin.set_network_quotas("demo", network=7)
    same(admin.get_network_quotas("demo", details=True).networks["limit"], 7)
    admin.delete_network_quotas("demo")


@claim
def a_domain_with_people_is_made_used_and_removed(stage: Stage) -> None:
    admin = stage.admin
    domain = admin.create_domain("sdk")
    project = admin.create_project("sdk", domain.id)
    user = admin.create_user("sdk", domain_id=domain.id, password="pw", email="a@b")
    group = admin.create_group("sdk", "of the session", domain=domain.id)
    admin.add_user_to_group(user.id, group.id)
    assert admin.is_user_in_group(user.id, group.id)
    admin.create_role("sdk")
    admin.grant_role("sdk", user=user.id, project=project.id)
    admin.grant_role("member", group=group.id, project=project.id)
    same(len(admin.list_role_assignments({"user": user.id})), 1)
    place = {"username": "sdk", "password": "pw", "user_domain_name": "sdk", "project_domain_name": "sdk"}
    auth_url, region = admin.config.auth["auth_url"], admin.config.region_name
    theirs = openstack.connect(auth_url=auth_url, region_name=region, project_name="sdk", **place)
    same((theirs.current_project.name, theirs.list_servers()), ("sdk", []))
    admin.update_user(user.id, email="c@d")
    admin.update_project(project.id, description="z")
    admin.revoke_role("sdk", user=user.id, project=project.id)
    admin.remove_user_from_group(user.id, group.id)
    for done in (admin.delete_user(user.id), admin.delete_group(group.id), admin.delete_project(project.id)):
        assert done
    admin.update_domain(domain.id, enabled=False)
    admin.delete_domain(domain.id)
    admin.delete_role("sdk")


@claim
def an_operator_sees_hosts_services_and_everybodys_servers(stage: Stage) -> None:
    admin = stage.admin
    assert {one.state for one in admin.list_hypervisors()} == {"up"}
    assert "nova-compute" in {one.binary for one in admin.compute.services()}
    assert stage.made["server"].id in {one.id for one in admin.list_servers(all_projects=True)}
    assert admin.compute.get_server(stage.made["server"].id).compute_host


@claim
def everything_goes_and_a_second_delete_says_so(stage: Stage) -> None:
    demo, made = stage.demo, stage.made
    assert demo.delete_server(made["server"].id, wait=True, timeout=WAIT_S, delete_ips=True)
    same((demo.list_servers(), demo.list_floating_ips()), ([], []))
    for name in ("four", "six"):
        demo.remove_router_interface(made["router"], subnet_id=demo.get_subnet(name).id)
    assert demo.delete_router("sdk")
    assert demo.delete_network("sdk")
    assert demo.delete_security_group("sdk2")
    assert demo.delete_image("sdk2", wait=True, timeout=WAIT_S)
    for name in ("sdk", "sdk-made"):
        assert demo.delete_keypair(name)
    assert stage.admin.delete_flavor("sdk")
    same((demo.delete_server("sdk2"), demo.delete_router("sdk"), demo.delete_keypair("sdk")), (False, False, False))
    same([one.name for one in demo.list_networks()], [made["external"].name])


def main(clouds_yaml: str) -> int:
    """All claims; the rest of the session is told even when one fails."""
    os.environ["OS_CLIENT_CONFIG_FILE"] = clouds_yaml
    stage, failed = Stage(), 0
    for function in CLAIMS:
        try:
            function(stage)
        except Exception as error:  # Whatever the SDK makes of an answer is the outcome.
            failed += 1
            here = [one for one in traceback.extract_tb(error.__traceback__) if one.filename == __file__][-1]
            print(f"FAILED {function.__name__}: line {here.lineno}: {type(error).__name__}: {error}", flush=True)
        else:
            print(f"ok {function.__name__}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(1 if main(str(Path(sys.argv[1]).absolute())) else 0)

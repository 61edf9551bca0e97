"""Security groups, their rules, and quotas through the API; what rules mean."""

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from controller.errors import CloudError
from controller.network import groups
from controller.network.intent import render_group
from controller.network.model import Group, Rule
from drivers.network.filter import rule_text
from tests.controller.network.cloud import DEMO, OTHER, Api, a_cloud, a_network


@pytest.fixture
def api() -> Api:
    return Api(a_cloud())


async def test_the_default_group_is_there_from_the_first_look_and_stays(api: Api) -> None:
    (default,) = await api.get("/security-groups")
    found = {
        (rule["direction"], rule["ethertype"], rule["remote_group_id"]) for rule in default["security_group_rules"]
    }
    assert found == {
        ("egress", "IPv4", None),
        ("egress", "IPv6", None),
        ("ingress", "IPv4", default["id"]),
        ("ingress", "IPv6", default["id"]),
    }
    assert await api.get("/security-groups") == [default]
    answer = await api("DELETE", f"/security-groups/{default['id']}")
    assert (answer.status, answer.kind) == (409, "SecurityGroupCannotRemoveDefault")
    renamed = await api.change(f"/security-groups/{default['id']}", {"name": "mine"})
    assert renamed.kind == "SecurityGroupCannotUpdateDefault"
    assert (await api.change(f"/security-groups/{default['id']}", {"description": "ours"})).status == 200
    body = {"security_group": {"name": "default"}}
    assert (await api("POST", "/security-groups", body)).kind == "SecurityGroupDefaultAlreadyExists"


async def test_an_administrator_clears_a_default_group_away_unless_it_is_used(api: Api) -> None:
    (default,) = await api.get("/security-groups")
    network, _ = await a_network(api)
    port = await api.make("ports", network_id=network["id"])
    admin = api.as_("admin")
    assert (await admin("DELETE", f"/security-groups/{default['id']}")).kind == "SecurityGroupInUse"
    await api("DELETE", f"/ports/{port['id']}")
    assert (await admin("DELETE", f"/security-groups/{default['id']}")).status == 204
    (again,) = await api.get("/security-groups")
    assert (again["name"], len(again["security_group_rules"])) == ("default", 4)


async def test_groups_are_made_in_bulk_or_not_at_all(api: Api) -> None:
    answer = await api("POST", "/security-groups", {"security_groups": [{"name": "a"}, {"name": "b"}]})
    assert answer.status == 201
    made = answer.body["security_groups"]
    assert [(one["name"], len(one["security_group_rules"])) for one in made] == [("a", 2), ("b", 2)]
    refused = await api("POST", "/security-groups", {"security_groups": [{"name": "c"}, {"name": "default"}]})
    assert refused.status == 409
    assert {one["name"] for one in await api.get("/security-groups")} == {"default", "a", "b"}


@pytest.mark.parametrize("protocol", ["icmpv6", 58, "41", 60])
async def test_protocols_of_ipv6_are_not_for_ipv4_by_name_or_number(api: Api, protocol: str | int) -> None:
    group = await api.make("security-groups", name="web")
    rule = {"security_group_id": group["id"], "direction": "ingress", "protocol": protocol}
    refused = await api("POST", "/security-group-rules", {"security_group_rule": rule})
    assert (refused.status, refused.kind) == (400, "SecurityGroupEthertypeConflictWithProtocol")
    six = await api("POST", "/security-group-rules", {"security_group_rule": {**rule, "ethertype": "IPv6"}})
    assert six.status == 201


async def test_a_limit_below_what_is_used_is_refused_only_if_asked_to_check(api: Api) -> None:
    await a_network(api)
    admin, path = api.as_("admin"), f"/quotas/{DEMO}"
    checked = {"network": 0, "check_limit": True}
    assert (await admin("PUT", path, {"quota": checked})).status == 400
    assert (await admin("PUT", path, {"quota": {**checked, "network": 1}})).status == 200
    assert (await admin("PUT", path, {"quota": {**checked, "force": True}})).status == 200
    assert (await admin("PUT", path, {"quota": {"network": -1, "check_limit": True}})).status == 200


async def test_the_rules_of_a_new_group_are_charged_too(api: Api) -> None:
    await api.get("/security-groups")  # The default group has four.
    admin = api.as_("admin")
    assert (await admin("PUT", f"/quotas/{DEMO}", {"quota": {"security_group_rule": 5}})).status == 200
    refused = await api("POST", "/security-groups", {"security_group": {"name": "web"}})
    assert (refused.status, refused.kind) == (409, "OverQuota")
    assert len(await api.get("/security-groups")) == 1


async def test_rules_too_are_a_first_look(api: Api) -> None:
    assert len(await api.get("/security-group-rules")) == 4


async def test_a_group_is_made_used_and_deleted(api: Api) -> None:
    made = await api.make("security-groups", name="web", description="for the web")
    assert {rule["direction"] for rule in made["security_group_rules"]} == {"egress"}
    network, _ = await a_network(api)
    port = await api.make("ports", network_id=network["id"], security_groups=[made["id"]])
    answer = await api("DELETE", f"/security-groups/{made['id']}")
    assert (answer.status, answer.kind) == (409, "SecurityGroupInUse")
    await api("DELETE", f"/ports/{port['id']}")
    assert (await api("DELETE", f"/security-groups/{made['id']}")).status == 204
    assert (await api("GET", f"/security-groups/{made['id']}")).kind == "SecurityGroupNotFound"


async def test_rules_that_name_a_deleted_group_go_with_it(api: Api) -> None:
    web, db = [await api.make("security-groups", name=name) for name in ("web", "db")]
    rule = {"direction": "ingress", "protocol": "tcp", "remote_group_id": web["id"]}
    await api.make("security-group-rules", security_group_id=db["id"], **rule)
    assert (await api("DELETE", f"/security-groups/{web['id']}")).status == 204
    assert {rule["direction"] for rule in (await api.get(f"/security-groups/{db['id']}"))["security_group_rules"]} == {
        "egress"
    }


async def test_foreign_groups_are_not_there(api: Api) -> None:
    mine = await api.make("security-groups", name="mine")
    other = api.as_("other")
    theirs = await other.make("security-groups", name="theirs")
    for method, body in (("GET", None), ("DELETE", None), ("PUT", {"security_group": {"name": "x"}})):
        assert (await other(method, f"/security-groups/{mine['id']}", body)).status == 404
    rule = mine["security_group_rules"][0]
    assert (await other("GET", f"/security-group-rules/{rule['id']}")).kind == "SecurityGroupRuleNotFound"
    assert (await other("DELETE", f"/security-group-rules/{rule['id']}")).status == 404
    body: dict[str, Any] = {"direction": "ingress", "security_group_id": mine["id"]}
    assert (await other("POST", "/security-group-rules", {"security_group_rule": body})).status == 404
    body = {"direction": "ingress", "security_group_id": theirs["id"], "remote_group_id": mine["id"]}
    assert (await other("POST", "/security-group-rules", {"security_group_rule": body})).status == 404


async def test_an_administrator_touches_projects_that_exist_only(api: Api) -> None:
    assert await api.as_("admin").get("/security-groups?project_id=nobody") == []


@pytest.mark.parametrize(
    ("values", "status", "kind"),
    [
        ({"protocol": "tcp", "port_range_min": 22, "port_range_max": 22}, 201, ""),
        ({"protocol": "TCP", "port_range_min": "22", "port_range_max": "80"}, 201, ""),
        ({"protocol": 6}, 201, ""),
        ({"protocol": "132"}, 201, ""),
        ({"protocol": "vrrp"}, 201, ""),
        ({"protocol": None, "ethertype": "ipv6"}, 201, ""),
        ({"protocol": "icmp", "port_range_min": 8, "port_range_max": 0}, 201, ""),
        ({"protocol": "icmp", "ethertype": "IPv6", "port_range_min": 128}, 201, ""),
        ({"remote_ip_prefix": "10.1.2.3"}, 201, ""),
        ({"protocol": "any"}, 400, "SecurityGroupRuleInvalidProtocol"),
        ({"protocol": 256}, 400, "SecurityGroupRuleInvalidProtocol"),
        ({"protocol": "-1"}, 400, "SecurityGroupRuleInvalidProtocol"),
        ({"protocol": "ipv6-icmp"}, 400, "SecurityGroupEthertypeConflictWithProtocol"),
        ({"protocol": "tcp", "port_range_min": 22}, 400, "SecurityGroupInvalidPortRange"),
        ({"protocol": "tcp", "port_range_min": 80, "port_range_max": 22}, 400, "SecurityGroupInvalidPortRange"),
        ({"protocol": "tcp", "port_range_min": 0, "port_range_max": 22}, 400, "SecurityGroupInvalidPortValue"),
        ({"protocol": "tcp", "port_range_min": 1, "port_range_max": 65536}, 400, "SecurityGroupInvalidPortValue"),
        ({"port_range_min": 22, "port_range_max": 22}, 400, "SecurityGroupProtocolRequiredWithPorts"),
        ({"protocol": "icmp", "port_range_min": 256}, 400, "SecurityGroupInvalidIcmpValue"),
        ({"protocol": "icmp", "port_range_max": 1}, 400, "SecurityGroupMissingIcmpType"),
        ({"protocol": "gre", "port_range_min": 1, "port_range_max": 2}, 400, "HTTPBadRequest"),
        ({"remote_ip_prefix": "10.0.0.0/33"}, 400, "HTTPBadRequest"),
        ({"remote_ip_prefix": "2001:db8::/32"}, 400, "SecurityGroupRuleParameterConflict"),
        ({"remote_ip_prefix": "10.0.0.0/8", "remote_group_id": "x"}, 400, "SecurityGroupRemoteGroupAndRemoteIpPrefix"),
        ({"remote_group_id": "nobody"}, 404, "SecurityGroupNotFound"),
        ({"direction": "sideways"}, 400, "HTTPBadRequest"),
        ({"ethertype": "IPX"}, 400, "HTTPBadRequest"),
    ],
)
async def test_a_rule_must_make_sense(api: Api, values: dict[str, Any], status: int, kind: str) -> None:
    group = await api.make("security-groups", name="g")
    body = {"security_group_id": group["id"], "direction": "ingress", **values}
    answer = await api("POST", "/security-group-rules", {"security_group_rule": body})
    assert answer.status == status, answer.body
    assert not kind or answer.kind == kind


async def test_rules_show_what_was_asked_and_what_it_means(api: Api) -> None:
    group = await api.make("security-groups", name="g")
    values = {"direction": "Ingress", "protocol": "TCP", "remote_ip_prefix": "10.1.2.3/16", "description": "why"}
    rule = await api.make("security-group-rules", security_group_id=group["id"], **values)
    assert (rule["direction"], rule["protocol"], rule["ethertype"]) == ("ingress", "tcp", "IPv4")
    assert (rule["remote_ip_prefix"], rule["normalized_cidr"]) == ("10.1.2.3/16", "10.1.0.0/16")
    assert rule["description"] == "why"
    assert [one["id"] for one in await api.get(f"/security-group-rules?security_group_id={group['id']}&protocol=tcp")]


@pytest.mark.parametrize(
    ("one", "same"),
    [
        ({}, {"remote_ip_prefix": "0.0.0.0/0"}),
        ({"protocol": "tcp"}, {"protocol": 6}),
        ({"protocol": "tcp"}, {"protocol": "6", "port_range_min": 1, "port_range_max": 65535}),
        ({"remote_ip_prefix": "10.0.0.1/8"}, {"remote_ip_prefix": "10.0.0.0/8"}),
        ({"protocol": "icmp", "ethertype": "IPv6"}, {"protocol": "icmpv6", "ethertype": "IPv6"}),
    ],
)
async def test_the_same_rule_in_other_words_is_a_conflict(api: Api, one: dict[str, Any], same: dict[str, Any]) -> None:
    group = await api.make("security-groups", name="g")
    base = {"security_group_id": group["id"], "direction": "ingress"}
    first = await api.make("security-group-rules", **base, **one)
    answer = await api("POST", "/security-group-rules", {"security_group_rule": {**base, **same}})
    assert (answer.status, answer.kind) == (409, "SecurityGroupRuleExists")
    assert first["id"] in answer.message


async def test_bulk_rules_are_of_one_group_and_all_or_none(api: Api) -> None:
    one, two = [await api.make("security-groups", name=name) for name in ("one", "two")]
    rules = [{"security_group_id": group["id"], "direction": "ingress", "protocol": "tcp"} for group in (one, two)]
    answer = await api("POST", "/security-group-rules", {"security_group_rules": rules})
    assert (answer.status, answer.kind) == (400, "SecurityGroupNotSingleGroupRules")
    twice = await api("POST", "/security-group-rules", {"security_group_rules": [rules[0], rules[0]]})
    assert twice.kind == "SecurityGroupRuleExists"
    both = [rules[0], {**rules[0], "protocol": "udp"}]
    answer = await api("POST", "/security-group-rules", {"security_group_rules": both})
    assert [rule["protocol"] for rule in answer.body["security_group_rules"]] == ["tcp", "udp"]


async def test_quotas_are_shown_set_and_reset(api: Api) -> None:
    admin = api.as_("admin")
    defaults = await api.get(f"/quotas/{DEMO}")
    assert defaults == await api.get(f"/quotas/{DEMO}/default")
    assert (await admin("PUT", f"/quotas/{DEMO}", {"quota": {"network": 7, "port": -1}})).body["quota"]["network"] == 7
    await a_network(api)
    details = await api.get(f"/quotas/{DEMO}/details")
    assert details["network"] == {"limit": 7, "used": 1, "reserved": 0}
    assert details["port"] == {"limit": -1, "used": 1, "reserved": 0}
    assert [row["project_id"] for row in await admin.get("/quotas")] == [DEMO]
    assert (await api("PUT", f"/quotas/{DEMO}", {"quota": {"network": 8}})).status == 403
    assert (await api("GET", f"/quotas/{OTHER}")).status == 403
    assert (await api("GET", "/quotas")).status == 403
    for bad in ({"network": -2}, {"network": 2**31}, {"flavour": 1}, {"network": "many"}):
        assert (await admin("PUT", f"/quotas/{DEMO}", {"quota": bad})).status == 400
    assert (await admin("DELETE", f"/quotas/{DEMO}")).status == 204
    assert await api.get(f"/quotas/{DEMO}") == defaults
    assert (await api.get("/quotas/tenant"))["tenant_id"] == DEMO


async def test_extensions_are_those_that_work(api: Api) -> None:
    aliases = {one["alias"] for one in await api.get("/extensions")}
    assert {"router", "security-group", "external-net", "quotas", "binding", "port-security"} <= aliases
    assert (await api.get("/extensions/router"))["alias"] == "router"
    for absent in ("trunk", "qos", "rbac-policies", "subnet_allocation", "dns-integration"):
        assert absent not in aliases
        assert (await api("GET", f"/extensions/{absent}")).status == 404


# What rules mean, without any request.

_PROTOCOLS = st.one_of(
    st.none(),
    st.sampled_from(sorted(groups.PROTOCOLS)),
    st.integers(-5, 300),
    st.integers(0, 255).map(str),
    st.sampled_from(["", "tcpp", "6.0", "TCP"]),
)
_NUMBERS = st.one_of(st.none(), st.integers(-3, 70_000), st.integers(0, 260))


@example("1", "IPv6", 128, 0, None, "ingress")
@example("58", "IPv4", 128, 0, None, "ingress")
@given(
    _PROTOCOLS,
    st.sampled_from(["IPv4", "IPv6"]),
    _NUMBERS,
    _NUMBERS,
    st.sampled_from([None, "10.0.0.0/8", "10.2.3.4", "0.0.0.0/0", "2001:db8::/32", "::/0", "x", ""]),
    st.sampled_from(["ingress", "egress"]),
)
def test_hosts_can_write_every_rule_that_is_accepted(
    protocol: str | int | None, ethertype: str, low: int | None, high: int | None, prefix: str | None, direction: str
) -> None:
    try:
        text = groups.protocol_text(protocol, ethertype)
        groups.check_ports(text, ethertype, low, high)
        shown = groups.prefix_text(prefix, ethertype)
    except CloudError:
        return
    rule = Rule(
        id="r",
        project_id=DEMO,
        group_id="g",
        direction=direction,
        ethertype=ethertype,
        protocol=text,
        port_min=low,
        port_max=high,
        remote_ip_prefix=shown,
        created_at=0,
        updated_at=0,
    )
    group = Group(id="g", project_id=DEMO, created_at=0, updated_at=0, rules=(rule,))
    (spec,) = render_group(group).rules
    assert rule_text(spec) is not None
    assert groups.meaning(rule) == groups.meaning(rule)

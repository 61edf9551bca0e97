"""Rules of security groups, and what a rule may say. Transaction functions; `normalized` and what it calls are pure."""

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any, Final

from controller.context import Context
from controller.db.tx import Tx
from controller.network import usage
from controller.network.errors import (
    SecurityGroupCannotRemoveDefault,
    SecurityGroupCannotUpdateDefault,
    SecurityGroupDefaultAlreadyExists,
    SecurityGroupEthertypeConflictWithProtocol,
    SecurityGroupInUse,
    SecurityGroupInvalidIcmpValue,
    SecurityGroupInvalidPortRange,
    SecurityGroupInvalidPortValue,
    SecurityGroupMissingIcmpType,
    SecurityGroupNotFound,
    SecurityGroupNotSingleGroupRules,
    SecurityGroupProtocolRequiredWithPorts,
    SecurityGroupRemoteGroupAndRemoteIpPrefix,
    SecurityGroupRuleExists,
    SecurityGroupRuleInvalidProtocol,
    SecurityGroupRuleParameterConflict,
    bad_value,
)
from controller.network.model import Group, Rule
from controller.network.store import groups
from controller.network.store.rows import check_revision

DEFAULT_NAME: Final = "default"

PROTOCOLS: Final[Mapping[str, int]] = {
    "ah": 51, "dccp": 33, "egp": 8, "esp": 50, "gre": 47, "hopopt": 0, "icmp": 1, "icmpv6": 58, "igmp": 2, "ip": 0,
    "ipip": 4, "ipv6-encap": 41, "ipv6-frag": 44, "ipv6-icmp": 58, "ipv6-nonxt": 59, "ipv6-opts": 60,
    "ipv6-route": 43, "ospf": 89, "pgm": 113, "rsvp": 46, "sctp": 132, "tcp": 6, "udp": 17, "udplite": 136,
    "vrrp": 112,
}  # fmt: skip
"""Names that a rule may use; any number from 0 to 255 will do as well."""

_WITH_PORTS: Final = frozenset({6, 17, 33, 132, 136})
_ICMP: Final = frozenset({1, 58})
_V6_ONLY: Final = frozenset({"ipv6-encap", "ipv6-frag", "ipv6-icmp", "icmpv6", "ipv6-nonxt", "ipv6-opts", "ipv6-route"})
_V6_NUMBERS: Final = frozenset(PROTOCOLS[name] for name in _V6_ONLY)


def create_all(tx: Tx, news: Sequence[Group], rule_ids: Sequence[Sequence[str]], now: float) -> list[Group]:
    """All of them or, by raising, none."""
    return [create(tx, new, ids, now) for new, ids in zip(news, rule_ids, strict=True)]


def create(tx: Tx, new: Group, rule_ids: Sequence[str], now: float) -> Group:
    """A group that lets everything out, as every new group does. `rule_ids`: of the two rules that say so."""
    if new.name == DEFAULT_NAME:
        raise SecurityGroupDefaultAlreadyExists
    groups.ensure_default(tx, new.project_id, now)
    usage.charge(tx, new.project_id, "security_group")
    usage.charge(tx, new.project_id, "security_group_rule", len(rule_ids))
    groups.insert(tx, new)
    for rule_id, ethertype in zip(rule_ids, ("IPv4", "IPv6"), strict=True):
        rule = Rule(
            id=rule_id,
            project_id=new.project_id,
            group_id=new.id,
            direction="egress",
            ethertype=ethertype,
            created_at=now,
            updated_at=now,
        )
        groups.insert_rule(tx, rule)
    return _again(tx, new.id)


def update(tx: Tx, group_id: str, changes: Mapping[str, Any], expected: int | None, now: float) -> Group:
    """Name and description; the default group keeps its name."""
    found = _get(tx, group_id)
    check_revision(found.revision, expected)
    name = changes.get("name", found.name)
    if name != found.name and found.is_default:
        raise SecurityGroupCannotUpdateDefault
    if name != found.name and name == DEFAULT_NAME:
        raise SecurityGroupDefaultAlreadyExists
    groups.revise(tx, group_id, now, changes)
    return _again(tx, group_id)


def delete(tx: Tx, ctx: Context, group_id: str, expected: int | None, now: float) -> None:
    """A group that no port has. Rules of other groups that name it go with it, as in Neutron.

    Only administrators delete a default group: it is how they clear a project away. The next touch makes it anew.
    """
    found = _get(tx, group_id)
    check_revision(found.revision, expected)
    if found.is_default and not ctx.is_admin:
        raise SecurityGroupCannotRemoveDefault
    if groups.is_used(tx, group_id):
        raise SecurityGroupInUse(group_id)
    groups.delete(tx, group_id, now)


def add_rules(tx: Tx, ctx: Context, rules: Sequence[Rule], now: float) -> list[Rule]:
    """All of them or, by raising, none. They are `normalized` and of one group."""
    if len({(rule.group_id, rule.project_id) for rule in rules}) > 1:
        raise SecurityGroupNotSingleGroupRules
    around = groups.get(tx, ctx, rules[0].group_id)
    usage.charge(tx, rules[0].project_id, "security_group_rule", len(rules))
    known = {meaning(rule): rule.id for rule in around.rules}
    for rule in rules:
        if rule.remote_group_id is not None and rule.remote_group_id != around.id:
            groups.get(tx, ctx, rule.remote_group_id)
        same = known.setdefault(meaning(rule), rule.id)
        if same != rule.id:
            raise SecurityGroupRuleExists(same)
        groups.insert_rule(tx, rule)
    groups.changed(tx, around.id, now)
    return list(rules)


def delete_rule(tx: Tx, ctx: Context, rule_id: str, expected: int | None, now: float) -> None:
    """Take a rule away; connections that it let pass stop too."""
    found = groups.get_rule(tx, ctx, rule_id)
    check_revision(found.revision, expected)
    groups.delete_rule(tx, rule_id)
    groups.changed(tx, found.group_id, now)


def _get(tx: Tx, group_id: str) -> Group:
    found = groups.find(tx, group_id)
    if found is None:
        raise SecurityGroupNotFound(group_id)
    return found


def _again(tx: Tx, group_id: str) -> Group:
    made = groups.find(tx, group_id)
    assert made is not None, "it was just written"
    return made


# What a rule may say.


def protocol_text(value: str | int | None, ethertype: str) -> str | None:
    """A protocol as it is stored and shown: a lower-case name or a number as text. Raises Invalid."""
    if value is None:
        return None
    text = str(value).strip().lower()
    if text in PROTOCOLS:
        if text in _V6_ONLY and ethertype == "IPv4":
            raise SecurityGroupEthertypeConflictWithProtocol(ethertype, text)
        return text
    if text.isascii() and text.isdecimal() and int(text) <= 255:
        if int(text) in _V6_NUMBERS and ethertype == "IPv4":
            raise SecurityGroupEthertypeConflictWithProtocol(ethertype, text)
        return str(int(text))
    raise SecurityGroupRuleInvalidProtocol(value, ", ".join(sorted(PROTOCOLS)))


def protocol_number(text: str | None, ethertype: str) -> int | None:
    """The number of a stored protocol; None is any. ICMP in an IPv6 rule is ICMPv6, as in Neutron."""
    if text is None:
        return None
    value = PROTOCOLS.get(text)
    value = int(text) if value is None else value
    return 58 if value == 1 and ethertype == "IPv6" else value


def ethertype_text(value: str | None) -> str:
    """IPv4 or IPv6, in whatever case it came. Raises Invalid."""
    found = {"ipv4": "IPv4", "ipv6": "IPv6"}.get((value or "IPv4").lower())
    if found is None:
        raise bad_value("ethertype", f"'{value}' is not in ['IPv4', 'IPv6']")
    return found


def direction_text(value: str) -> str:
    """ingress or egress. Raises Invalid."""
    if value.lower() not in ("ingress", "egress"):
        raise bad_value("direction", f"'{value}' is not in ['ingress', 'egress']")
    return value.lower()


def prefix_text(value: str | None, ethertype: str) -> str | None:
    """A remote prefix as it is shown: with its length, host bits kept. Raises Invalid."""
    if value is None or not value:
        return None
    try:
        interface = ipaddress.ip_interface(value)
    except ValueError:
        raise bad_value("remote_ip_prefix", f"'{value}' is not a valid CIDR") from None
    if interface.version != (4 if ethertype == "IPv4" else 6):
        raise SecurityGroupRuleParameterConflict(ethertype, value)
    return f"{interface.ip}/{interface.network.prefixlen}"


def normalized_cidr(prefix: str | None) -> str | None:
    """The network that a remote prefix means, without host bits."""
    return str(ipaddress.ip_interface(prefix).network) if prefix is not None else None


def check_ports(protocol: str | None, ethertype: str, low: int | None, high: int | None) -> None:
    """Raises Invalid unless the two mean something for the protocol: ports, or an ICMP type and code."""
    if low is None and high is None:
        return
    value = protocol_number(protocol, ethertype)
    if value is None or (value == 0 and protocol in ("ip", "0")):
        raise SecurityGroupProtocolRequiredWithPorts
    if value in _ICMP:
        if (value == 58) != (ethertype == "IPv6"):
            raise SecurityGroupEthertypeConflictWithProtocol(ethertype, str(protocol))
        _check_icmp(low, high)
    elif value in _WITH_PORTS:
        for one in (low, high):
            if one is not None and not 1 <= one <= 65535:
                raise SecurityGroupInvalidPortValue(one)
        if low is None or high is None or low > high:
            raise SecurityGroupInvalidPortRange
    else:
        raise bad_value("port_range_min", f"protocol {protocol} has no ports")


def _check_icmp(kind: int | None, code: int | None) -> None:
    for attribute, field, value in (("port_range_min", "type", kind), ("port_range_max", "code", code)):
        if value is not None and not 0 <= value <= 255:
            raise SecurityGroupInvalidIcmpValue(field, attribute, value)
    if kind is None and code is not None:
        raise SecurityGroupMissingIcmpType(code)


def check_remotes(prefix: str | None, group_id: str | None) -> None:
    """Raises Invalid for two remotes."""
    if prefix is not None and group_id is not None:
        raise SecurityGroupRemoteGroupAndRemoteIpPrefix


def meaning(rule: Rule) -> tuple[Any, ...]:
    """What a rule says, whatever words it uses: two rules of one meaning in a group are a conflict."""
    number = protocol_number(rule.protocol, rule.ethertype) or None
    low, high = rule.port_min, rule.port_max
    if number in _WITH_PORTS and (low, high) == (1, 65535):
        low = high = None
    prefix = normalized_cidr(rule.remote_ip_prefix)
    if prefix in ("0.0.0.0/0", "::/0"):
        prefix = None
    return rule.direction, rule.ethertype, number, low, high, prefix, rule.remote_group_id

"""What dnsmasq is told, as text: nothing that a user chose can become anything but a value."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.wire.errors import Invalid
from drivers.network import dnsmasq
from tests.host.netlab import a_network, a_port


def test_a_port_is_one_line_with_its_addresses_and_name() -> None:
    network = a_network()
    assert dnsmasq.hosts_file(network, [a_port(network, 10)]) == "fa:16:3e:00:01:0a,10.0.0.10,[fd00::a],guest-10\n"


def test_a_subnet_without_dhcp_is_not_served() -> None:
    network = a_network()
    four, six = network.subnets
    network = msgspec.structs.replace(network, subnets=(four, msgspec.structs.replace(six, dhcp=False)))
    assert dnsmasq.hosts_file(network, [a_port(network, 10)]) == "fa:16:3e:00:01:0a,10.0.0.10,guest-10\n"
    assert "option6" not in dnsmasq.options_file(network)


@given(hostname=st.text())
def test_any_host_name_leaves_one_line_a_port(hostname: str) -> None:
    network = a_network()
    port = a_port(network, 10, hostname=hostname)
    (line,) = dnsmasq.hosts_file(network, [port]).splitlines()
    words = line.split(",")
    assert words[:3] == ["fa:16:3e:00:01:0a", "10.0.0.10", "[fd00::a]"]
    assert all(word.replace("-", "").isalnum() and word.isascii() for word in words[3:])
    assert len(dnsmasq.names_file(network, [port]).splitlines()) in (0, 2)


@given(domain=st.text())
def test_any_domain_is_one_argument_or_none(domain: str) -> None:
    network = a_network(dns_domain=domain)
    for word in dnsmasq.arguments(network, dnsmasq.Path("/x")):
        assert "\n" not in word and word.startswith("--")
        if word.startswith("--domain="):
            assert all(label.replace("-", "").isalnum() for label in word.removeprefix("--domain=").split("."))


@pytest.mark.parametrize(
    "changes",
    [
        {"gateway": "10.0.0.1\ntag:s0,3,6.6.6.6"},
        {"dns_nameservers": ("192.0.2.1,6.6.6.6",)},
        {"host_routes": (("10.8.0.0/16", "x"),)},
        {"cidr": "10.0.0.0/24,ignore"},
    ],
)
def test_addresses_that_are_none_are_refused(changes: dict[str, object]) -> None:
    network = a_network(v6=None)
    network = msgspec.structs.replace(network, subnets=(msgspec.structs.replace(network.subnets[0], **changes),))
    with pytest.raises(Invalid):
        dnsmasq.options_file(network)

"""dnsmasq processes: DHCP and DNS inside a network's namespace, router advertisements inside a router's.

A server is a folder (its files, its pid) and a command line. The files change while it runs: SIGHUP makes it read
hosts and options again. When the command line changed, or a lease was taken from its owner (dnsmasq would refuse the
address to the next one until the lease ends), it is restarted, which guests do not notice: it is authoritative and
answers renewals of leases it has forgotten.

Servers outlive the agent. They are found again by their pid file, believed only if that process' command line is the
one that would be started (it names the folder, which nobody else uses).

dnsmasq gives up root after it has opened its sockets, but reads the files later: they belong to its group. Whatever
comes from users is parsed before it is written; a name that is no host name is left out, it can do without.
"""

import contextlib
import grp
import ipaddress
import os
import pwd
import re
import select
import shutil
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from agent.wire.errors import Failed
from agent.wire.network import NetworkSpec, SubnetSpec
from agent.wire.port import PortSpec
from drivers import command
from drivers.network import names, netns
from drivers.network.filter import METADATA_V4, ip_address, ip_prefix, mac_address
from drivers.network.router_nat import Advert
from drivers.network.settings import NetworkSettings

PROGRAM: Final = "dnsmasq"
_START_TIMEOUT_S: Final = 15.0
_STOP_TIMEOUT_S: Final = 5.0
"""After SIGTERM; then SIGKILL. dnsmasq ends within milliseconds."""

LEASE_S: Final = 86400
"""Guests renew at half of it. Shorter: more packets. Longer: changed options reach guests later."""

_LABEL: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.IGNORECASE)

_READ_AS_OPTION: Final = re.compile(r"\d+[wdhms]?|infinite|ignore")
"""Host names that dnsmasq takes for a lease time or an order in a line of its hosts file."""


class Server:
    """One dnsmasq: its folder, where it runs, and how it is started."""

    def __init__(self, folder: Path, namespace: str, arguments: Iterable[str]) -> None:
        self.folder = folder
        self.namespace = namespace
        self.argv = (
            PROGRAM,
            "--conf-file=/dev/null",
            "--no-hosts",
            "--no-resolv",
            "--no-ping",
            "--bind-interfaces",
            "--except-interface=lo",
            f"--user={account()}",
            f"--group={grp.getgrgid(_group()).gr_name}",
            f"--pid-file={folder}/pid",
            f"--dhcp-leasefile={folder}/leases",
            f"--log-facility={folder}/log",
            "--quiet-dhcp",
            "--quiet-dhcp6",
            "--quiet-ra",
            *arguments,
        )

    def ensure(self, files: dict[str, str], *, restart: bool = False) -> None:
        """Runs with these files (name in the folder: content)."""
        _ensure_folder(self.folder)
        changed = [name for name, content in files.items() if _write(self.folder / name, content)]
        pid = running(self.folder)
        if pid is not None and not restart and self._is_ours(pid):
            if changed:
                os.kill(pid, signal.SIGHUP)
            return
        stop(self.folder)
        if restart and "hosts" in files:
            _prune_leases(self.folder, files["hosts"])
        command.run(self.argv, timeout_s=_START_TIMEOUT_S, netns=self.namespace)

    def _is_ours(self, pid: int) -> bool:
        """Started as it would be now, and in the namespace that has the name now (it may have been made anew)."""
        return _command_line(pid) == self.argv and netns.holds(self.namespace, pid)


def running(folder: Path) -> int | None:
    """The pid of the server of this folder, if one runs."""
    try:
        pid = int((folder / "pid").read_text())
    except (FileNotFoundError, ValueError):
        return None
    return pid if f"--pid-file={folder}/pid" in _command_line(pid) else None


def stop(folder: Path) -> None:
    """End the server of this folder, if one runs; its files stay."""
    pid = running(folder)
    if pid is not None:
        _end(pid)
        (folder / "pid").unlink(missing_ok=True)


def stop_inside(namespace: str) -> None:
    """End every dnsmasq in a namespace of ours, whatever its files say: they may be gone."""
    for pid in netns.pids(namespace):
        if _command_line(pid)[:1] == (PROGRAM,):
            _end(pid)


def _end(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        handle = os.pidfd_open(pid)
        try:
            for number in (signal.SIGTERM, signal.SIGKILL):
                signal.pidfd_send_signal(handle, number)
                if _ended(handle, _STOP_TIMEOUT_S):
                    break
        finally:
            os.close(handle)


def remove(folder: Path) -> None:
    """End the server and remove its folder."""
    stop(folder)
    shutil.rmtree(folder, ignore_errors=True)


def account() -> str:
    """Whom it becomes: its own account where the package made one."""
    for name in ("dnsmasq", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise Failed("this host has neither an account dnsmasq nor nobody")


def _ended(handle: int, timeout_s: float) -> bool:
    """Whether a process ends within the time (a pidfd becomes readable then, also for one not yet reaped)."""
    return bool(select.select([handle], [], [], timeout_s)[0])


def _command_line(pid: int) -> tuple[str, ...]:
    try:
        data = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return ()
    return tuple(word.decode("utf-8", "replace") for word in data.split(b"\0")[:-1])


def _group() -> int:
    """The group that dnsmasq keeps: Debian's account shares `nogroup`, which then may read host names, no secrets."""
    with contextlib.suppress(KeyError):
        return grp.getgrnam("dnsmasq").gr_gid
    return pwd.getpwnam(account()).pw_gid


def _ensure_folder(folder: Path) -> None:
    folder.mkdir(mode=0o750, parents=True, exist_ok=True)
    for parent in folder.resolve().parents:
        if not parent.stat().st_mode & 0o001:
            raise Failed(
                f"dnsmasq, which gives up root, cannot enter {parent}: its folder must be searchable by others"
            )
    uid = pwd.getpwnam(account()).pw_uid
    if folder.stat().st_uid != uid:
        os.chown(folder, uid, _group())


def _write(path: Path, content: str) -> bool:
    """Replace a file by a rename, unless it is the same already."""
    with contextlib.suppress(FileNotFoundError):
        if path.read_text() == content:
            return False
    new = path.with_name(path.name + ".new")
    new.write_text(content)
    new.chmod(0o640)
    os.chown(new, 0, _group())
    new.replace(path)
    return True


def _prune_leases(folder: Path, hosts: str) -> None:
    """Forget leases of addresses that the hosts file does not give to the same MAC."""
    path = folder / "leases"
    if not path.exists():
        return
    owners: dict[str, str] = {}
    for line in hosts.splitlines():
        mac, *rest = line.split(",")
        owners.update({word.strip("[]"): mac for word in rest})
    kept = [line for line in path.read_text().splitlines() if _is_kept(line.split(), owners)]
    path.write_text("".join(line + "\n" for line in kept))


def _is_kept(words: list[str], owners: dict[str, str]) -> bool:
    """`duid …` is the server's own identity; else: end, MAC (IPv6: association id), address, name, client id."""
    if len(words) < 3 or words[0] == "duid":
        return True
    return ":" not in words[2] and owners.get(words[2]) == words[1].lower()


# ---------------------------------------------------------------------------------------------------------------
# DHCP and DNS of a network.


class DnsmasqDhcp:
    """See drivers.network.base.Dhcp."""

    def __init__(self, settings: NetworkSettings) -> None:
        self._folder = Path(settings.folder)

    def ensure(self, network: NetworkSpec, ports: tuple[PortSpec, ...], namespace: str) -> None:
        """See Dhcp."""
        folder = self._folder_of(network.id)
        if network.dhcp is None:
            remove(folder)
            return
        hosts = hosts_file(network, ports)
        server = Server(folder, namespace, arguments(network, folder))
        files = {"hosts": hosts, "options": options_file(network), "names": names_file(network, ports)}
        server.ensure(files, restart=_takes_away(folder / "hosts", hosts))

    def absent(self, network_id: str) -> None:
        """See Dhcp."""
        remove(self._folder_of(network_id))

    def _folder_of(self, network_id: str) -> Path:
        return self._folder / f"dhcp-{names.short(network_id)}"


def _takes_away(path: Path, hosts: str) -> bool:
    """Whether an (address, MAC) that was served is not served any more."""
    try:
        before = path.read_text()
    except FileNotFoundError:
        return False
    return not _served(before) <= _served(hosts)


def _served(hosts: str) -> set[tuple[str, str]]:
    result = set()
    for line in hosts.splitlines():
        mac, *rest = line.split(",")
        result |= {(mac, word) for word in rest if "." in word or ":" in word}
    return result


def served_subnets(network: NetworkSpec) -> list[SubnetSpec]:
    """The subnets of which the server gives addresses (or, for stateless IPv6, options)."""
    return [subnet for subnet in network.subnets if subnet.dhcp and subnet.ipv6_address_mode != "slaac"]


def arguments(network: NetworkSpec, folder: Path) -> list[str]:
    """The command line's part that says what is served. Pure."""
    words = [
        f"--interface={names.DHCP_INNER}",
        "--dhcp-authoritative",
        "--dhcp-lease-max=65536",
        f"--dhcp-hostsfile={folder}/hosts",
        f"--dhcp-optsfile={folder}/options",
        f"--addn-hosts={folder}/names",
        "--bogus-priv",
        "--local-ttl=30",
    ]
    domain = domain_name(network.dns_domain)
    if domain:
        words += [f"--domain={domain}", f"--local=/{domain}/"]
    for number, subnet in enumerate(served_subnets(network)):
        prefix = ip_prefix(subnet.cidr)
        if prefix.version == 4:
            words.append(f"--dhcp-range=set:s{number},{prefix.network_address},static,{prefix.netmask},{LEASE_S}s")
        elif subnet.ipv6_address_mode == "dhcpv6-stateless":
            words.append(f"--dhcp-range=set:s{number},{prefix.network_address},static,{prefix.prefixlen}")
        else:
            words.append(f"--dhcp-range=set:s{number},{prefix.network_address},static,{prefix.prefixlen},{LEASE_S}s")
    return words


def hosts_file(network: NetworkSpec, ports: Iterable[PortSpec]) -> str:
    """`mac,address,[address6],name` a port; of several IPv4 addresses DHCP can give the first only."""
    served = [ip_prefix(subnet.cidr) for subnet in served_subnets(network)]
    lines = []
    for port in ports:
        found = [ip_address(fixed.address) for fixed in port.fixed_ips]
        found = [address for address in found if any(address in prefix for prefix in served)]
        v4 = [str(address) for address in found if address.version == 4][:1]
        v6 = [f"[{address}]" for address in found if address.version == 6]
        name = host_name(port.hostname)
        if name and _READ_AS_OPTION.fullmatch(name):
            name = None
        if v4 or v6:
            lines.append(",".join((mac_address(port.mac), *v4, *v6, *((name,) if name else ()))))
    return "".join(line + "\n" for line in sorted(lines))


def names_file(network: NetworkSpec, ports: Iterable[PortSpec]) -> str:
    """What DNS answers: every address of every port, by its name with and without the domain."""
    domain = domain_name(network.dns_domain)
    lines = []
    for port in ports:
        name = host_name(port.hostname)
        if name:
            full = f"{name}.{domain} {name}" if domain else name
            lines += [f"{ip_address(fixed.address)} {full}\n" for fixed in port.fixed_ips]
    return "".join(sorted(lines))


def options_file(network: NetworkSpec) -> str:
    """Options a subnet: router, DNS, MTU, routes. Addresses of the DHCP port stand for what the network has itself."""
    lines: list[str] = []
    for number, subnet in enumerate(served_subnets(network)):
        own = _own_address(network, subnet)
        is_v4 = ip_prefix(subnet.cidr).version == 4
        lines += (
            _options_v4(f"tag:s{number}", subnet, own, network.mtu)
            if is_v4
            else _options_v6(f"tag:s{number}", subnet, own)
        )
    return "".join(line + "\n" for line in lines)


def _own_address(network: NetworkSpec, subnet: SubnetSpec) -> str | None:
    prefix = ip_prefix(subnet.cidr)
    found = (ip_address(address) for _, address in (network.dhcp.addresses if network.dhcp else ()))
    return next((str(address) for address in found if address in prefix), None)


def _options_v4(tag: str, subnet: SubnetSpec, own: str | None, mtu: int) -> Iterator[str]:
    gateway = str(ip_address(subnet.gateway)) if subnet.gateway else None
    servers = _nameservers(subnet, 4) or ([own] if own else [])
    routes = [(f"{METADATA_V4}/32", own)] if own else []
    routes += [(str(ip_prefix(to)), str(ip_address(via))) for to, via in subnet.host_routes]
    if gateway:
        routes.append(("0.0.0.0/0", gateway))
    flat = ",".join(word for route in routes for word in route if word)
    yield f"{tag},option:router" + (f",{gateway}" if gateway else "")  # Without a value: do not send your own.
    yield f"{tag},option:dns-server" + "".join(f",{server}" for server in servers)
    yield f"{tag},option:mtu,{mtu}"
    if flat:
        yield f"{tag},option:classless-static-route,{flat}"
        yield f"{tag},249,{flat}"  # The same for old Windows guests.


def _options_v6(tag: str, subnet: SubnetSpec, own: str | None) -> Iterator[str]:
    servers = _nameservers(subnet, 6) or ([own] if own else [])
    yield f"{tag},option6:dns-server" + "".join(f",[{server}]" for server in servers)


def _nameservers(subnet: SubnetSpec, version: int) -> list[str]:
    found = (ip_address(server) for server in subnet.dns_nameservers)
    return [str(address) for address in found if address.version == version]


def host_name(text: str) -> str | None:
    """A host name in lower case, or None for what is none: then the port simply has no name."""
    label = text.partition(".")[0]
    return label.lower() if _LABEL.fullmatch(label) else None


def domain_name(text: str) -> str | None:
    """A domain in lower case without the last dot, or None for what is none."""
    labels = text.rstrip(".").split(".")
    is_valid = len(text) <= 253 and all(_LABEL.fullmatch(label) for label in labels)
    return ".".join(labels).lower() if is_valid else None


# ---------------------------------------------------------------------------------------------------------------
# Router advertisements of a router.


def ensure_adverts(folder: Path, namespace: str, wanted: tuple[Advert, ...]) -> None:
    """The router advertises exactly this; nothing runs if that is nothing. Its DHCPv6 is shut off by the namespace."""
    if wanted:
        Server(folder, namespace, advert_arguments(wanted)).ensure({})
    else:
        remove(folder)


def advert_arguments(wanted: tuple[Advert, ...]) -> list[str]:
    """The command line's part that says what is advertised. Pure.

    Options stand here and not in a file, and are tagged by interface: for `ra-only` dnsmasq reads no file of options
    and honours no other tag.
    """
    words = ["--port=0", "--enable-ra"]
    for leg, mtu in dict.fromkeys((advert.leg, advert.mtu) for advert in wanted):
        servers = dict.fromkeys(server for advert in wanted if advert.leg == leg for server in advert.dns)
        options = "".join(f",[{server}]" for server in servers)
        words += [f"--interface={leg}", f"--ra-param={leg},mtu:{mtu},30,1800"]
        words.append(f"--dhcp-option=tag:{leg},option6:dns-server{options}")
    for advert in wanted:
        prefix = ipaddress.IPv6Network(advert.prefix)
        kind = {"slaac": "ra-only", "dhcpv6-stateless": "ra-stateless", "dhcpv6-stateful": "static"}[advert.mode]
        words.append(f"--dhcp-range={prefix.network_address},{kind},{prefix.prefixlen},{LEASE_S}s")
    return words

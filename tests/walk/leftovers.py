"""What a test leaves behind: a cloud's traces before and after, and what is left of a whole cloud on the machine.

A snapshot is a multiset of lines, each of one kind: links with their addresses, routes, nft rules, listeners,
permanent neighbours, all of these in every network namespace of the host; domains; processes; files of state and run
folder; rows. Left out is what is meant to stay: logs, caches, the ledger's own files, histories (deleted servers,
their actions and sagas, deleted images), and the numbers the kernel draws.
"""

import contextlib
import json
import re
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from controller.cli.trial import Trial
from tests.walk.cloud import CHECKOUT, Cloud, output

Snapshot = Counter[str]

CONVERGED_S = 60
"""What users do not wait for (networks without ports, sagas' last events) may be removed a moment later."""
STILL_S = 2
"""For how long nothing changes in a cloud at rest."""

LIVE = "deleted_at IS NULL"
_OF_LIVE_SERVERS = f"server_id IN (SELECT id FROM server WHERE {LIVE})"
COUNTED: dict[str, str] = {
    "server": LIVE,
    "server_action": _OF_LIVE_SERVERS,
    "migration": _OF_LIVE_SERVERS,
    "server_guest": _OF_LIVE_SERVERS,
    "server_nic": _OF_LIVE_SERVERS,
    "server_tag": _OF_LIVE_SERVERS,
    "image": LIVE,
    "host_object": "is_wanted",
    "saga": "state NOT IN ('done', 'undone')",
}
"""Rows that count, of tables that also keep what was."""
HISTORY = {"forwarding_change", "saga_event", "server_usage", "quota_lock", "identity_change", "revoked_token"}
"""Tables that only remember."""
HISTORY |= {"console_token", "cached_image", "member_change"}
HISTORY |= {"provider"}  # A host's from its first claim on.

PASSING_FILES = re.compile(
    r"""^state/( logs/ | nats/ | controller/(controller\.db|backup) | agent-host\d+/(ledger/|images/)
      | agent-host\d+/libvirt/(cache|log)/ ) | \.(new|tmp|lock|pid)$ | ^run/host\d+/dhcp/[^/]+/(log|leases)$
      | ^run/host\d+/dhcp$ | ^state/agent-host\d+/(guests|libvirt/etc/qemu)$""",  # Made with a host's first guest.
    re.VERBOSE,
)
_DHCP_FILE = re.compile(r"run/host\d+/dhcp/")
_GUARD = re.compile(r'nft element of \w+_fabric (far: "x|ours: \{"concat": \["x)')
"""A tunnel's end is guarded before it is there, and for as long as its network is on the host."""
_LINK_LOCAL = re.compile(r"(local|anycast) fe80:.* proto kernel")
"""Routes that the kernel adds to link-local addresses, which it draws for bridges."""


def snapshot(cloud: Cloud) -> Snapshot:
    """Everything that a cloud has on this machine now."""
    found: Snapshot = Counter()
    found.update(_networks(cloud))
    for host in cloud.trial.hosts:
        found.update(f"{host} domain {line}" for line in _domains(cloud, host))
        found.update(f"{host} process {line}" for line in _processes(cloud, host))
    found.update(f"file {line}" for line in _files(cloud.trial))
    found.update(_rows(cloud.trial))
    return found


def difference(before: Snapshot, after: Snapshot) -> list[str]:
    """What came (+) and what went (-)."""
    return sorted(f"+ {line}" for line in (after - before).elements()) + sorted(
        f"- {line}" for line in (before - after).elements()
    )


@contextlib.contextmanager
def leftovers(cloud: Cloud) -> Iterator[None]:
    """What happens inside leaves the cloud as it was."""
    before = _at_rest(cloud)
    yield
    deadline = time.monotonic() + CONVERGED_S
    while left := difference(before, snapshot(cloud)):
        if time.monotonic() > deadline:
            pytest.fail("left behind:\n" + "\n".join(left))
        time.sleep(0.5)


def _at_rest(cloud: Cloud) -> Snapshot:
    """What there is when nothing goes any more of what was done before: no saga, and what users do not wait for.

    A host whose last server of a network has left loses the network a while later; a change of the network API is what
    brings all hosts to it now.
    """
    deadline = time.monotonic() + CONVERGED_S
    found = snapshot(cloud)
    while time.monotonic() < deadline:
        if not found["row of saga"]:
            _touch(cloud)
        time.sleep(STILL_S)
        earlier, found = found, snapshot(cloud)
        if found == earlier and not found["row of saga"]:
            break
    return found


def _touch(cloud: Cloud) -> None:
    demo = cloud.demo()
    (network,) = demo.get("/network/v2.0/networks?name=demo")["networks"]
    demo.put(f"/network/v2.0/networks/{network['id']}", {"network": {"description": network["description"]}})


def traces(trial: Trial) -> list[str]:
    """What is left of a whole cloud on this machine; nothing, after `hostler clean`."""
    names = (trial.state, trial.run)
    tag = trial.tag
    found = [f"folder {name}" for name in names if Path(name).exists()]
    found += [f"mount {line}" for line in Path("/proc/self/mountinfo").read_text().splitlines() if _says(line, names)]
    found += [f"link {one['ifname']}" for one in _json("ip", "-j", "link") if _is_tagged(one, tag)]
    ranges = (trial.bridge, trial.external.partition("/")[0].rpartition(".")[0] + ".")
    routes = output("ip", "route", "show", "table", "all").splitlines()
    found += [f"route {line}" for line in routes if _says(line, ranges)]
    found += [f"nft {line}" for line in output("nft", "list", "tables").splitlines() if f"_{tag}" in line]
    found += [f"namespace {line}" for line in output("ip", "netns", "list").splitlines() if f"-{tag}-" in line]
    words = (*names, f"_TAG={tag}", f"/{trial.name}/agent-")
    found += [f"process {pid} {said[:200]}" for pid, said in _everybody() if _says(said, words)]
    return found


def _says(line: str, words: tuple[str, ...]) -> bool:
    return any(word in line for word in words)


def _is_tagged(link: dict[str, Any], tag: str) -> bool:
    return link["ifname"].startswith((f"hu{tag}", f"hv{tag}", f"ho{tag}")) or f":{tag}:" in link.get("ifalias", "")


def _everybody() -> Iterator[tuple[int, str]]:
    """Every process: its command line, environment, working folder, program, and what is mounted for it.

    Of mounts only what they show, not where: a space made while another one was there has seen its pins too.
    """
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        said = ""
        with contextlib.suppress(OSError):
            for part in ("cmdline", "environ"):
                said += (entry / part).read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            for part in ("cwd", "exe"):
                said += f" {(entry / part).readlink()}"
            said += "".join(
                f" shows {root}"
                for root in (line.split()[3] for line in (entry / "mountinfo").read_text().splitlines())
                if "/agent-" in root
            )
        yield int(entry.name), said


def _networks(cloud: Cloud) -> Iterator[str]:
    """Every network namespace of the host, and the machine's own as far as it carries the cloud's tag."""
    for one in _json("ip", "-j", "link"):
        if _is_tagged(one, cloud.trial.tag):
            yield f"machine link {one['ifname']}"
    for line in output("nft", "list", "tables").splitlines():
        if cloud.trial.tag in line:
            yield f"machine nft {line}"
    for host in cloud.trial.hosts:
        yield from (f"{host} {line}" for line in _network(cloud, host, ()) if not _GUARD.match(line))
        for name in cloud.inside("ls", "/run/netns", host=host).split():
            yield f"{host} namespace {name}"
            with contextlib.suppress(AssertionError):  # It may go while we look.
                yield from [f"{host} {name} {line}" for line in _network(cloud, host, ("ip", "netns", "exec", name))]


def _network(cloud: Cloud, host: str, prefix: tuple[str, ...]) -> Iterator[str]:
    def said(*argv: str) -> str:
        return cloud.inside(*prefix, *argv, host=host)

    for one in json.loads(said("ip", "-j", "addr")):
        addresses = sorted(info["local"] for info in one["addr_info"] if info["scope"] != "link")
        yield f"link {one['ifname']} in {one.get('master', '-')} {' '.join(addresses)}".rstrip()
    for argv in (
        ("ip", "route", "show", "table", "all"),
        ("ip", "rule"),
        ("ip", "neigh", "show", "nud", "permanent"),
    ):
        yield from (f"{argv[1]} {line.strip()}" for line in said(*argv).splitlines() if not _LINK_LOCAL.match(line))
    for line in said("ss", "-Hlntu").splitlines():
        protocol, _, _, _, local, *_ = line.split()
        yield f"listens {protocol} {local}"
    for one in json.loads(said("nft", "-s", "-j", "list", "ruleset"))["nftables"]:
        yield from _rules(one)


def _rules(one: dict[str, Any]) -> Iterator[str]:
    """One object of a ruleset, and each element of a set by itself, without what the kernel numbers."""
    ((kind, body),) = one.items()
    if kind == "metainfo":
        return
    elements = body.pop("elem", [])
    body.pop("handle", None)
    yield f"nft {kind} {json.dumps(body, sort_keys=True)}"
    for element in elements if isinstance(elements, list) else [elements]:
        yield f"nft element of {body.get('table')} {body.get('name')}: {json.dumps(element, sort_keys=True)}"


_LIST_DOMAINS = """
import libvirt
host = libvirt.open("qemu:///system")
for kind in (libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE, libvirt.VIR_CONNECT_LIST_DOMAINS_INACTIVE):
    for domain in host.listAllDomains(kind):
        print(domain.UUIDString(), domain.name(), kind)
for secret in host.listAllSecrets():
    print("secret", secret.usageID())
"""


def _domains(cloud: Cloud, host: str) -> list[str]:
    return cloud.inside(str(CHECKOUT / ".venv" / "bin" / "python"), "-c", _LIST_DOMAINS, host=host).splitlines()


def _processes(cloud: Cloud, host: str) -> Iterator[str]:
    """What runs in the host's UTS namespace, by command line; of QEMU, the guest's name."""
    inode = (cloud.space_of(host).pins / "uts").stat().st_ino
    for entry in Path("/proc").iterdir():
        try:
            if not entry.name.isdigit() or (entry / "ns" / "uts").stat().st_ino != inode:
                continue
            argv = (entry / "cmdline").read_bytes().decode("utf-8", "replace").rstrip("\0").split("\0")
        except OSError:
            continue
        guest = next((word for word in argv if word.startswith("guest=")), "")
        yield guest or " ".join(argv)


def _files(trial: Trial) -> Iterator[str]:
    """Below state and run folder; of dnsmasq's small files also what they say."""
    for name, root in (("state", trial.folder), ("run", trial.run_folder)):
        for path in root.rglob("*"):
            found = f"{name}/{path.relative_to(root)}"
            if PASSING_FILES.search(found):
                continue
            yield found
            if _DHCP_FILE.match(found) and path.is_file() and path.name != "pid":
                with contextlib.suppress(OSError):
                    yield from (f"{found}: {line}" for line in path.read_text().splitlines())


def _rows(trial: Trial) -> Snapshot:
    found: Snapshot = Counter()
    path = trial.controller_folder / "controller.db"
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            if table not in HISTORY and not table.startswith("sqlite_"):
                where = COUNTED.get(table, "1")
                (count,) = database.execute(f'SELECT count(*) FROM "{table}" WHERE {where}').fetchone()
                found[f"row of {table}"] = count
    return found


def _json(*argv: str) -> list[dict[str, Any]]:
    decoded: list[dict[str, Any]] = json.loads(output(*argv))
    return decoded

"""SQL of hosts, their credentials and join tokens. The fleet is the operator's: no function here asks who calls."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from agent.wire.host import Inventory
from controller.db.tables.fleet import host, host_credential, join_token
from controller.db.tx import Tx
from controller.fleet.model import (
    BadToken,
    Credential,
    Host,
    HostnameTaken,
    HostState,
    JoinToken,
    KeyKnown,
    NoSuchHost,
    Place,
)

_GET: Final = sa.select(host).where(host.c.id == sa.bindparam("id"))
_LIST: Final = sa.select(host).where(host.c.state == HostState.ENROLLED.value).order_by(host.c.hostname, host.c.id)
_VALID_CREDENTIAL: Final = sa.select(host_credential.c.host_id).where(
    sa.or_(
        host_credential.c.certificate_serial == sa.bindparam("serial"),
        host_credential.c.certificate_previous == sa.bindparam("serial"),
    ),
    host_credential.c.revoked_at.is_(None),
)


def list_hosts(tx: Tx) -> list[Host]:
    """Every enrolled host, by name. A fleet is small enough for one list; views page over it."""
    return [_host(dict(row._mapping)) for row in tx.execute(_LIST)]


def find_host(tx: Tx, host_id: str) -> Host | None:
    """A host, also a removed one."""
    row = tx.execute(_GET, {"id": host_id}).one_or_none()
    return None if row is None else _host(dict(row._mapping))


def is_alive(host: Host | None, up: frozenset[str]) -> bool:
    """Whether it may run guests: some controller hears it (`up`: this one), and no operator has said otherwise."""
    return host is not None and not host.forced_down and (host.up or host.id in up)


def get_host(tx: Tx, host_id: str) -> Host:
    """An enrolled host. Raises NoSuchHost."""
    found = find_host(tx, host_id)
    if found is None or found.state is not HostState.ENROLLED:
        raise NoSuchHost(host_id)
    return found


def removed_ids(tx: Tx) -> list[str]:
    """Hosts that were removed: whatever was on them is fenced."""
    return list(tx.execute(sa.select(host.c.id).where(host.c.state == HostState.REMOVED.value)).scalars())


def set_up(tx: Tx, host_id: str, up: bool, now: float) -> bool:
    """Record a transition of liveness; False if the row said so already."""
    wanted = (host.c.id == host_id, host.c.up != up)
    return bool(tx.execute(sa.update(host).where(*wanted).values(up=up, seen_at=now, updated_at=now)).rowcount)


def set_disabled(tx: Tx, host_id: str, disabled: bool, reason: str, now: float) -> Host:
    """Take a host out of scheduling, or back in."""
    return _changed(tx, host_id, disabled=disabled, disabled_reason=reason, updated_at=now)


def set_forced_down(tx: Tx, host_id: str, forced_down: bool, now: float) -> Host:
    """An operator's word that a host is down, whatever its heartbeats say."""
    return _changed(tx, host_id, forced_down=forced_down, updated_at=now)


def record_inventory(tx: Tx, host_id: str, inventory: Inventory, now: float) -> Host:
    """Write what an enrolled host reported of itself; the host as it was before. Raises NoSuchHost.

    Its name and address are those of the join: a report cannot rename a host.
    """
    before = get_host(tx, host_id)
    tx.execute(sa.update(host).where(host.c.id == host_id).values(**_reported(inventory), updated_at=now))
    return before


def differs(before: Host, inventory: Inventory) -> bool:
    """Whether an inventory says anything that the row does not. Pure."""
    row = msgspec.structs.asdict(before)
    known = {**row, "physical_networks": list(before.physical_networks), "capabilities": list(before.capabilities)}
    return any(known[key] != value for key, value in _reported(inventory).items())


def _reported(inventory: Inventory) -> dict[str, Any]:
    """Columns of what a host says; text as long as the columns take."""
    water = inventory.ledger_high_water
    return {
        "vcpus": inventory.vcpus,
        "memory_mib": inventory.memory_mib,
        "disk_gib": inventory.disk_gib,
        "virt_type": inventory.virt_type[:16],
        "hypervisor_version": inventory.hypervisor_version,
        "cpu_model": inventory.cpu_model[:255],
        "cpu_arch": inventory.cpu_arch[:64],
        "physical_networks": sorted(set(inventory.physical_networks)),
        "capabilities": sorted(set(inventory.capabilities)),
        "agent_version": inventory.agent_version[:64],
        "wire_version": inventory.wire_version,
        "boot_id": inventory.boot_id[:64],
        "ledger_incarnation": inventory.ledger_incarnation[:64],
        "ledger_epoch": water.epoch,
        "ledger_n": water.n,
    }


def insert_token(tx: Tx, token: JoinToken) -> None:
    """Keep a new token's hash. Raises NoSuchHost if it is to replace a host that is not there."""
    if token.host_id is not None:
        get_host(tx, token.host_id)
    tx.execute(sa.insert(join_token).values(**msgspec.structs.asdict(token)))


def find_token(tx: Tx, token_id: str) -> JoinToken | None:
    """A token, valid or not."""
    row = tx.execute(sa.select(join_token).where(join_token.c.id == token_id)).one_or_none()
    return None if row is None else JoinToken(**row._mapping)


def purge_tokens(tx: Tx, before: float) -> int:
    """Forget tokens that ended before a time; how many they were."""
    return tx.execute(sa.delete(join_token).where(join_token.c.expires_at < before)).rowcount


def use_token(tx: Tx, token_id: str, nkey: str, host_id: str, now: float) -> bool:
    """Spend a token for one key; False if it is spent, expired or gone."""
    free = (join_token.c.id == token_id, join_token.c.used_at.is_(None), join_token.c.expires_at > now)
    spent = {"used_at": now, "used_nkey": nkey, "used_host_id": host_id}
    return bool(tx.execute(sa.update(join_token).where(*free).values(**spent)).rowcount)


def enroll(tx: Tx, token_id: str, place: Place, credential: Credential, now: float) -> list[str]:
    """Spend a token: a new host row, or new credentials for the host that the token names.

    Returns the nkeys that are revoked by it. Raises BadToken, KeyKnown, HostnameTaken, NoSuchHost.
    """
    token = find_token(tx, token_id)
    if token is None or not use_token(tx, token_id, credential.nkey, credential.host_id, now):
        raise BadToken
    if (
        tx.execute(sa.select(host_credential.c.nkey).where(host_credential.c.nkey == credential.nkey)).first()
        is not None
    ):
        raise KeyKnown
    namesake = sa.select(host.c.id).where(
        host.c.hostname == place.hostname, host.c.state == HostState.ENROLLED.value, host.c.id != credential.host_id
    )
    if tx.execute(namesake).first() is not None:
        raise HostnameTaken(place.hostname)
    where = {**msgspec.structs.asdict(place), "updated_at": now}
    if token.host_id is None:
        _insert_host(tx, credential.host_id, where, now)
        revoked = []
    else:
        assert token.host_id == credential.host_id, "a token for one host enrolled another"
        _changed(tx, token.host_id, **where, up=False, boot_id="", ledger_incarnation="")
        revoked = revoke_credentials(tx, token.host_id, now)
    insert_credential(tx, credential, now)
    return revoked


def _insert_host(tx: Tx, host_id: str, where: Mapping[str, Any], now: float) -> None:
    state = HostState.ENROLLED.value
    tx.execute(sa.insert(host).values(id=host_id, **where, state=state, physical_networks=[], created_at=now))


def insert_credential(tx: Tx, credential: Credential, now: float) -> None:
    """Record what a host was given."""
    values = msgspec.structs.asdict(credential)
    tx.execute(sa.insert(host_credential).values(**values, created_at=now, revoked_at=None))


def renew_certificate(tx: Tx, presented_serial: str, serial: str, until: float) -> bool:
    """Give the holder of a valid certificate another one; False if the credential was revoked.

    Both stay valid, so that a host which lost the reply can ask again with what it has.
    """
    own = sa.or_(
        host_credential.c.certificate_serial == presented_serial,
        host_credential.c.certificate_previous == presented_serial,
    )
    values = {"certificate_serial": serial, "certificate_previous": presented_serial, "certificate_until": until}
    changed = sa.update(host_credential).where(own, host_credential.c.revoked_at.is_(None)).values(**values)
    return bool(tx.execute(changed).rowcount)


def reissue_certificate(tx: Tx, nkey: str, serial: str, until: float) -> bool:
    """A host that lost the reply of its join gets another certificate; False if its credential was revoked."""
    mine = (host_credential.c.nkey == nkey, host_credential.c.revoked_at.is_(None))
    values = {"certificate_serial": serial, "certificate_until": until}
    return bool(tx.execute(sa.update(host_credential).where(*mine).values(**values)).rowcount)


def holder_of(tx: Tx, certificate_serial: str) -> str | None:
    """The enrolled host that a certificate speaks for, or None if it is revoked or unknown."""
    found: str | None = tx.execute(_VALID_CREDENTIAL, {"serial": certificate_serial}).scalar_one_or_none()
    return found


def remove_host(tx: Tx, host_id: str, now: float) -> list[str]:
    """Declare a host removed and revoke what it was given; the revoked nkeys. Raises NoSuchHost."""
    get_host(tx, host_id)
    values = {"state": HostState.REMOVED.value, "up": False, "updated_at": now}
    tx.execute(sa.update(host).where(host.c.id == host_id).values(**values))
    return revoke_credentials(tx, host_id, now)


def revoke_credentials(tx: Tx, host_id: str, now: float) -> list[str]:
    """Make everything that a host was given worthless; the nkeys."""
    valid = (host_credential.c.host_id == host_id, host_credential.c.revoked_at.is_(None))
    nkeys = list(tx.execute(sa.select(host_credential.c.nkey).where(*valid)).scalars())
    tx.execute(sa.update(host_credential).where(*valid).values(revoked_at=now))
    return nkeys


def revoked_nkeys(tx: Tx) -> list[str]:
    """Every key that the bus must refuse."""
    gone = host_credential.c.revoked_at.is_not(None)
    return list(tx.execute(sa.select(host_credential.c.nkey).where(gone).order_by(host_credential.c.nkey)).scalars())


def _changed(tx: Tx, host_id: str, **values: Any) -> Host:
    get_host(tx, host_id)
    tx.execute(sa.update(host).where(host.c.id == host_id).values(**values))
    return get_host(tx, host_id)


def _host(row: dict[str, Any]) -> Host:
    return msgspec.convert({str(key): value for key, value in row.items()}, Host)  # Keys come as quoted_name.

"""Enrollment's transactions, on both databases: one permission is one host, whoever races for it."""

import pytest

from controller.errors import Conflict
from controller.fleet import store
from controller.fleet.model import BadToken, Credential, HostnameTaken, JoinToken, KeyKnown, Place
from tests.databases import AnyDatabase, race


def token(id: str = "t", host_id: str | None = None) -> JoinToken:
    return JoinToken(id=id, secret_sha256="", host_id=host_id, created_at=0.0, expires_at=100.0)


def credential(n: int, host_id: str | None = None) -> Credential:
    return Credential(
        nkey=f"U{n}", host_id=host_id or f"host-{n}", certificate_serial=f"{n:x}", certificate_until=1000.0
    )


def place(name: str = "h") -> Place:
    return Place(hostname=name, underlay_address="198.18.0.11")


async def test_of_sixteen_machines_with_one_token_one_joins(database: AnyDatabase) -> None:
    await database.write(store.insert_token, token())
    outcomes = await race(16, lambda i: database.write(store.enroll, "t", place(f"h{i}"), credential(i), 1.0))
    assert sum(outcome == [] for outcome in outcomes) == 1
    assert sum(isinstance(outcome, BadToken) for outcome in outcomes) == 15
    assert len(await database.read(store.list_hosts)) == 1


async def test_of_eight_machines_with_one_name_one_joins(database: AnyDatabase) -> None:
    for n in range(8):
        await database.write(store.insert_token, token(f"t{n}"))
    outcomes = await race(8, lambda i: database.write(store.enroll, f"t{i}", place(), credential(i), 1.0))
    assert sum(outcome == [] for outcome in outcomes) == 1
    assert len(await database.read(store.list_hosts)) == 1


async def test_a_token_ends(database: AnyDatabase) -> None:
    await database.write(store.insert_token, token())
    with pytest.raises(BadToken):
        await database.write(store.enroll, "t", place(), credential(1), 100.0)
    assert await database.write(store.purge_tokens, 99.0) == 0
    assert await database.write(store.purge_tokens, 101.0) == 1


async def test_a_key_is_never_given_twice(database: AnyDatabase) -> None:
    await database.write(store.insert_token, token("a"))
    await database.write(store.insert_token, token("b"))
    await database.write(store.enroll, "a", place("a"), credential(1), 1.0)
    await database.write(store.remove_host, "host-1", 2.0)
    with pytest.raises(KeyKnown):
        await database.write(store.enroll, "b", place("b"), credential(1, "host-2"), 3.0)
    assert issubclass(KeyKnown, Conflict)


async def test_a_replacement_keeps_the_id_and_revokes_what_was_given_before(database: AnyDatabase) -> None:
    await database.write(store.insert_token, token("a"))
    await database.write(store.enroll, "a", place("h"), credential(1), 1.0)
    await database.write(store.insert_token, token("b", "host-1"))
    assert await database.write(store.enroll, "b", place("h"), credential(2, "host-1"), 2.0) == ["U1"]
    assert await database.read(store.revoked_nkeys) == ["U1"]
    assert await database.read(store.holder_of, "1") is None
    assert await database.read(store.holder_of, "2") == "host-1"


async def test_a_name_is_free_again_after_a_removal(database: AnyDatabase) -> None:
    for n in (1, 2, 3):
        await database.write(store.insert_token, token(f"t{n}"))
    await database.write(store.enroll, "t1", place(), credential(1), 1.0)
    with pytest.raises(HostnameTaken):
        await database.write(store.enroll, "t2", place(), credential(2), 2.0)
    assert await database.write(store.remove_host, "host-1", 3.0) == ["U1"]
    await database.write(store.enroll, "t2", place(), credential(2), 4.0)
    assert [host.id for host in await database.read(store.list_hosts)] == ["host-2"]
    assert await database.read(store.removed_ids) == ["host-1"]


async def test_a_renewed_certificate_does_not_revive_a_revoked_credential(database: AnyDatabase) -> None:
    await database.write(store.insert_token, token())
    await database.write(store.enroll, "t", place(), credential(1), 1.0)
    await database.write(store.remove_host, "host-1", 2.0)
    assert not await database.write(store.renew_certificate, "1", "99", 2000.0)
    assert not await database.write(store.reissue_certificate, "U1", "99", 2000.0)
    assert await database.read(store.holder_of, "99") is None

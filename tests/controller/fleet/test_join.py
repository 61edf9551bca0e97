"""Joining for real: agent's side against controller's side over TLS, and the bus with what was given."""

import asyncio
import ssl
import stat
import time
from pathlib import Path

import pytest

from agent import join as joining
from agent.join import IdentityFiles, JoinRefused, join
from controller.authority import HOST_LIFE_S, Authority
from controller.fleet import store
from controller.fleet.enrollment import TOKEN_LIFE_S
from controller.fleet.model import HostState, NoSuchHost
from tests.controller.fleet.fleet import Fleet, host_bus


async def test_a_host_joins_once_and_speaks_as_itself(fleet: Fleet, tmp_path: Path) -> None:
    token = await fleet.enrollment.issue_token()
    joined = await join(token, fleet.address, tmp_path / "host", "Host1.example", "198.18.0.11")
    row = await fleet.db.read(store.get_host, joined.host_id)
    assert (row.hostname, row.underlay_address, row.state, row.up) == (
        "host1.example",
        "198.18.0.11",
        HostState.ENROLLED,
        False,
    )
    assert not row.is_usable, "nothing is scheduled to a host of unknown size"
    assert (joined.cloud, joined.tag) == ("default", "beef")
    bus = await host_bus(fleet, tmp_path / "host")
    await bus.close()
    with pytest.raises(JoinRefused, match="not valid"):
        await join(token, fleet.address, tmp_path / "other", "host2", "198.18.0.12")
    assert len(await fleet.db.read(store.list_hosts)) == 1


async def test_every_file_of_a_host_is_private(fleet: Fleet, tmp_path: Path) -> None:
    await join(await fleet.enrollment.issue_token(), fleet.address, tmp_path / "host", "h1", "198.18.0.11")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "host").iterdir()}
    assert modes == dict.fromkeys(("host.json", "ca.pem", "host.key", "host.pem", "nats.seed", "nats.jwt"), 0o600)


async def test_only_the_hash_of_a_token_is_kept(fleet: Fleet) -> None:
    token = await fleet.enrollment.issue_token()
    _, fingerprint, token_id, secret = token.split(".")
    assert fingerprint == fleet.server.authority.fingerprint
    kept = await fleet.db.read(store.find_token, token_id)
    assert kept is not None
    assert secret not in repr(kept)


async def test_an_expired_token_is_refused(fleet: Fleet, tmp_path: Path) -> None:
    token = await fleet.enrollment.issue_token()
    fleet.clock.ahead_s = TOKEN_LIFE_S + 1
    with pytest.raises(JoinRefused, match="not valid"):
        await join(token, fleet.address, tmp_path / "host", "h1", "198.18.0.11")


async def test_a_changed_secret_or_id_is_refused(fleet: Fleet, tmp_path: Path) -> None:
    version, fingerprint, token_id, secret = (await fleet.enrollment.issue_token()).split(".")
    for forged in (f"{token_id}.{secret[:-1]}x", f"{token_id[:-1]}x.{secret}", f"{token_id}.", f".{secret}"):
        with pytest.raises(JoinRefused, match="not valid"):
            await join(f"{version}.{fingerprint}.{forged}", fleet.address, tmp_path / "host", "h1", "198.18.0.11")
    assert await fleet.db.read(store.list_hosts) == []


async def test_a_secret_is_never_sent_to_a_cloud_that_the_token_does_not_name(
    fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, token_id, secret = (await fleet.enrollment.issue_token()).split(".")
    other = Authority(tmp_path / "other-ca", time.time())
    asked = []
    monkeypatch.setattr(joining, "_ask", lambda *arguments: asked.append(arguments))
    with pytest.raises(JoinRefused, match="not the cloud"):
        await join(
            f"hst1.{other.fingerprint}.{token_id}.{secret}", fleet.address, tmp_path / "host", "h1", "198.18.0.11"
        )
    assert not asked


async def test_an_impostor_that_shows_our_ca_but_lacks_its_key_gets_no_secret(fleet: Fleet, tmp_path: Path) -> None:
    """The certificate of an authority is public: what proves the cloud is a connection that it vouches for."""
    ours, impostor = fleet.server.authority, Authority(tmp_path / "impostor", time.time())
    received: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received.append(await reader.readuntil(b"\r\n\r\n"))
        body = ours.ca_pem.encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
        writer.close()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*impostor.ensure_server("channel", ["127.0.0.1"], time.time()))
    listener = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    address = f"127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    token = await fleet.enrollment.issue_token()
    with pytest.raises(ssl.SSLCertVerificationError):
        await join(token, address, tmp_path / "host", "h1", "198.18.0.11")
    listener.close()
    assert [request.split()[1] for request in received] == [b"/ca"]


async def test_a_join_whose_reply_was_lost_is_repeated_with_the_same_keys_and_the_same_id(
    fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = await fleet.enrollment.issue_token()
    really = joining._ask

    def losing(*arguments):
        really(*arguments)
        raise OSError("the reply was lost")

    monkeypatch.setattr(joining, "_ask", losing)
    with pytest.raises(OSError, match="lost"):
        await join(token, fleet.address, tmp_path / "host", "h1", "198.18.0.11")
    monkeypatch.setattr(joining, "_ask", really)
    (row,) = await fleet.db.read(store.list_hosts)
    joined = await join(token, fleet.address, tmp_path / "host", "h1", "198.18.0.11")
    assert joined.host_id == row.id
    bus = await host_bus(fleet, tmp_path / "host")
    await bus.close()
    with pytest.raises(JoinRefused, match="not valid"):
        await join(token, fleet.address, tmp_path / "thief", "h1", "198.18.0.11")


async def test_a_machine_that_has_joined_does_not_join_again(fleet: Fleet, tmp_path: Path) -> None:
    await join(await fleet.enrollment.issue_token(), fleet.address, tmp_path / "host", "h1", "198.18.0.11")
    with pytest.raises(JoinRefused, match="already"):
        await join(await fleet.enrollment.issue_token(), fleet.address, tmp_path / "host", "h1", "198.18.0.11")


async def test_a_second_machine_cannot_take_a_hosts_name(fleet: Fleet, tmp_path: Path) -> None:
    await join(await fleet.enrollment.issue_token(), fleet.address, tmp_path / "a", "h1", "198.18.0.11")
    token = await fleet.enrollment.issue_token()
    with pytest.raises(JoinRefused, match="h1 is enrolled already"):
        await join(token, fleet.address, tmp_path / "b", "h1", "198.18.0.12")
    joined = await join(token, fleet.address, tmp_path / "b", "h2", "198.18.0.12")
    assert joined.hostname == "h2", "a refused join does not spend the token"


async def test_a_token_issued_for_a_host_replaces_it_and_ends_the_old_ones_sessions(
    fleet: Fleet, tmp_path: Path
) -> None:
    old = await join(await fleet.enrollment.issue_token(), fleet.address, tmp_path / "old", "h1", "198.18.0.11")
    bus = await host_bus(fleet, tmp_path / "old")
    token = await fleet.enrollment.issue_token(old.host_id)
    new = await join(token, fleet.address, tmp_path / "new", "h1", "198.18.0.21")
    assert new.host_id == old.host_id
    row = await fleet.db.read(store.get_host, old.host_id)
    assert row.underlay_address == "198.18.0.21"
    await _disconnected(bus)
    await bus.close()
    assert await fleet.enrollment.holder(_serial(tmp_path / "old")) is None
    assert await fleet.enrollment.holder(_serial(tmp_path / "new")) == old.host_id
    bus = await host_bus(fleet, tmp_path / "new")
    await bus.close()


async def test_a_token_for_a_host_that_is_not_there_is_not_issued(fleet: Fleet) -> None:
    with pytest.raises(NoSuchHost):
        await fleet.enrollment.issue_token("nobody")


async def test_a_removed_host_loses_its_session_its_certificate_and_its_name(fleet: Fleet, tmp_path: Path) -> None:
    joined = await join(await fleet.enrollment.issue_token(), fleet.address, tmp_path / "host", "h1", "198.18.0.11")
    bus = await host_bus(fleet, tmp_path / "host")
    await fleet.enrollment.remove(joined.host_id)
    await _disconnected(bus)
    await bus.close()
    assert await fleet.enrollment.holder(_serial(tmp_path / "host")) is None
    assert await fleet.db.read(store.removed_ids) == [joined.host_id]
    with pytest.raises(JoinRefused, match="not valid any more"):
        await asyncio.to_thread(_renewed, tmp_path / "host")
    again = await join(await fleet.enrollment.issue_token(), fleet.address, tmp_path / "b", "h1", "198.18.0.11")
    assert again.host_id != joined.host_id
    with pytest.raises(NoSuchHost):
        await fleet.enrollment.remove(joined.host_id)


async def test_a_removal_that_was_cut_short_is_finished_later(fleet: Fleet, tmp_path: Path) -> None:
    joined = await join(await fleet.enrollment.issue_token(), fleet.address, tmp_path / "host", "h1", "198.18.0.11")
    bus = await host_bus(fleet, tmp_path / "host")
    await fleet.db.write(store.remove_host, joined.host_id, time.time())  # And then the controller died.
    assert (await fleet.enrollment.run())["revoked"] == 1
    await _disconnected(bus)
    await bus.close()
    assert (await fleet.enrollment.run())["revoked"] == 0


async def test_a_certificate_is_renewed_late_in_its_life_and_the_old_one_is_valid_meanwhile(
    fleet: Fleet, tmp_path: Path
) -> None:
    joined = await join(await fleet.enrollment.issue_token(), fleet.address, tmp_path / "host", "h1", "198.18.0.11")
    first = _serial(tmp_path / "host")
    assert not await joining.renew_if_due(tmp_path / "host")
    assert await joining.renew_if_due(tmp_path / "host", time.time() + HOST_LIFE_S * 0.8)
    second = _serial(tmp_path / "host")
    assert first != second
    assert await fleet.enrollment.holder(first) == await fleet.enrollment.holder(second) == joined.host_id
    assert await asyncio.to_thread(_renewed, tmp_path / "host")
    assert await fleet.enrollment.holder(first) is None, "only the last two are valid"


@pytest.mark.parametrize(
    ("hostname", "address", "why"),
    [
        ("", "198.18.0.11", "DNS name"),
        ("-x", "198.18.0.11", "DNS name"),
        ("a b", "198.18.0.11", "DNS name"),
        ("h1;rm", "198.18.0.11", "DNS name"),
        ("x" * 64, "198.18.0.11", "DNS name"),
        ("h1", "198.18.0", "IP address"),
        ("h1", "host", "IP address"),
    ],
)
async def test_a_bad_name_or_address_is_refused(
    fleet: Fleet, tmp_path: Path, hostname: str, address: str, why: str
) -> None:
    with pytest.raises(JoinRefused, match=why):
        await join(await fleet.enrollment.issue_token(), fleet.address, tmp_path / "host", hostname, address)


def _serial(folder: Path) -> str:
    from cryptography import x509

    return f"{x509.load_pem_x509_certificate(IdentityFiles(folder).certificate.read_bytes()).serial_number:x}"


def _renewed(folder: Path) -> bool:
    return joining.renew_now(folder, time.time() + HOST_LIFE_S * 0.8)


async def _disconnected(bus) -> None:
    async with asyncio.timeout(10):
        while bus.is_connected:
            await asyncio.sleep(0.01)

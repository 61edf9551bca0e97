"""Every subject there is, wide to narrow, version first. `<id>` is the random host id, never a hostname.

    hostler.v1.host.<id>.<noun>.<verb>          controller or collector → one host, request/reply
    hostler.v1.event.host.<id>.<noun>           host → whoever listens, publish only
    hostler.v1.controller.<id>.<noun>.<verb>    one host → any controller, request/reply
    hostler.v1.event.<service>.<noun>.<verb>    controller → whoever listens (notifications, kicks)

NATS fixes permissions when a connection is made, so they follow from these shapes alone (`permissions`).
"""

from typing import Final

import msgspec

ROOT: Final = "hostler.v1"
INBOX: Final = "_INBOX"


def host(host_id: str, name: str) -> str:
    """Where a host listens for one call; `name` is `noun.verb`."""
    return f"{ROOT}.host.{host_id}.{name}"


def host_event(host_id: str, noun: str) -> str:
    """Where a host reports what happened to objects of one noun."""
    return f"{ROOT}.event.host.{host_id}.{noun}"


def controller(host_id: str, name: str) -> str:
    """Where controllers listen for one host's question; `name` is `noun.verb`."""
    return f"{ROOT}.controller.{host_id}.{name}"


def service_event(service: str, name: str) -> str:
    """Where controllers tell each other and the world; `name` is `noun.verb`."""
    return f"{ROOT}.event.{service}.{name}"


def inbox(identity: str) -> str:
    """The private inbox prefix of one identity. Nobody is ever given `_INBOX.>`."""
    return f"{INBOX}.{identity}"


def host_of(subject: str) -> str:
    """The host id that a `host`, `host_event` or `controller` subject proves."""
    parts = subject.split(".")
    return parts[4] if parts[2] == "event" else parts[3]


def may_answer(subject: str, reply: str) -> bool:
    """Whether a request's reply subject is the inbox of somebody who may ask it.

    Whoever asks chooses where the answer goes, and we may publish where the asker may not: a host that asks a
    controller could have it speak to another host. So answers go to inboxes only, and to a host's own.
    """
    if subject.startswith(f"{ROOT}.controller."):
        return reply.startswith(f"{inbox(host_of(subject))}.")
    return reply.startswith(f"{INBOX}.")


class Permissions(msgspec.Struct, frozen=True, kw_only=True):
    """What one identity may publish and subscribe; everything else is denied by the server."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    responses: bool  # May answer a request on the reply subject it came with, once, within the server's expiry.


def agent_permissions(host_id: str) -> Permissions:
    """A host acts for itself only: a stolen agent credential reaches no other host."""
    return Permissions(
        publish=(f"{ROOT}.event.host.{host_id}.>", f"{ROOT}.controller.{host_id}.>"),
        subscribe=(f"{ROOT}.host.{host_id}.>", f"{inbox(host_id)}.>"),
        responses=True,
    )


def controller_permissions(identity: str) -> Permissions:
    """Controllers speak to all hosts and hear all events."""
    return Permissions(
        publish=(f"{ROOT}.host.>", f"{ROOT}.event.>"),
        subscribe=(f"{ROOT}.controller.>", f"{ROOT}.event.>", f"{inbox(identity)}.>"),
        responses=True,
    )


def collector_permissions(identity: str) -> Permissions:
    """The collector may ask for samples and nothing else. Whom to ask it learns from heartbeats."""
    return Permissions(
        publish=(f"{ROOT}.host.*.samples.get",),
        subscribe=(host_event("*", "heartbeat"), f"{inbox(identity)}.>"),
        responses=False,
    )

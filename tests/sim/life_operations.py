"""What users do to servers that are there: pause, rescue, rebuild, resize, picture, shelve, plug; and their groups."""

import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

from agent.wire.errors import Failed
from agent.wire.image import Offer
from controller.db.tx import Tx
from controller.image import store as image_store
from controller.image.model import Status
from tests.sim import ground

if TYPE_CHECKING:
    from tests.sim.operations import Users
    from tests.sim.simulation import Simulation

COMPUTE: Final = "/compute/v2.1"

ACTIONS: Final[tuple[tuple[int, str, str], ...]] = (
    (3, "pause", "pause"),
    (3, "unpause", "unpause"),
    (3, "suspend", "suspend"),
    (3, "resume", "resume"),
    (3, "rescue", "rescue"),
    (4, "unrescue", "unrescue"),
    (4, "rebuild", "rebuild"),
    (5, "resize", "resize"),
    (4, "confirmResize", "confirmResize"),
    (3, "revertResize", "revertResize"),
    (3, "createImage", "createImage"),
    (3, "shelve", "shelve"),
    (4, "unshelve", "unshelve"),
)
"""(weight, the action, what the record of it is called)."""

BOOTS: Final = {
    "start": 1,
    "reboot": 1,
    "rescue": 2,  # From the rescue disk, and back if that failed.
    "unrescue": 1,
    "rebuild": 1,
    "resize": 2,
    "revertResize": 2,
    "shelve": 1,
    "unshelve": 1,
    "migrate": 2,
    "live-migration": 1,
    "evacuate": 1,
}
"""How often an action may switch a guest on."""


async def act_on_life(users: "Users") -> None:
    """One of the actions, on a server in whatever state."""
    ((_, action, what),) = users.chance.choices(ACTIONS, [weight for weight, _, _ in ACTIONS])
    server = users.any_server()
    if server is not None:
        await users.act(server, what, {action: _body(users, action)})


SEQUELS: Final[dict[str, tuple[tuple[str, str], ...]]] = {
    "PAUSED": (("unpause", "unpause"),),
    "SUSPENDED": (("resume", "resume"),),
    "RESCUE": (("unrescue", "unrescue"),),
    "VERIFY_RESIZE": (("confirmResize", "confirmResize"), ("revertResize", "revertResize")),
    "SHELVED": (("unshelve", "unshelve"), ("shelveOffload", "shelveOffload")),
    "SHELVED_OFFLOADED": (("unshelve", "unshelve"),),
    "ERROR": (("reboot", "reboot"), ("rebuild", "rebuild"), ("rescue", "rescue")),
}
"""What users do next with a server that they find so: (the action, what the record of it is called)."""


async def carry_on(users: "Users") -> None:
    """Somebody looks at a server, and does what its state asks for."""
    server = users.any_server()
    shown = None if server is None else await users.ask("GET", f"{COMPUTE}/servers/{server.id}", server.project)
    if server is None or shown is None or not shown.is_good:
        return
    known = SEQUELS.get(shown.body["server"]["status"])
    if known is not None:
        action, what = users.chance.choice(known)
        await users.act(server, what, {action: _body(users, action)})


def _body(users: "Users", action: str) -> Any:
    if action == "rebuild":
        return {"imageRef": ground.IMAGE}
    if action == "resize":
        return {"flavorRef": users.chance.choice(users.flavors)}
    if action == "createImage":
        return {"name": users.name("image")}
    if action == "reboot":
        return {"type": "HARD"}
    return None


async def attach_interface(users: "Users") -> None:
    """A new port, or one of the users' own."""
    server = users.any_server()
    if server is None:
        return
    wanted: dict[str, str] = {"net_id": users.chance.choice(ground.NETWORKS[server.project])}
    mine = [port for port in users.ports if port.project == server.project]
    if mine and users.chance.random() < 0.4:
        wanted = {"port_id": users.chance.choice(mine[-6:]).id}
    path = f"{COMPUTE}/servers/{server.id}/os-interface"
    answer = await users.ask("POST", path, server.project, {"interfaceAttachment": wanted})
    users.note_accepted(answer, server.id, "attach_interface")


async def detach_interface(users: "Users") -> None:
    """One that the server has."""
    server = users.any_server()
    if server is None:
        return
    path = f"{COMPUTE}/servers/{server.id}/os-interface"
    listed = await users.ask("GET", path, server.project)
    if listed is None or not listed.is_good or not listed.body["interfaceAttachments"]:
        return
    port_id = users.chance.choice(listed.body["interfaceAttachments"])["port_id"]
    answer = await users.ask("DELETE", f"{path}/{port_id}", server.project)
    users.note_accepted(answer, server.id, "detach_interface")


async def hold_interfaces(users: "Users") -> None:
    """A guest does not let go of what it should lose; or does so again."""
    agent = users.any_agent()
    running = agent.site.running()
    if running:
        agent.site.host.hold_nics(users.chance.choice(running), users.chance.random() < 0.4)


async def change_server_groups(users: "Users") -> None:
    """A new group, or one less."""
    project = users.any_project()
    path = f"{COMPUTE}/os-server-groups"
    mine = [group_id for owner, group_id in users.server_groups if owner == project]
    if mine and users.chance.random() < 0.4:
        group_id = users.chance.choice(mine)
        answer = await users.ask("DELETE", f"{path}/{group_id}", project)
        if answer is not None and answer.is_good and (project, group_id) in users.server_groups:
            users.server_groups.remove((project, group_id))
        return
    policy = users.chance.choice(("affinity", "anti-affinity", "soft-affinity", "soft-anti-affinity"))
    body = {"server_group": {"name": users.name("group"), "policies": [policy]}}
    answer = await users.ask("POST", path, project, body)
    if answer is not None and answer.is_good:
        users.server_groups.append((project, answer.body["server_group"]["id"]))


OPERATIONS: Final[tuple[tuple[int, Callable[["Users"], Awaitable[None]]], ...]] = (
    (22, act_on_life),
    (10, carry_on),
    (4, attach_interface),
    (4, detach_interface),
    (1, hold_interfaces),
    (1, change_server_groups),
)


class ImageStore:
    """Where hosts bring captures: the store takes them, as the channel of a controller that lives would."""

    def __init__(self, simulation: "Simulation") -> None:
        self._simulation = simulation

    def take(self, offer: Offer) -> None:
        """Raises Failed where the channel would refuse."""
        found = re.fullmatch(r"https://[^/]+/image/([^/]+)", offer.url)
        assert found is not None, f"no offer of a controller: {offer.url}"
        if not any(party.is_ready for party in self._simulation.controllers):
            raise Failed("nobody listens")
        self._simulation.database.build(lambda tx: _activate(tx, found[1]))


def _activate(tx: Tx, image_id: str) -> None:
    row = image_store.find(tx, image_id)
    if row is None or row.status is not Status.QUEUED:
        raise Failed("refused with 409")
    facts = {"size": 1 << 20, "virtual_size": 100 << 20, "sha256": f"{image_id.replace('-', ''):0<64}"}
    image_store.update(tx, image_id, row.updated_at, status=Status.ACTIVE, **facts)

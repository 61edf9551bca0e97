"""Security groups and their members: all of them are one state of the packet filter."""

from agent.effects import Effects
from agent.nouns import Key, Noun
from agent.tracks import Waiting
from agent.turn import Turn
from agent.wire.group import GroupStatus
from agent.wire.lifecycle import Progress


async def ensure(fx: Effects, turn: Turn) -> GroupStatus:
    """The filter says what the ledger says."""
    await fx.apply_filter()
    return GroupStatus(id=turn.key.id, generation=turn.entry.generation, progress=Progress.READY)


async def absent(fx: Effects, turn: Turn) -> None:
    """A group goes after the last port that has it; until then its rules stay as they were."""
    if turn.key.noun is Noun.GROUP:
        for port in sorted(fx.wired.values(), key=lambda port: port.id):
            if turn.key.id in port.groups:
                user = Key(Noun.PORT, port.id)
                raise Waiting(user, f"{turn.key} is still used by {user}", is_coming=False)
    await fx.apply_filter()

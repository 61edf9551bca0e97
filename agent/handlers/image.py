"""Calls about images in the cache."""

from agent.converge import image
from agent.handlers.objects import Desk, Routes, converging
from agent.ledger import Entry
from agent.nouns import Noun
from agent.wire.bus import Message, answering
from agent.wire.image import ABSENT, ENSURE, GET, LIST, ImageList, ImageStatus
from agent.wire.lifecycle import Progress
from agent.wire.specs import Empty


def routes(desk: Desk) -> Routes:
    """See agent.wire.image."""

    async def on_list(_: Empty, message: Message) -> ImageList:
        here = [entry for entry in desk.fx.ledger.rows(Noun.IMAGE) if _is_here(entry)]
        used = tuple(entry.key.id for entry in here if image.users(desk.fx, entry.key.id))
        return ImageList(images=tuple(_status(desk, entry) for entry in here), used=used)

    def _is_here(entry: Entry) -> bool:
        return desk.reconciler.progress(entry) is not Progress.ABSENT

    return {**converging(desk, Noun.IMAGE, ENSURE, ABSENT, GET), LIST.name: answering(LIST, on_list)}


def _status(desk: Desk, entry: Entry) -> ImageStatus:
    found = desk.reconciler.status(entry.key)
    assert isinstance(found, ImageStatus), "statuses are kept by noun"
    return found

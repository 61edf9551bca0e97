"""Calls about the host itself."""

from typing import Final

from agent.doctor import Doctor
from agent.handlers.objects import Desk, Routes
from agent.inventory import Inventories
from agent.ledger import short
from agent.wire.bus import Message, answering
from agent.wire.errors import Invalid
from agent.wire.host import DOCTOR, INVENTORY, LEDGER, CheckUp, Inventory, LedgerPage, LedgerRequest
from agent.wire.specs import Empty

PAGE_MAX: Final = 1000
"""Rows of the ledger in one answer: some 150 KiB."""


def routes(desk: Desk, inventories: Inventories, doctor: Doctor) -> Routes:
    """See agent.wire.host."""

    async def on_get(_: Empty, message: Message) -> Inventory:
        return inventories.inventory()

    async def on_ledger(request: LedgerRequest, message: Message) -> LedgerPage:
        return page(desk, request.after)

    async def on_doctor(_: Empty, message: Message) -> CheckUp:
        return await doctor.check_up()

    return {
        INVENTORY.name: answering(INVENTORY, on_get),
        LEDGER.name: answering(LEDGER, on_ledger),
        DOCTOR.name: answering(DOCTOR, on_doctor),
    }


def page(desk: Desk, after: str | None) -> LedgerPage:
    """The rows behind the cursor `after` (`noun/id` of the last row of the page before)."""
    begin = ("", "")
    if after is not None:
        noun, slash, name = after.partition("/")
        if not slash:
            raise Invalid(f"{after[:80]!r} is no cursor")
        begin = (noun, name)
    rows = [entry for entry in desk.fx.ledger.entries() if (entry.key.noun.value, entry.key.id) > begin]
    entries = tuple(short(entry, desk.reconciler.progress(entry)) for entry in rows[:PAGE_MAX])
    cursor = f"{entries[-1].noun}/{entries[-1].id}" if len(rows) > PAGE_MAX else None
    return LedgerPage(entries=entries, next=cursor)

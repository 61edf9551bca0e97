"""Write the contract down: a JSON schema of everything on the wire, and one golden message of every kind.

    python -m tests.wire.regenerate

A change of the contract then shows in review as a change of these files.
"""

import json
import re
from pathlib import Path
from typing import Any

import msgspec

from agent.wire.contract import CALLS, EVENTS, QUESTIONS
from agent.wire.host import JoinReply, JoinRequest, Refusal, RenewReply, RenewRequest
from agent.wire.specs import EventEnvelope, Reply
from tests.wire import samples

GOLDEN = Path(__file__).parent / "golden"

CHANNEL: dict[str, type[Any]] = {
    "join.request": JoinRequest,
    "join.reply": JoinReply,
    "renew.request": RenewRequest,
    "renew.reply": RenewReply,
    "refusal": Refusal,
}
"""What travels over the host channel."""


def kinds() -> dict[str, type[Any]]:
    """Every message, by the name of its golden file."""
    found: dict[str, type[Any]] = {}
    for row in (*CALLS, *QUESTIONS):
        found[f"{row.name}.request"] = row.request
        found[f"{row.name}.reply"] = row.reply
    found |= {f"event.{noun}": body for noun, body in EVENTS.items()}
    return found | CHANNEL


def schema() -> str:
    """The schema of the whole contract."""
    every = kinds()
    types = [*dict.fromkeys(every.values()), Reply, EventEnvelope]
    references, components = msgspec.json.schema_components(types, ref_template="#/types/{name}")
    named = dict(zip(types, references, strict=True))
    document = {
        "calls": {
            row.name: {"request": named[row.request], "reply": named[row.reply], "timeout_s": row.timeout_s}
            for row in (*CALLS, *QUESTIONS)
        },
        "events": {noun: named[body] for noun, body in EVENTS.items()},
        "channel": {name: named[kind] for name, kind in CHANNEL.items()},
        "types": components,
    }
    return re.sub(r" +$", "", json.dumps(document, indent=1, sort_keys=True), flags=re.MULTILINE) + "\n"


def message(kind: type[Any]) -> str:
    """One golden message."""
    return msgspec.json.format(msgspec.json.encode(samples.full(kind)), indent=1).decode() + "\n"


def files() -> dict[Path, str]:
    """Everything that should be in the folder."""
    return {GOLDEN / "schema.json": schema()} | {
        GOLDEN / f"{name}.json": message(kind) for name, kind in sorted(kinds().items())
    }


def main() -> None:
    """Write them, and remove what is of no message any more."""
    GOLDEN.mkdir(exist_ok=True)
    wanted = files()
    for stale in set(GOLDEN.glob("*.json")) - set(wanted):
        stale.unlink()
    for path, text in wanted.items():
        path.write_text(text)


if __name__ == "__main__":
    main()

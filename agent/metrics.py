"""What operators watch of one host."""

from collections import Counter

from agent.effects import Effects
from agent.nouns import Noun
from agent.probe import Probe
from agent.tracks import progress
from agent.wire.domain import DomainStatus
from agent.wire.exposition import metric


def page(fx: Effects, probe: Probe) -> str:
    """The page now."""
    objects: Counter[tuple[str, str]] = Counter()
    powers: Counter[str] = Counter()
    for entry in fx.ledger.entries():
        track = fx.tracks.get(entry.key)
        objects[entry.key.noun.value, progress(entry, track).value] += 1
        if entry.key.noun is Noun.DOMAIN and track is not None and isinstance(track.seen, DomainStatus):
            powers[track.seen.power.value] += 1
    parts = (
        metric(
            "hostler_agent_objects",
            "Objects in the ledger, by how far they are.",
            [({"noun": noun, "progress": how}, count) for (noun, how), count in sorted(objects.items())],
        ),
        metric(
            "hostler_agent_domains",
            "Domains, by power state.",
            [({"power": power}, count) for power, count in sorted(powers.items())],
        ),
        metric(
            "hostler_agent_driver_timeouts",
            "Time-outs of a driver in a row; at 3 it is left alone for a while.",
            [({"driver": name}, one.timeouts) for name, one in sorted(fx.blocking.breakers.items())],
        ),
        metric(
            "hostler_agent_disk_free_bytes",
            "Free where guests' disks lie.",
            [({}, probe.facts().disk_free_gib << 30)],
        ),
        metric("hostler_agent_strangers", "Objects on the host that nobody asked for.", [({}, len(fx.unknown()))]),
    )
    return "".join(parts)

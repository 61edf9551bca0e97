"""The converge functions of every noun."""

from typing import Final

from agent.converge import capture, disk, domain, export, forwarding, group, image, network, port, router, volume
from agent.nouns import Noun
from agent.reconciler import Converge

TABLE: Final[dict[Noun, Converge]] = {
    Noun.NETWORK: Converge(network.ensure, network.absent),
    Noun.FORWARDING: Converge(forwarding.ensure, forwarding.absent),
    Noun.GROUP: Converge(group.ensure, group.absent),
    Noun.ADDRESSES: Converge(group.ensure, group.absent),
    Noun.IMAGE: Converge(image.ensure, image.absent),
    Noun.VOLUME: Converge(volume.ensure, volume.absent),
    Noun.SNAPSHOT: Converge(volume.ensure_snapshot, volume.absent_snapshot),
    Noun.EXPORT: Converge(export.ensure, export.absent),
    Noun.DISK: Converge(disk.ensure, disk.absent),
    Noun.PORT: Converge(port.ensure, port.absent),
    Noun.ROUTER: Converge(router.ensure, router.absent),
    Noun.DOMAIN: Converge(domain.ensure, domain.absent),
    Noun.CAPTURE: Converge(capture.ensure, capture.absent),
}

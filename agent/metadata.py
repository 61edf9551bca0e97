"""Who is told what: from the ledger's domains and ports to documents by (network, source address). Pure."""

from agent.guarding import Documents
from agent.ledger import Ledger
from agent.nouns import Key, Noun
from agent.wire.domain import DomainSpec, GuestData
from agent.wire.port import PortSpec


def documents(ledger: Ledger) -> Documents:
    """The documents of every guest of this host.

    A guest is known by its address in its network, which anti-spoofing keeps honest. What a guest says of itself
    plays no part. A port that is being removed speaks for nobody.
    """
    found: dict[tuple[str, str], GuestData] = {}
    for domain in ledger.specs(Noun.DOMAIN):
        assert isinstance(domain, DomainSpec), "the ledger keeps specs by noun"
        for nic in domain.nics:
            entry = ledger.find(Key(Noun.PORT, nic.port_id))
            if entry is None or entry.absent or not isinstance(entry.spec, PortSpec):
                continue
            if entry.spec.domain_id != domain.id:
                continue
            for fixed in entry.spec.fixed_ips:
                found[entry.spec.network_id, fixed.address] = domain.guest
    return found

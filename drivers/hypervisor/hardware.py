"""How the hardware that was asked for becomes the hardware that a guest keeps for ever. Pure; all drivers use it."""

from typing import Final

import msgspec

from agent.wire.domain import Hardware

ALIASES: Final = ("q35", "pc")
"""Machine types that mean "the newest of this family", which another host or an upgrade would read differently."""

HOST_DEFAULT: Final = "host-default"


def resolved(asked: Hardware, known: Hardware | None, *, machine: str, cpu_model: str) -> Hardware:
    """`asked` without aliases: what the domain has already (`known`), else what this host makes of them now."""
    return msgspec.structs.replace(
        asked,
        machine=(known.machine if known else machine) if asked.machine in ALIASES else asked.machine,
        cpu_model=(known.cpu_model if known else cpu_model) if asked.cpu_model == HOST_DEFAULT else asked.cpu_model,
    )

"""The collector's settings, their defaults, and what each is for. In collector.toml, or HOSTLER_COLLECTOR_<KEY>."""

from pathlib import Path

import msgspec


class Collector(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Section [collector]."""

    state: str = (
        "/var/lib/hostler/collector"  # collector.jwt, collector.seed and ca.pem, from the controller's machine.
    )
    nats: tuple[str, ...] = ("tls://127.0.0.1:4222",)
    metrics_listen: str = "127.0.0.1:9466"  # What Prometheus scrapes.
    uid: int = 65530  # What it becomes when it is started as root. It owns nothing else on the machine.
    period_s: float = 10.0  # Between two measurements of one host. Shorter than Prometheus scrapes is of no use.
    log_level: str = "info"

    @property
    def folder(self) -> Path:
        """Where its credentials are."""
        return Path(self.state)


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything in collector.toml."""

    collector: Collector = Collector()

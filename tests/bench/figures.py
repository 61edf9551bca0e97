"""Real OpenStack's figures on this kind of machine (two cores), and what we must reach. See docs/benchmarks.md."""

from typing import NamedTuple


class Row(NamedTuple):
    """One measure. `openstack` (None: not measured there) and `goal` are in `unit`; `is_binding`: we promise it."""

    key: str
    title: str
    unit: str
    openstack: float | None
    goal: float
    is_rate: bool = False  # More is better.
    is_binding: bool = False


ROWS = (
    Row("idle_memory", "memory of the control plane, idle", "MiB", 2447, 240, is_binding=True),
    Row("loaded_memory", "memory after 200 servers", "MiB", 3117, 300, is_binding=True),
    Row("idle_cpu", "idle CPU", "% of a core", 7, 1.5, is_binding=True),
    Row("growth_server", "GET one at 10,000 servers / at 100: CPU", "times", None, 1.2, is_binding=True),
    Row("growth_page", "one page of a list at 10,000 / at 100: CPU", "times", None, 1.2, is_binding=True),
    Row("usable", "bare machine to usable cloud, warm", "s", 464, 15),
    Row("token_validate_cpu", "validate token: CPU a request", "ms", 16.5, 0.25),
    Row("token_validate_rate", "validate token: rate, 16 connections", "/s", 99, 4000, is_rate=True),
    Row("token_password_p50", "password login: p50 alone", "ms", 224, 60),
    Row("login_p99", "others' p99 during logins / without", "times", None, 1.5),
    Row("flavors_cpu", "GET flavors/detail: CPU a request", "ms", 10.3, 0.25),
    Row("flavors_rate", "GET flavors/detail: rate", "/s", 178, 4000, is_rate=True),
    Row("images_cpu", "GET images: CPU a request", "ms", 12.3, 0.3),
    Row("images_rate", "GET images: rate", "/s", 155, 3000, is_rate=True),
    Row("server_cpu", "GET server: CPU a request", "ms", 92, 0.4),
    Row("server_rate", "GET server: rate", "/s", 20.7, 2000, is_rate=True),
    Row("server_p50", "GET server: p50 alone", "ms", 93, 1.5),
    Row("servers_10_cpu", "GET servers/detail, 10 servers: CPU", "ms", 141, 0.8),
    Row("servers_10_rate", "GET servers/detail, 10 servers: rate", "/s", 13.7, 1000, is_rate=True),
    Row("servers_200_cpu", "GET servers/detail, 200 servers: CPU", "ms", 662, 5),
    Row("servers_200_rate", "GET servers/detail, 200 servers: rate", "/s", 2.7, 200, is_rate=True),
    Row("create_accepted", "POST server: accepted p50", "ms", 369, 10),
    Row("create_active", "POST server: until ACTIVE p50", "ms", 2330, 60),
    Row("burst_accepted", "burst of 100: all accepted", "s", 73, 1.5),
    Row("burst_active", "burst of 100: all ACTIVE", "s", 182, 3),
    Row("burst_2_active", "second burst of 100: all ACTIVE", "s", 344, 3),
    Row("burst_growth", "second burst / first", "times", 1.89, 1.0),
    Row("create_cpu", "burst: CPU a server", "ms", 3400, 25),
    Row("client_list", "openstack server list, beyond its --help", "ms", 650, 150),
    Row("delete_gone", "delete 200: all gone", "s", 245, 5),
    Row("delete_cpu", "delete: CPU a server", "ms", 1700, 20),
)

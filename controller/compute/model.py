"""What a server is and which life it can lead.

Theory of operation. A server has three states that clients know from Nova: `vm_state` (what it is when nobody
works on it), `task_state` (who works on it now, or none) and `power_state` (what the host last saw). The table
`LIFECYCLE` is the whole truth about who may change the first two: each event names the states it may come in
and what follows. A request takes an event by one conditional UPDATE made from its rule, in the transaction that
also inserts the saga; whoever loses that race gets 409 before anything happened. So the task state is the lock,
and no two sagas work on one server, with one exception: a delete comes in every state. It asks the others to
stop, and waits until they rest before it touches anything (`is_deleting` keeps new ones out).
"""

import enum
import functools
import hashlib
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from controller.errors import Conflict


class VmState(enum.StrEnum):
    """Stable states, spelled as Nova stores them."""

    BUILDING = "building"
    ACTIVE = "active"
    STOPPED = "stopped"
    PAUSED = "paused"
    SUSPENDED = "suspended"
    RESCUED = "rescued"
    RESIZED = "resized"  # And neither confirmed nor reverted.
    SHELVED = "shelved"
    SHELVED_OFFLOADED = "shelved_offloaded"
    ERROR = "error"
    DELETED = "deleted"


class TaskState(enum.StrEnum):
    """What is being done, spelled as Nova does."""

    SCHEDULING = "scheduling"
    SPAWNING = "spawning"
    POWERING_ON = "powering-on"
    POWERING_OFF = "powering-off"
    REBOOTING = "rebooting"
    REBOOTING_HARD = "rebooting_hard"
    PAUSING = "pausing"
    UNPAUSING = "unpausing"
    SUSPENDING = "suspending"
    RESUMING = "resuming"
    RESCUING = "rescuing"
    UNRESCUING = "unrescuing"
    REBUILDING = "rebuilding"
    REBUILD_SPAWNING = "rebuild_spawning"
    RESIZE_PREP = "resize_prep"
    RESIZE_MIGRATING = "resize_migrating"
    RESIZE_FINISH = "resize_finish"
    RESIZE_CONFIRMING = "resize_confirming"
    RESIZE_REVERTING = "resize_reverting"
    IMAGE_SNAPSHOT = "image_snapshot"
    SHELVING = "shelving"
    SHELVING_OFFLOADING = "shelving_offloading"
    UNSHELVING = "unshelving"
    MIGRATING = "migrating"
    DELETING = "deleting"


GONE: Final = "gone"
"""Beside the powers that a server's `desired` may have: its own saga takes the domain off its host."""


class PowerState(enum.IntEnum):
    """Nova's numbers."""

    NOSTATE = 0
    RUNNING = 1
    PAUSED = 3
    SHUTDOWN = 4
    CRASHED = 6


class Event(enum.StrEnum):
    """What can happen to a server. Requests first, then what their sagas report, then what hosts report."""

    START = "start"
    STOP = "stop"
    REBOOT_SOFT = "reboot-soft"
    REBOOT_HARD = "reboot-hard"
    PAUSE = "pause"
    UNPAUSE = "unpause"
    SUSPEND = "suspend"
    RESUME = "resume"
    RESCUE = "rescue"
    UNRESCUE = "unrescue"
    REBUILD = "rebuild"
    RESIZE = "resize"
    CONFIRM_RESIZE = "confirm-resize"
    REVERT_RESIZE = "revert-resize"
    CREATE_IMAGE = "create-image"
    SHELVE = "shelve"
    OFFLOAD = "offload"
    UNSHELVE = "unshelve"
    MIGRATE = "migrate"
    EVACUATE = "evacuate"
    LIVE_MIGRATE = "live-migrate"
    ATTACH_INTERFACE = "attach-interface"
    DETACH_INTERFACE = "detach-interface"
    DELETE = "delete"
    RESET_ACTIVE = "reset-active"
    RESET_ERROR = "reset-error"
    PLACED = "placed"
    BUILT = "built"
    BUILD_FAILED = "build-failed"
    STARTED = "started"
    START_FAILED = "start-failed"
    STOPPED = "stopped"
    STOP_FAILED = "stop-failed"
    REBOOTED = "rebooted"
    REBOOT_FAILED = "reboot-failed"
    PAUSED = "paused"
    PAUSE_FAILED = "pause-failed"
    UNPAUSED = "unpaused"
    UNPAUSE_FAILED = "unpause-failed"
    SUSPENDED = "suspended"
    SUSPEND_FAILED = "suspend-failed"
    RESUMED = "resumed"
    RESUME_FAILED = "resume-failed"
    WAS_OFF = "was-off"
    RESCUED = "rescued"
    RESCUE_FAILED = "rescue-failed"
    UNRESCUED_ON = "unrescued-on"
    UNRESCUED_OFF = "unrescued-off"
    UNRESCUE_FAILED = "unrescue-failed"
    REBUILDING = "rebuilding"
    REBUILT_ON = "rebuilt-on"
    REBUILT_OFF = "rebuilt-off"
    REBUILD_FAILED = "rebuild-failed"
    RESIZE_PLACED = "resize-placed"
    RESIZE_MOVED = "resize-moved"
    RESIZED = "resized"
    RESIZE_UNDONE_ON = "resize-undone-on"
    RESIZE_UNDONE_OFF = "resize-undone-off"
    RESIZE_FAILED = "resize-failed"
    CONFIRMED_ON = "confirmed-on"
    CONFIRMED_OFF = "confirmed-off"
    WAITS_FOR_WORD = "waits-for-word"
    REVERTED_ON = "reverted-on"
    REVERTED_OFF = "reverted-off"
    REVERT_FAILED = "revert-failed"
    IMAGE_CREATED = "image-created"
    SHELVED = "shelved"
    SHELVE_UNDONE_ON = "shelve-undone-on"
    SHELVE_UNDONE_OFF = "shelve-undone-off"
    SHELVE_FAILED = "shelve-failed"
    OFFLOADING = "offloading"
    OFFLOADED = "offloaded"
    UNSHELVE_PLACED = "unshelve-placed"
    UNSHELVED = "unshelved"
    UNSHELVE_FAILED = "unshelve-failed"
    EVACUATED_ON = "evacuated-on"
    EVACUATED_OFF = "evacuated-off"
    EVACUATE_FAILED = "evacuate-failed"
    MIGRATE_FAILED = "migrate-failed"
    LIVE_ARRIVED = "live-arrived"
    LIVE_UNDONE = "live-undone"
    DELETE_OVERDUE = "delete-overdue"
    DELETED = "deleted"
    WENT_DOWN = "went-down"
    CAME_UP = "came-up"


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """When an event may come, and what follows. `None` in `vm_states` and `task_states` of a rule: any."""

    vm_states: frozenset[VmState] | None
    task_states: frozenset[TaskState | None] | None
    vm_state: VmState | None = None  # None: stays.
    task_state: TaskState | None = None
    power_state: PowerState | None = None  # None: stays.
    verb: str = ""  # For requests: as Nova's refusals call it.


def _rule(vm: tuple[VmState, ...] | None, task: tuple[TaskState | None, ...] | None, **then: Any) -> Rule:
    return Rule(
        vm_states=None if vm is None else frozenset(vm),
        task_states=None if task is None else frozenset(task),
        **then,
    )


_V, _T, _P = VmState, TaskState, PowerState
_LIVE: Final = tuple(state for state in VmState if state is not _V.DELETED)
_ON: Final = {"vm_state": _V.ACTIVE, "power_state": _P.RUNNING}
_OFF: Final = {"vm_state": _V.STOPPED, "power_state": _P.SHUTDOWN}

_RESIZING: Final = (_T.RESIZE_PREP, _T.RESIZE_MIGRATING, _T.RESIZE_FINISH)
_REBOOTABLE: Final = (_V.ACTIVE, _V.STOPPED, _V.PAUSED, _V.SUSPENDED, _V.ERROR)
_SHELVABLE: Final = (_V.ACTIVE, _V.STOPPED, _V.PAUSED, _V.SUSPENDED)
_PLUGGABLE: Final = (_V.ACTIVE, _V.PAUSED, _V.STOPPED)
_RESETTABLE: Final = (_V.ACTIVE, _V.STOPPED, _V.PAUSED, _V.SUSPENDED, _V.ERROR)

SETTLED: Final = (
    _V.ACTIVE, _V.STOPPED, _V.PAUSED, _V.SUSPENDED, _V.RESCUED, _V.RESIZED, _V.SHELVED
)  # fmt: skip
"""States of a server that is on its host, as its row says."""

LIFECYCLE: Final[Mapping[Event, Rule]] = {
    Event.START: _rule((_V.STOPPED,), (None,), task_state=_T.POWERING_ON, verb="start"),
    Event.STOP: _rule((_V.ACTIVE, _V.ERROR), (None,), task_state=_T.POWERING_OFF, verb="stop"),
    Event.REBOOT_SOFT: _rule((_V.ACTIVE,), (None,), task_state=_T.REBOOTING, verb="reboot"),
    Event.REBOOT_HARD: _rule(_REBOOTABLE, (None,), task_state=_T.REBOOTING_HARD, verb="reboot"),
    Event.PAUSE: _rule((_V.ACTIVE,), (None,), task_state=_T.PAUSING, verb="pause"),
    Event.UNPAUSE: _rule((_V.PAUSED,), (None,), task_state=_T.UNPAUSING, verb="unpause"),
    Event.SUSPEND: _rule((_V.ACTIVE,), (None,), task_state=_T.SUSPENDING, verb="suspend"),
    Event.RESUME: _rule((_V.SUSPENDED,), (None,), task_state=_T.RESUMING, verb="resume"),
    Event.RESCUE: _rule((_V.ACTIVE, _V.STOPPED, _V.ERROR), (None,), task_state=_T.RESCUING, verb="rescue"),
    Event.UNRESCUE: _rule((_V.RESCUED,), (None,), task_state=_T.UNRESCUING, verb="unrescue"),
    Event.REBUILD: _rule((_V.ACTIVE, _V.STOPPED, _V.ERROR), (None,), task_state=_T.REBUILDING, verb="rebuild"),
    Event.RESIZE: _rule((_V.ACTIVE, _V.STOPPED), (None,), task_state=_T.RESIZE_PREP, verb="resize"),
    Event.CONFIRM_RESIZE: _rule((_V.RESIZED,), (None,), task_state=_T.RESIZE_CONFIRMING, verb="confirmResize"),
    Event.REVERT_RESIZE: _rule((_V.RESIZED,), (None,), task_state=_T.RESIZE_REVERTING, verb="revertResize"),
    Event.CREATE_IMAGE: _rule(_SHELVABLE, (None,), task_state=_T.IMAGE_SNAPSHOT, verb="createImage"),
    Event.SHELVE: _rule(_SHELVABLE, (None,), task_state=_T.SHELVING, verb="shelve"),
    Event.OFFLOAD: _rule((_V.SHELVED,), (None,), task_state=_T.SHELVING_OFFLOADING, verb="shelveOffload"),
    Event.UNSHELVE: _rule((_V.SHELVED, _V.SHELVED_OFFLOADED), (None,), task_state=_T.UNSHELVING, verb="unshelve"),
    Event.MIGRATE: _rule((_V.ACTIVE, _V.STOPPED), (None,), task_state=_T.RESIZE_PREP, verb="migrate"),
    Event.EVACUATE: _rule((_V.ACTIVE, _V.STOPPED, _V.ERROR), (None,), task_state=_T.REBUILDING, verb="evacuate"),
    Event.LIVE_MIGRATE: _rule((_V.ACTIVE, _V.PAUSED), (None,), task_state=_T.MIGRATING, verb="os-migrateLive"),
    # Interfaces and volumes come and go beside each other: they take no task state, and exclude nothing but tasks.
    Event.ATTACH_INTERFACE: _rule(_PLUGGABLE, (None,), verb="attach_interface"),
    Event.DETACH_INTERFACE: _rule(_PLUGGABLE, (None,), verb="detach_interface"),
    Event.DELETE: _rule(_LIVE, None, task_state=_T.DELETING, verb="delete"),
    Event.RESET_ACTIVE: _rule(_RESETTABLE, None, vm_state=_V.ACTIVE, verb="os-resetState"),
    Event.RESET_ERROR: _rule(_LIVE, None, vm_state=_V.ERROR, verb="os-resetState"),
    Event.PLACED: _rule((_V.BUILDING,), (_T.SCHEDULING, _T.SPAWNING), task_state=_T.SPAWNING),
    Event.BUILT: _rule((_V.BUILDING,), (_T.SPAWNING,), **_ON),
    Event.BUILD_FAILED: _rule((_V.BUILDING, _V.ERROR), None, vm_state=_V.ERROR, power_state=_P.NOSTATE),
    Event.STARTED: _rule((_V.STOPPED,), (_T.POWERING_ON,), **_ON),
    Event.START_FAILED: _rule((_V.STOPPED,), (_T.POWERING_ON,), vm_state=_V.ERROR),
    Event.STOPPED: _rule((_V.ACTIVE, _V.ERROR), (_T.POWERING_OFF,), **_OFF),
    Event.STOP_FAILED: _rule((_V.ACTIVE, _V.ERROR), (_T.POWERING_OFF,), vm_state=_V.ERROR),
    Event.REBOOTED: _rule(_REBOOTABLE, (_T.REBOOTING, _T.REBOOTING_HARD), **_ON),
    Event.REBOOT_FAILED: _rule(_REBOOTABLE, (_T.REBOOTING, _T.REBOOTING_HARD), vm_state=_V.ERROR),
    Event.PAUSED: _rule((_V.ACTIVE,), (_T.PAUSING,), vm_state=_V.PAUSED, power_state=_P.PAUSED),
    Event.PAUSE_FAILED: _rule((_V.ACTIVE,), (_T.PAUSING,), vm_state=_V.ERROR),
    Event.UNPAUSED: _rule((_V.PAUSED,), (_T.UNPAUSING,), **_ON),
    Event.UNPAUSE_FAILED: _rule((_V.PAUSED,), (_T.UNPAUSING,), vm_state=_V.ERROR),
    Event.SUSPENDED: _rule((_V.ACTIVE,), (_T.SUSPENDING,), vm_state=_V.SUSPENDED, power_state=_P.SHUTDOWN),
    Event.SUSPEND_FAILED: _rule((_V.ACTIVE,), (_T.SUSPENDING,), vm_state=_V.ERROR),
    Event.RESUMED: _rule((_V.SUSPENDED,), (_T.RESUMING,), **_ON),
    Event.RESUME_FAILED: _rule((_V.SUSPENDED,), (_T.RESUMING,), vm_state=_V.ERROR),
    Event.WAS_OFF: _rule((_V.ACTIVE,), (_T.PAUSING, _T.SUSPENDING), **_OFF),
    Event.RESCUED: _rule(
        (_V.ACTIVE, _V.STOPPED, _V.ERROR), (_T.RESCUING,), vm_state=_V.RESCUED, power_state=_P.RUNNING
    ),
    Event.RESCUE_FAILED: _rule((_V.ACTIVE, _V.STOPPED, _V.ERROR), (_T.RESCUING,), vm_state=_V.ERROR),
    Event.UNRESCUED_ON: _rule(None, (_T.RESCUING, _T.UNRESCUING), **_ON),
    Event.UNRESCUED_OFF: _rule(None, (_T.RESCUING, _T.UNRESCUING), **_OFF),
    Event.UNRESCUE_FAILED: _rule((_V.RESCUED,), (_T.UNRESCUING,), vm_state=_V.ERROR),
    Event.REBUILDING: _rule(None, (_T.REBUILDING, _T.REBUILD_SPAWNING), task_state=_T.REBUILD_SPAWNING),
    Event.REBUILT_ON: _rule(None, (_T.REBUILDING, _T.REBUILD_SPAWNING), **_ON),
    Event.REBUILT_OFF: _rule(None, (_T.REBUILDING, _T.REBUILD_SPAWNING), **_OFF),
    Event.REBUILD_FAILED: _rule(None, (_T.REBUILDING, _T.REBUILD_SPAWNING), vm_state=_V.ERROR),
    Event.RESIZE_PLACED: _rule(None, (_T.RESIZE_PREP, _T.RESIZE_MIGRATING), task_state=_T.RESIZE_MIGRATING),
    Event.RESIZE_MOVED: _rule(None, (_T.RESIZE_MIGRATING, _T.RESIZE_FINISH), task_state=_T.RESIZE_FINISH),
    Event.RESIZED: _rule((_V.ACTIVE, _V.STOPPED), (_T.RESIZE_FINISH,), vm_state=_V.RESIZED),
    Event.RESIZE_UNDONE_ON: _rule(None, _RESIZING, **_ON),
    Event.RESIZE_UNDONE_OFF: _rule(None, _RESIZING, **_OFF),
    Event.RESIZE_FAILED: _rule(None, _RESIZING, vm_state=_V.ERROR),
    Event.CONFIRMED_ON: _rule((_V.RESIZED,), (_T.RESIZE_CONFIRMING,), vm_state=_V.ACTIVE),
    Event.CONFIRMED_OFF: _rule((_V.RESIZED,), (_T.RESIZE_CONFIRMING,), **_OFF),
    Event.WAITS_FOR_WORD: _rule((_V.RESIZED,), (_T.RESIZE_CONFIRMING, _T.RESIZE_REVERTING)),
    Event.REVERTED_ON: _rule((_V.RESIZED,), (_T.RESIZE_REVERTING,), **_ON),
    Event.REVERTED_OFF: _rule((_V.RESIZED,), (_T.RESIZE_REVERTING,), **_OFF),
    Event.REVERT_FAILED: _rule((_V.RESIZED,), (_T.RESIZE_REVERTING,), vm_state=_V.ERROR),
    Event.IMAGE_CREATED: _rule(None, (_T.IMAGE_SNAPSHOT,)),
    Event.SHELVED: _rule(None, (_T.SHELVING,), vm_state=_V.SHELVED, power_state=_P.SHUTDOWN),
    Event.SHELVE_UNDONE_ON: _rule(None, (_T.SHELVING,), **_ON),
    Event.SHELVE_UNDONE_OFF: _rule(None, (_T.SHELVING,), **_OFF),
    Event.SHELVE_FAILED: _rule(None, (_T.SHELVING, _T.SHELVING_OFFLOADING), vm_state=_V.ERROR),
    Event.OFFLOADING: _rule(None, (_T.SHELVING, _T.SHELVING_OFFLOADING), task_state=_T.SHELVING_OFFLOADING),
    Event.OFFLOADED: _rule(None, (_T.SHELVING_OFFLOADING,), vm_state=_V.SHELVED_OFFLOADED, power_state=_P.NOSTATE),
    Event.UNSHELVE_PLACED: _rule(None, (_T.UNSHELVING,), task_state=_T.UNSHELVING),
    Event.UNSHELVED: _rule(None, (_T.UNSHELVING,), **_ON),
    Event.UNSHELVE_FAILED: _rule(None, (_T.UNSHELVING,)),
    Event.EVACUATED_ON: _rule(None, (_T.REBUILDING,), **_ON),
    Event.EVACUATED_OFF: _rule(None, (_T.REBUILDING,), **_OFF),
    Event.EVACUATE_FAILED: _rule(None, (_T.REBUILDING,), vm_state=_V.ERROR),
    Event.MIGRATE_FAILED: _rule(None, (_T.MIGRATING,), vm_state=_V.ERROR),
    Event.LIVE_ARRIVED: _rule(None, (_T.MIGRATING,)),
    Event.LIVE_UNDONE: _rule(None, (_T.MIGRATING,)),
    Event.DELETE_OVERDUE: _rule(_LIVE, None, vm_state=_V.ERROR, power_state=_P.NOSTATE),
    Event.DELETED: _rule(None, None, vm_state=_V.DELETED, power_state=_P.NOSTATE),
    # The guest did it, or the host: only where nobody works on the server, and only where it changes something.
    Event.WENT_DOWN: _rule((_V.ACTIVE, _V.PAUSED), (None,), **_OFF),
    Event.CAME_UP: _rule((_V.STOPPED,), (None,), **_ON),
}


def allows(event: Event, vm_state: str, task_state: str | None) -> bool:
    """Whether the event may come in these states."""
    rule = LIFECYCLE[event]
    return (rule.vm_states is None or vm_state in rule.vm_states) and (
        rule.task_states is None or task_state in rule.task_states
    )


def refusal(event: Event, server_id: str, vm_state: str, task_state: str | None) -> Conflict:
    """The 409 for a request in the wrong state, in the words that clients match on."""
    rule = LIFECYCLE[event]
    by_state = rule.vm_states is not None and vm_state not in rule.vm_states
    attribute, state = ("vm_state", vm_state) if by_state else ("task_state", task_state)
    return Conflict(
        f"Cannot '{rule.verb}' instance {server_id} while it is in {attribute} {state}",
        why={"attribute": attribute, "state": state},
    )


STATUS: Final[Mapping[str, Mapping[str | None, str]]] = {
    _V.ACTIVE: {
        None: "ACTIVE",
        _T.REBOOTING: "REBOOT",
        _T.REBOOTING_HARD: "HARD_REBOOT",
        _T.REBUILDING: "REBUILD",
        _T.REBUILD_SPAWNING: "REBUILD",
        _T.RESIZE_PREP: "RESIZE",
        _T.RESIZE_MIGRATING: "RESIZE",
        _T.RESIZE_FINISH: "RESIZE",
        _T.MIGRATING: "MIGRATING",
    },
    _V.BUILDING: {None: "BUILD"},
    _V.STOPPED: {
        None: "SHUTOFF",
        _T.REBUILDING: "REBUILD",
        _T.REBUILD_SPAWNING: "REBUILD",
        _T.RESIZE_PREP: "RESIZE",
        _T.RESIZE_MIGRATING: "RESIZE",
        _T.RESIZE_FINISH: "RESIZE",
    },
    _V.PAUSED: {None: "PAUSED", _T.MIGRATING: "MIGRATING"},
    _V.SUSPENDED: {None: "SUSPENDED"},
    _V.RESCUED: {None: "RESCUE"},
    _V.RESIZED: {None: "VERIFY_RESIZE", _T.RESIZE_REVERTING: "REVERT_RESIZE"},
    _V.SHELVED: {None: "SHELVED"},
    _V.SHELVED_OFFLOADED: {None: "SHELVED_OFFLOADED"},
    _V.ERROR: {None: "ERROR", _T.REBUILDING: "REBUILD", _T.REBUILD_SPAWNING: "REBUILD"},
    _V.DELETED: {None: "DELETED"},
}
"""What the API calls the pair of states; the entry of None is for every other task."""

OTHER_STATUSES: Final = frozenset({"PASSWORD", "SOFT_DELETED"})
"""Statuses that clients may filter by although no server of ours is ever in them: a filter, not an error."""


def status_of(vm_state: str, task_state: str | None) -> str:
    """ACTIVE, BUILD, SHUTOFF, …"""
    by_task = STATUS[vm_state]  # States compare as the words that rows have.
    return by_task.get(task_state, by_task[None])


class Server(msgspec.Struct, frozen=True):
    """A server's row. Fields stand in the order of the table's columns, so a row becomes one by `Server(*row)`."""

    id: str
    project_id: str
    user_id: str
    name: str
    hostname: str
    description: str | None
    vm_state: str
    task_state: str | None
    power_state: int
    desired: str
    generation: int
    pushed_generation: int
    is_deleting: bool
    locked_by: str | None
    locked_reason: str | None
    host_id: str | None
    host_name: str | None
    availability_zone: str | None
    requested_zone: str | None
    requested_host: str | None
    is_forced_host: bool
    image_id: str | None
    flavor_id: str
    flavor_name: str
    vcpus: int
    memory_mib: int
    disk_gib: int
    ephemeral_gib: int
    swap_mib: int
    extra_specs: dict[str, str]
    root_gib: int
    arch: str | None
    hardware: dict[str, Any]
    key_name: str | None
    key_type: str | None
    public_key: str | None
    meta: dict[str, str]
    config_drive: bool
    has_user_data: bool
    is_auto_disk: bool
    access_ip_v4: str | None
    access_ip_v6: str | None
    hints: dict[str, Any]
    reservation_id: str
    launch_index: int
    progress: int
    created_at: float
    updated_at: float
    launched_at: float | None
    terminated_at: float | None
    deleted_at: float | None
    fault_code: int | None
    fault_message: str | None
    fault_details: str | None
    fault_at: float | None
    rescue_image_id: str | None
    is_rescued: bool
    shelved_image_id: str | None
    shelved_at: float | None
    is_disk_whole: bool  # Its root disk lies upon no image: it has been on a shelf.

    @property
    def status(self) -> str:
        """ACTIVE, BUILD, …"""
        return status_of(self.vm_state, self.task_state)


class Nic(msgspec.Struct, frozen=True):
    """One port of a server, in the order of the table's columns."""

    server_id: str
    position: int
    port_id: str
    is_ours: bool
    network_id: str | None
    fixed_ip: str | None
    groups: list[str]
    tag: str | None
    mac: str | None
    mtu: int | None
    addresses: list[str]


class Flavor(msgspec.Struct, frozen=True):
    """A flavor's row, in the order of the table's columns."""

    id: str
    name: str
    vcpus: int
    memory_mib: int
    disk_gib: int
    ephemeral_gib: int
    swap_mib: int
    rxtx_factor: float
    is_public: bool
    is_disabled: bool
    description: str | None
    extra_specs: dict[str, str]
    created_at: float
    updated_at: float | None


class Keypair(msgspec.Struct, frozen=True):
    """A public key under a user's name for it, in the order of the table's columns."""

    id: int
    user_id: str
    name: str
    type: str
    fingerprint: str
    public_key: str
    created_at: float


class StatusFilter(msgspec.Struct, frozen=True, kw_only=True):
    """`status=` as conditions on the two states. `task_states` None: whatever the task."""

    vm_states: tuple[str, ...]
    task_states: tuple[str, ...] | None


def states_of(statuses: list[str]) -> StatusFilter | None:
    """The states that these statuses (any case) stand for; None when all of them are unknown.

    As in Nova: one status that means `every other task` opens the filter to all tasks.
    """
    wanted = {status.upper() for status in statuses}
    found = [(vm, task) for vm, by_task in STATUS.items() for task, status in by_task.items() if status in wanted]
    if not found:
        known = wanted & OTHER_STATUSES
        return StatusFilter(vm_states=(), task_states=()) if known else None
    tasks = [task for _, task in found]
    open_ended = None in tasks
    return StatusFilter(
        vm_states=tuple(sorted({vm for vm, _ in found})),
        task_states=None if open_ended else tuple(sorted(task for task in tasks if task is not None)),
    )


@functools.lru_cache(maxsize=4096)
def host_digest(project_id: str, host_name: str | None) -> str:
    """`hostId`: tells a project whether two of its servers share a host, and not which."""
    if not host_name:
        return ""
    return hashlib.sha224(f"{project_id}{host_name}".encode()).hexdigest()


def root_disk_id(server_id: str) -> str:
    """The id of a server's local root disk on its host."""
    return f"{server_id}-root"


def rescue_disk_id(server_id: str) -> str:
    """The id of the disk that a server is rescued from, on its host."""
    return f"{server_id}-rescue"


def instance_name(server_id: str) -> str:
    """What the hypervisor calls it: `instance-` and eight hex digits."""
    return f"instance-{server_id[:8]}"

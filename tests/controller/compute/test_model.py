"""The life of a server, and small pure things around it."""

import pytest
import sqlalchemy as sa

from controller.compute import hardware, model, patterns, texts
from controller.compute.model import LIFECYCLE, Event, Flavor, Keypair, Nic, Server, TaskState, VmState
from controller.compute.sagas import faults
from controller.compute.store import Action
from controller.db.tables import compute as tables
from controller.errors import Invalid
from controller.saga.model import Cause

LIVING = tuple(state for state in VmState if state is not VmState.DELETED)
TASKS = (None, *TaskState)


@pytest.mark.parametrize(
    ("struct", "table"),
    [
        (Server, tables.server),
        (Nic, tables.server_nic),
        (Flavor, tables.flavor),
        (Keypair, tables.keypair),
        (Action, tables.server_action),
    ],
)
def test_structs_have_their_tables_columns_in_order(struct: type[Server], table: sa.Table) -> None:
    assert list(struct.__struct_fields__) == [column.name for column in table.columns]


def test_every_event_has_a_rule() -> None:
    assert set(LIFECYCLE) == set(Event)


@pytest.mark.parametrize("vm_state", LIVING)
@pytest.mark.parametrize("task_state", TASKS)
def test_a_delete_is_accepted_in_every_state(vm_state: VmState, task_state: TaskState | None) -> None:
    assert model.allows(Event.DELETE, vm_state, task_state)


REQUESTS = [event for event, rule in LIFECYCLE.items() if rule.verb and rule.task_states == {None}]


@pytest.mark.parametrize("event", REQUESTS)
@pytest.mark.parametrize("task_state", TaskState)
def test_no_action_begins_while_another_is_at_work(event: Event, task_state: TaskState) -> None:
    assert not any(model.allows(event, vm_state, task_state) for vm_state in LIVING)


@pytest.mark.parametrize(
    ("event", "allowed"),
    [
        (Event.START, {VmState.STOPPED}),
        (Event.STOP, {VmState.ACTIVE, VmState.ERROR}),
        (Event.REBOOT_SOFT, {VmState.ACTIVE}),
        (Event.REBOOT_HARD, {VmState.ACTIVE, VmState.STOPPED, VmState.PAUSED, VmState.SUSPENDED, VmState.ERROR}),
        (Event.PAUSE, {VmState.ACTIVE}),
        (Event.UNPAUSE, {VmState.PAUSED}),
        (Event.SUSPEND, {VmState.ACTIVE}),
        (Event.RESUME, {VmState.SUSPENDED}),
        (Event.RESCUE, {VmState.ACTIVE, VmState.STOPPED, VmState.ERROR}),
        (Event.UNRESCUE, {VmState.RESCUED}),
        (Event.REBUILD, {VmState.ACTIVE, VmState.STOPPED, VmState.ERROR}),
        (Event.RESIZE, {VmState.ACTIVE, VmState.STOPPED}),
        (Event.CONFIRM_RESIZE, {VmState.RESIZED}),
        (Event.REVERT_RESIZE, {VmState.RESIZED}),
        (Event.CREATE_IMAGE, {VmState.ACTIVE, VmState.STOPPED, VmState.PAUSED, VmState.SUSPENDED}),
        (Event.SHELVE, {VmState.ACTIVE, VmState.STOPPED, VmState.PAUSED, VmState.SUSPENDED}),
        (Event.OFFLOAD, {VmState.SHELVED}),
        (Event.UNSHELVE, {VmState.SHELVED, VmState.SHELVED_OFFLOADED}),
        (Event.ATTACH_INTERFACE, {VmState.ACTIVE, VmState.PAUSED, VmState.STOPPED}),
        (Event.DETACH_INTERFACE, {VmState.ACTIVE, VmState.PAUSED, VmState.STOPPED}),
    ],
)
def test_actions_begin_where_nova_lets_them(event: Event, allowed: set[VmState]) -> None:
    assert {state for state in LIVING if model.allows(event, state, None)} == allowed


def test_what_guests_do_changes_only_servers_that_nobody_works_on() -> None:
    for event in (Event.WENT_DOWN, Event.CAME_UP):
        assert not any(model.allows(event, vm, task) for vm in LIVING for task in TaskState)


@pytest.mark.parametrize("vm_state", VmState)
@pytest.mark.parametrize("task_state", TASKS)
def test_every_pair_of_states_has_a_status(vm_state: VmState, task_state: TaskState | None) -> None:
    assert model.status_of(vm_state, task_state).isupper()


@pytest.mark.parametrize(
    ("asked", "vm_states", "task_states"),
    [
        (["ACTIVE"], ("active",), None),
        (["reboot"], ("active",), ("rebooting",)),
        (["active", "reboot"], ("active",), None),
        (["error", "shutoff"], ("error", "stopped"), None),
        (["verify_resize"], ("resized",), None),
        (["password"], (), ()),
    ],
)
def test_a_status_is_a_filter_on_both_states(
    asked: list[str], vm_states: tuple[str, ...], task_states: tuple[str, ...] | None
) -> None:
    found = model.states_of(asked)
    assert found is not None
    assert (found.vm_states, found.task_states) == (vm_states, task_states)


def test_a_status_that_nobody_knows_is_none() -> None:
    assert model.states_of(["happy"]) is None


def test_the_host_digest_differs_by_project() -> None:
    assert model.host_digest("p1", "h") != model.host_digest("p2", "h")
    assert model.host_digest("p1", None) == ""


@pytest.mark.parametrize(
    ("name", "hostname"),
    [
        ("web", "web"),
        ("My Web_Server.example", "my-web-server-example"),
        ("-a-", "a"),
        ("\U0001f600", "Server-x"),
        ("a" * 80, "a" * 63),
    ],
)
def test_hostnames_are_what_hosts_can_be_called(name: str, hostname: str) -> None:
    assert texts.hostname_of(name, "x") == hostname


@pytest.mark.parametrize("name", ["", " a", "a ", "a\n", "a\x00", "a" * 256, "\u2028"])
def test_names_are_printable_and_bounded(name: str) -> None:
    with pytest.raises(Invalid):
        texts.name(name)


def test_names_may_have_any_letter_of_the_world() -> None:
    assert texts.name("\U0001f600 vm ü 日本") == "\U0001f600 vm ü 日本"


@pytest.mark.parametrize(
    "pattern",
    [
        *("(a+)+b", "(a*)*", r"(a)\1", "(?=a)", "(?<!a)b", "a*a*a*b", "((a{0,9}){0,9}){0,9}", "["),
        *("(?:.|a)*b", "^(aa|a)*b$", "(ab|a|b)+c", "a?" * 40 + "a" * 40, "(a{0,1}){40}b", "(?:a??b??){30}c"),
        *("((((?:){255}){255}){255}){255}", "(?:a|ab|b){0,50}c", "(?>a*)", "a*" * 100),
    ],
)
def test_patterns_that_could_run_away_are_refused(pattern: str) -> None:
    with pytest.raises(Invalid):
        patterns.compiled(pattern, "name")


@pytest.mark.parametrize(
    ("pattern", "text", "is_found"),
    [
        ("^web", "web-1", True),
        ("^web", "my-web", False),
        (".*web.*", "my-web-1", True),
        (r"web-\d+$", "web-12", True),
        ("(web|db)-[0-9]{1,3}", "db-7", True),
        (r"10\.0\.0\.", "10.0.0.5", True),
        ("^web.*prod.*eu.*$", "web-prod-eu-1", True),
        ("^.*web.*$", "my-web-1", True),
        (r"web\.*$", "web-1", False),
        (r"(web|db)-?\d+(-eu)?$", "db7-eu", True),
    ],
)
def test_harmless_patterns_mean_what_they_mean(pattern: str, text: str, is_found: bool) -> None:
    assert (patterns.compiled(pattern, "name").search(text) is not None) == is_found


def test_image_properties_become_hardware() -> None:
    found = hardware.hardware_of({"hw_disk_bus": "scsi", "hw_machine_type": "pc", "hw_firmware_type": "uefi", "x": "y"})
    assert (found.disk_bus, found.machine, found.firmware, found.vif_model) == ("scsi", "pc", "uefi", "virtio")


@pytest.mark.parametrize(
    "properties",
    [{"hw_disk_bus": "floppy"}, {"hw_tpm_version": "2.0"}, {"os_secure_boot": "required"}, {"hw_machine_type": "x"}],
)
def test_what_an_image_demands_in_vain_is_refused(properties: dict[str, str]) -> None:
    with pytest.raises(Invalid):
        hardware.hardware_of(properties)


def test_architectures_are_spelled_as_hosts_do() -> None:
    assert hardware.architecture_of({"hw_architecture": "arm64"}) == "aarch64"
    assert hardware.architecture_of({}) is None
    with pytest.raises(Invalid):
        hardware.architecture_of({"architecture": "z80"})


def test_a_fault_names_the_host_to_operators_only() -> None:
    cause = Cause(message="It took too long: Host 1b2c-3d did not answer domain.ensure.", why={"host": "1b2c-3d"})
    found = faults.columns(cause, 1.0)
    assert found["fault_message"] == "It took too long: The host did not answer domain.ensure."
    assert "1b2c-3d" in found["fault_details"]

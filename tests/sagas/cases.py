"""Every registered saga's case, by stored name. How to write one: see README.md in this folder."""

import importlib
import pkgutil
from collections.abc import Callable

import controller
from controller.saga.registry import REGISTRY
from tests.sagas import compute, compute_life, compute_moves, compute_sizes, volume
from tests.sagas.harness import Case

CASES: dict[str, Callable[[], Case]] = {}
"""Stored name (`server-create/1`) → builder of its case. Slices add theirs below, from a module of their own."""

CASES["server-create/1"] = compute.server_create
CASES["server-delete/1"] = compute.server_delete
CASES["server-start/1"] = compute.server_start
CASES["server-stop/1"] = compute.server_stop
CASES["server-reboot/1"] = compute.server_reboot
CASES["server-pause/1"] = compute_life.server_pause
CASES["server-unpause/1"] = compute_life.server_unpause
CASES["server-suspend/1"] = compute_life.server_suspend
CASES["server-resume/1"] = compute_life.server_resume
CASES["server-rescue/1"] = compute_life.server_rescue
CASES["server-unrescue/1"] = compute_life.server_unrescue
CASES["server-rebuild/1"] = compute_life.server_rebuild
CASES["server-resize/1"] = compute_sizes.server_resize
CASES["server-confirm-resize/1"] = compute_sizes.server_confirm_resize
CASES["server-revert-resize/1"] = compute_sizes.server_revert_resize
CASES["server-create-image/1"] = compute_life.server_create_image
CASES["server-shelve/1"] = compute_life.server_shelve
CASES["server-offload/1"] = compute_life.server_offload
CASES["server-unshelve/1"] = compute_life.server_unshelve
CASES["server-evacuate/1"] = compute_moves.server_evacuate
CASES["server-live-migrate/1"] = compute_moves.server_live_migrate
CASES["server-arrive/1"] = compute_moves.server_arrive
CASES["server-leave/1"] = compute_moves.server_leave
CASES["interface-attach/1"] = compute_life.interface_attach
CASES["interface-detach/1"] = compute_life.interface_detach
CASES["volume-create/1"] = volume.volume_create
CASES["volume-delete/1"] = volume.volume_delete
CASES["volume-extend/1"] = volume.volume_extend
CASES["volume-attach/1"] = volume.volume_attach
CASES["volume-detach/1"] = volume.volume_detach
CASES["attachment-connect/1"] = volume.attachment_connect
CASES["attachment-delete/1"] = volume.attachment_delete
CASES["snapshot-create/1"] = volume.snapshot_create
CASES["snapshot-delete/1"] = volume.snapshot_delete

VARIANTS: dict[str, Callable[[], Case]] = {
    "server-create/1 with volumes": volume.server_create_with_volumes,
    "server-delete/1 with volumes": volume.server_delete_with_volumes,
}
"""More cases of kinds that have one already."""


def load_registry() -> None:
    """Import every slice's sagas, so that the registry is as complete as in a running controller."""
    for module in pkgutil.walk_packages(controller.__path__, "controller."):
        if module.ispkg and module.name.endswith(".sagas"):
            importlib.import_module(module.name)


def registered() -> list[str]:
    """Stored names of all sagas."""
    load_registry()
    return sorted(REGISTRY)

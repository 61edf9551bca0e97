"""The sagas of servers; importing this package registers them."""

from controller.compute.sagas.interface_attach import ATTACH_INTERFACE
from controller.compute.sagas.interface_detach import DETACH_INTERFACE
from controller.compute.sagas.server_arrive import ARRIVE
from controller.compute.sagas.server_confirm_resize import CONFIRM
from controller.compute.sagas.server_create import CREATE
from controller.compute.sagas.server_create_image import CREATE_IMAGE
from controller.compute.sagas.server_delete import DELETE
from controller.compute.sagas.server_evacuate import EVACUATE
from controller.compute.sagas.server_leave import LEAVE
from controller.compute.sagas.server_live_migrate import LIVE_MIGRATE
from controller.compute.sagas.server_offload import OFFLOAD
from controller.compute.sagas.server_pause import PAUSE
from controller.compute.sagas.server_reboot import REBOOT
from controller.compute.sagas.server_rebuild import REBUILD
from controller.compute.sagas.server_rescue import RESCUE
from controller.compute.sagas.server_resize import RESIZE
from controller.compute.sagas.server_resume import RESUME
from controller.compute.sagas.server_revert_resize import REVERT
from controller.compute.sagas.server_shelve import SHELVE
from controller.compute.sagas.server_start import START
from controller.compute.sagas.server_stop import STOP
from controller.compute.sagas.server_suspend import SUSPEND
from controller.compute.sagas.server_unpause import UNPAUSE
from controller.compute.sagas.server_unrescue import UNRESCUE
from controller.compute.sagas.server_unshelve import UNSHELVE
from controller.compute.sagas.volume_attach import ATTACH
from controller.compute.sagas.volume_detach import DETACH
from controller.saga.registry import register

SAGAS = tuple(
    register(saga)
    for saga in (
        *(CREATE, DELETE, START, STOP, REBOOT),
        *(PAUSE, UNPAUSE, SUSPEND, RESUME, RESCUE, UNRESCUE),
        *(REBUILD, RESIZE, CONFIRM, REVERT),
        *(CREATE_IMAGE, SHELVE, OFFLOAD, UNSHELVE),
        *(EVACUATE, LEAVE, LIVE_MIGRATE, ARRIVE),
        *(ATTACH_INTERFACE, DETACH_INTERFACE),
    )
)
VOLUME_SAGAS = tuple(register(saga) for saga in (ATTACH, DETACH))

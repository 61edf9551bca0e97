"""The sagas of volumes; importing this package registers them."""

from controller.saga.registry import register
from controller.volume.sagas.attachment_connect import CONNECT
from controller.volume.sagas.attachment_delete import DELETE as DISCONNECT
from controller.volume.sagas.snapshot_create import CREATE as SNAPSHOT_CREATE
from controller.volume.sagas.snapshot_delete import DELETE as SNAPSHOT_DELETE
from controller.volume.sagas.volume_create import CREATE
from controller.volume.sagas.volume_delete import DELETE
from controller.volume.sagas.volume_extend import EXTEND

SAGAS = tuple(
    register(saga) for saga in (CREATE, DELETE, EXTEND, SNAPSHOT_CREATE, SNAPSHOT_DELETE, CONNECT, DISCONNECT)
)

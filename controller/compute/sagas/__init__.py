"""The sagas of servers; importing this package registers them."""

from controller.compute.sagas.server_create import CREATE
from controller.compute.sagas.server_delete import DELETE
from controller.compute.sagas.server_reboot import REBOOT
from controller.compute.sagas.server_start import START
from controller.compute.sagas.server_stop import STOP
from controller.saga.registry import register

SAGAS = tuple(register(saga) for saga in (CREATE, DELETE, START, STOP, REBOOT))

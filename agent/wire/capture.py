"""Captures: a disk of a host as it is at one moment, flat in one qcow2 file, sent to a controller's image store."""

from agent.wire.image import Offer
from agent.wire.specs import Absence, Call, ObjectSpec, ObjectStatus, Ref


class CaptureSpec(ObjectSpec, frozen=True, kw_only=True):
    """A copy that should be made and delivered. `id` is the image's id.

    The guest may run meanwhile; its copy is as after a power failure. `offer` is where the bytes are taken by PUT, and
    the ticket for that. Ready when they were taken. `capture.absent` removes the host's own copy; the image stays.
    """

    domain_id: str  # Whose disk it is.
    disk_id: str
    offer: Offer


class CaptureStatus(ObjectStatus, frozen=True, kw_only=True):
    """A capture as the host sees it."""

    size_bytes: int = 0  # Of the file, once it is made.


ENSURE = Call("capture.ensure", CaptureSpec, CaptureStatus)
ABSENT = Call("capture.absent", Absence, CaptureStatus)
GET = Call("capture.get", Ref, CaptureStatus)

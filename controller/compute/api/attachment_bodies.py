"""Bodies of os-volume_attachments."""

from typing import Annotated

import msgspec

from controller.http.bodies import Body

Device = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]


class Attachment(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Until 2.48."""

    volume_id: str = msgspec.field(name="volumeId")
    device: Device | None = None


class TaggedAttachment(Attachment, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """2.49: a tag."""

    tag: str | None = None


class EndingAttachment(TaggedAttachment, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """2.79: whether the volume ends with the server."""

    delete_on_termination: bool | str = False


class Attach21(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """POST, until 2.48."""

    attachment: Attachment = msgspec.field(name="volumeAttachment")


class Attach249(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """2.49 to 2.78."""

    attachment: TaggedAttachment = msgspec.field(name="volumeAttachment")


class Attach279(Body, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From 2.79."""

    attachment: EndingAttachment = msgspec.field(name="volumeAttachment")

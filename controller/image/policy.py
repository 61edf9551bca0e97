"""Glance's rules. What a caller may see is decided by the store; these decide what one may do."""

from collections.abc import Mapping
from typing import Final

from controller.http.op import Predicate
from controller.http.policy import admin, any_of, project_member, project_reader

_reader: Final = any_of(project_reader, admin)
_member: Final = any_of(project_member, admin)

RULES: Final[Mapping[str, Predicate]] = {
    "add_image": _member,
    "get_image": _reader,
    "get_images": _reader,
    "modify_image": _member,
    "delete_image": _member,
    "publicize_image": admin,
    "communitize_image": _member,
    "upload_image": _member,
    "download_image": _member,
    "add_member": _member,
    "get_member": _reader,
    "get_members": _reader,
    "modify_member": _member,
    "delete_member": _member,
    "deactivate": _member,
    "reactivate": _member,
}

"""Something that a user has."""

import msgspec


class Thing(msgspec.Struct, frozen=True):
    """By its id; `parent` is what it belongs to."""

    id: str
    project: str
    parent: str = ""

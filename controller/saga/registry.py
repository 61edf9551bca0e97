"""Which kinds of saga this code can run: by stored name (`server-create/1`). Slices register in `sagas/__init__.py`.

A kind's old versions stay registered for two releases, because a stored saga is finished by code of its own
version; an engine leaves sagas that it has no code for to other controllers.
"""

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import msgspec

from controller.saga.model import Saga

P = TypeVar("P", bound=msgspec.Struct)


class Registry(Mapping[str, Saga[Any]]):
    """Kinds by stored name."""

    def __init__(self, *sagas: Saga[Any]) -> None:
        self._sagas: dict[str, Saga[Any]] = {}
        for saga in sagas:
            self.add(saga)

    def add(self, saga: Saga[P]) -> Saga[P]:
        """Make a kind known; the same name with other code is a programmer's error."""
        known = self._sagas.setdefault(saga.name, saga)
        assert known is saga, f"saga {saga.name} is registered twice"
        return saga

    def __getitem__(self, name: str) -> Saga[Any]:
        return self._sagas[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._sagas)

    def __len__(self) -> int:
        return len(self._sagas)


REGISTRY = Registry()
"""The controller's own kinds."""


def register(saga: Saga[P]) -> Saga[P]:
    """`CREATE = register(Saga("server-create", 1, …))`."""
    return REGISTRY.add(saga)

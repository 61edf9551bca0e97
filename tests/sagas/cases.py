"""Every registered saga's case, by stored name. How to write one: see README.md in this folder."""

import importlib
import pkgutil
from collections.abc import Callable

import controller
from controller.saga.registry import REGISTRY
from tests.sagas.harness import Case

CASES: dict[str, Callable[[], Case]] = {}
"""Stored name (`server-create/1`) → builder of its case. Slices add theirs below, from a module of their own."""


def load_registry() -> None:
    """Import every slice's sagas, so that the registry is as complete as in a running controller."""
    for module in pkgutil.walk_packages(controller.__path__, "controller."):
        if module.ispkg and module.name.endswith(".sagas"):
            importlib.import_module(module.name)


def registered() -> list[str]:
    """Stored names of all sagas."""
    load_registry()
    return sorted(REGISTRY)

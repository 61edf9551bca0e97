"""The APIs that one controller serves: each slice's table, imported late."""

import importlib
import importlib.util
from typing import Final

from controller.http.op import Service

SLICES: Final = ("identity", "compute", "image", "network", "operator")
"""In the order of the catalog. What has no table is not served."""


def services() -> tuple[Service, ...]:
    """Every service."""
    names = (f"controller.{name}.api.routes" for name in SLICES)
    return tuple(importlib.import_module(name).SERVICE for name in names if importlib.util.find_spec(name))

"""How long a new server waits for a host that answers, but fails: as everybody does."""

from controller.patience import SLICES_MAX, ensure

__all__ = ["SLICES_MAX", "ensure"]

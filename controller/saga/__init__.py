"""Durable, resumable sequences of effects with undo. Knows nothing of clouds: see `model` for how to write one."""

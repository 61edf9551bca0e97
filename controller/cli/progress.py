"""What a person sees while the machine works: one line a step, with its time."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console


class Progress:
    """Prints steps as they end; on a terminal the running one turns."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False, soft_wrap=True)
        self.steps: list[tuple[str, float]] = []

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Time what happens inside; a failure is marked and passes on."""
        began = time.monotonic()
        try:
            with self.console.status(title):
                yield
        except BaseException:
            self.console.print(f"[red]✗[/red] {title} [dim]{time.monotonic() - began:.1f} s[/dim]")
            raise
        took_s = time.monotonic() - began
        self.steps.append((title, took_s))
        self.console.print(f"[green]✓[/green] {title} [dim]{took_s:.1f} s[/dim]")

    def say(self, text: str = "") -> None:
        """A line for the person."""
        self.console.print(text)

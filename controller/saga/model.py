"""How a saga is written: a header of typed params, a table of steps, then the functions in that order.

    CREATE = Saga(
        "server-create", 1, CreateParams,
        steps=(
            Step("place", place, unplace),
            Step("port", bind_port, unbind_port, each=lambda params: len(params.ports)),
            Step("finish", finish),
        ),
        undone=mark_error, deadline_s=600,
    )

Contract of a step. `do` may run twice (a crash after its effect, before its event); once a later step has
started it does not run again; its output is small and JSON. `undo` may run when `do` never, half or twice
happened, so it is the same call as delete. **The failed step is undone too**: over a bus a time-out is
ambiguous. Ids exist before the first effect, in the params.

A step that only has to write returns `Commit(fn, …)`: the engine runs `fn(tx, …)` in the very transaction that
appends the step's event, so the row and the log cannot disagree and one durable commit serves both. `fn`
returns the step's output. The engine's fencing (owner and adopt_generation) guards that transaction.

What a step raises decides what follows: `Transient` → the engine tries again with backoff until the saga's
deadline; any `controller.errors.CloudError` → unwinding, its sentence is the cause a user reads; anything else
→ unwinding, with "internal error" for the user and the traceback for us.

`forward_only` sagas (deletes) are never unwound: every failure is tried again; past the deadline `overdue`
runs once (the user's row turns to ERROR with the cause) and the engine goes on trying, slowly. `overdue` also runs
once when unwinding passes the deadline (a host is silent) or gets stuck: no row stays in BUILD for ever. `undone`
runs later all the same, when unwinding ends.

A `deferred` step's end is written together with the next step's, which saves a durable commit. It may run again
although later steps have begun, and it is undone also when it was never reached; so its `do` has no output and is
as idempotent as `absent` is. Fit: image.ensure, disk.ensure, port.ensure. Unfit: whatever later steps read.
"""

import enum
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import msgspec

from controller.db.tx import Tx

P = TypeVar("P", bound=msgspec.Struct)
Json = Any
"""A small JSON value."""


class State(enum.StrEnum):
    """States of a saga. DONE, UNDONE and ABANDONED are rest."""

    RUNNING = "running"
    UNWINDING = "unwinding"
    DONE = "done"
    UNDONE = "undone"
    STUCK = "stuck"
    ABANDONED = "abandoned"


class Transient(Exception):
    """It may work later: silence, a busy host, a lost race. The message goes into the log of the saga."""


class Cause(msgspec.Struct, frozen=True, kw_only=True):
    """Why a saga unwinds. `message` is for the user, `detail` for operators, `why` machine-readable."""

    message: str
    status: int = 500
    detail: str = ""
    why: dict[str, Any] | None = None
    cancelled: bool = False  # Not a failure: someone asked for it (a delete, mostly).


@dataclass(frozen=True, slots=True)
class Commit:
    """A step's end that writes: `fn(tx, *args)` runs in the transaction of the step's event, gives the output."""

    fn: Callable[..., Json]
    args: tuple[Any, ...] = ()


@dataclass(slots=True)
class Run(Generic[P]):
    """What a step function gets."""

    saga_id: str
    params: P
    outputs: Mapping[str, Json]  # By step name as stored: "place", "port[0]".
    index: int  # Of an expanded step; 0 for others.
    deps: Any  # What the engine was built with; the controller passes its Cloud.
    attempt: int  # From 1; rises with every transient failure of this step.
    deadline: float  # World clock, seconds; effects should not wait past it.
    request_id: str
    cause: Cause | None = None  # While unwinding: why.
    notes: dict[str, str] = field(default_factory=dict)  # Shown in the trace: `run.notes["host"] = host_id`.


Do = Callable[[Run[Any]], Awaitable[Json | Commit | None]]


@dataclass(frozen=True, slots=True)
class Step(Generic[P]):
    """One row of a saga's table. With `each`, it is expanded into `name[0]`, `name[1]`, … when the saga starts."""

    name: str
    do: Do
    undo: Do | None = None
    each: Callable[[P], int] | None = None
    deferred: bool = False


@dataclass(frozen=True, slots=True)
class Saga(Generic[P]):
    """A kind of saga. `version` rises when steps or params change; older code stays for two releases."""

    kind: str
    version: int
    params: type[P]
    steps: tuple[Step[P], ...]
    deadline_s: float = 600.0
    undone: Callable[[Tx, P, Cause, float], None] | None = None  # (tx, params, cause, now), when unwinding ends.
    forward_only: bool = False
    overdue: Callable[[Tx, P, Cause, float], None] | None = None  # (tx, params, cause, now), once.
    rested: Callable[[Any, State], None] | None = None  # (deps, state), at its end. For kicks: a crash loses it.

    @property
    def name(self) -> str:
        """As stored: `server-create/1`."""
        return f"{self.kind}/{self.version}"

    def expanded(self, params: P) -> tuple[str, ...]:
        """The step names of one run, in order."""
        names: list[str] = []
        for step in self.steps:
            names += [step.name] if step.each is None else [f"{step.name}[{i}]" for i in range(step.each(params))]
        return tuple(names)

    def step(self, name: str) -> tuple[Step[P], int]:
        """The row of an expanded name, and its index: `port[1]` → (port, 1). KeyError when the table lacks it."""
        base, _, index = name.partition("[")
        for step in self.steps:
            if step.name == base and bool(index) == (step.each is not None):
                return step, int(index.rstrip("]") or 0) if index else 0
        raise KeyError(name)


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """One event of a saga's log as users see it (`hostler explain`, instance actions)."""

    saga_id: str
    kind: str
    step: str
    event: str  # started | done | failed | retried | undone | undo-failed | overdue | stuck | resumed | abandoned
    at: float
    ms: float
    notes: dict[str, str] = {}
    error: str = ""

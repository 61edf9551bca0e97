"""`hostler`: the operator's command line."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from agent.wire.settings import BadSettings
from controller.cli import clean as cleaning
from controller.cli import hosts as fleet
from controller.cli import image_cache as caches
from controller.cli import status as looking
from controller.cli.api import ApiError
from controller.cli.explain import explain as explaining
from controller.cli.trial import Trial, load, locate
from controller.cli.up import NotPossible
from controller.cli.up import up as bring_up
from drivers.command import CommandFailed

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)

image_cache = typer.Typer(no_args_is_help=True, help="What hosts keep of images.")
app.add_typer(image_cache, name="image-cache")
host_app = typer.Typer(no_args_is_help=True, help="Hosts: what they carry, and emptying one.")
app.add_typer(host_app, name="host")

Cloud = Annotated[str, typer.Option(help="Which cloud: its folder is named so.")]
State = Annotated[Path | None, typer.Option(help="The folder of clouds' folders; .state of the working directory.")]


@app.command()
def up(
    cloud: Cloud = "default",
    state: State = None,
    underlay: Annotated[str | None, typer.Option(help="Where hosts and controller meet (new clouds).")] = None,
    external: Annotated[str | None, typer.Option(help="Range of floating IPs (new clouds).")] = None,
    api_port: Annotated[int | None, typer.Option(help="Port of the API on loopback (new clouds).")] = None,
    metrics_port: Annotated[
        int | None, typer.Option(help="Port of the controller's metrics; +2: metering (new clouds).")
    ] = None,
    database: Annotated[
        str | None,
        typer.Option(
            envvar="HOSTLER_CONTROLLER_DATABASE", help="postgresql+asyncpg://… instead of SQLite (new clouds)."
        ),
    ] = None,
    virt_type: Annotated[str | None, typer.Option(help="auto, kvm or qemu (new clouds).")] = None,
    drivers: Annotated[
        str | None, typer.Option(help="real, fake hosts, or network: only that real (new clouds).")
    ] = None,
    hosts: Annotated[int | None, typer.Option(help="How many hosts; more than there are: after `down`.")] = None,
    bare: Annotated[bool, typer.Option(help="Make no images, networks or server.")] = False,
) -> None:
    """Start a whole cloud on this machine and boot a server named `first`. Twice is harmless."""
    given = {
        "underlay": underlay,
        "external": external,
        "api_port": api_port,
        "metrics_port": metrics_port,
        "database": database,
        "virt_type": virt_type,
        "drivers": drivers,
    }
    changes: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    bring_up(cloud, changes, hosts=hosts, root=state, furnished=not bare)


@app.command()
def down(cloud: Cloud = "default", state: State = None) -> None:
    """Stop everything; `up` brings it back with its guests."""
    cleaning.down(cloud, state)


@app.command()
def clean(cloud: Cloud = "default", state: State = None) -> None:
    """Remove everything the cloud made on this machine, also after a crash."""
    cleaning.clean(cloud, state)


@app.command()
def status(cloud: Cloud = "default", state: State = None) -> None:
    """Show processes, hosts and servers."""
    sys.exit(0 if looking.status(_existing(cloud, state)) else 1)


@app.command()
def doctor(cloud: Cloud = "default", state: State = None) -> None:
    """Check this machine and the running cloud, with what to do about each finding."""
    sys.exit(0 if looking.doctor(load(cloud, state)) else 1)


@app.command()
def explain(request_id: str, cloud: Cloud = "default", state: State = None) -> None:
    """Show what became of one request (the id is in X-Openstack-Request-Id, and in a server's actions)."""
    explaining(_existing(cloud, state), request_id)


@image_cache.command("list")
def image_cache_list(cloud: Cloud = "default", state: State = None) -> None:
    """Show what each host has in its cache, and what is in use."""
    caches.show(_existing(cloud, state))


@image_cache.command("evict")
def image_cache_evict(
    image: Annotated[str, typer.Argument(help="Its name, or the beginning of its hash.")],
    host: Annotated[str | None, typer.Option(help="Only from this host.")] = None,
    force: Annotated[bool, typer.Option(help="Also if it was wanted a moment ago; never while it is in use.")] = False,
    cloud: Cloud = "default",
    state: State = None,
) -> None:
    """Send an image away from the hosts that have it; it is fetched again when a server needs it."""
    caches.evict(_existing(cloud, state), image, host, force=force)


@host_app.command("list")
def host_list(cloud: Cloud = "default", state: State = None) -> None:
    """Show every host with what it carries."""
    fleet.show(_existing(cloud, state))


@host_app.command("drain")
def host_drain(
    host: Annotated[str, typer.Argument(help="Its name.")],
    to: Annotated[str | None, typer.Option(help="Send its servers to this host; else to whichever fits.")] = None,
    cloud: Cloud = "default",
    state: State = None,
) -> None:
    """Send everything away from a host, which takes no new servers until it is enabled again."""
    fleet.drain(_existing(cloud, state), host, to)


@host_app.command("enable")
def host_enable(
    host: Annotated[str, typer.Argument(help="Its name.")], cloud: Cloud = "default", state: State = None
) -> None:
    """Let new servers come to a host again."""
    fleet.enable(_existing(cloud, state), host)


def _existing(name: str, root: Path | None) -> Trial:
    trial = load(name, root)
    if trial is None:
        raise NotPossible(f"There is no cloud named {name} in {locate(name, root).parent}; `make up` makes one.")
    return trial


def main() -> None:
    """Entry point: what went wrong is one sentence, not a traceback."""
    try:
        app()
    except (NotPossible, BadSettings, CommandFailed, ApiError, TimeoutError, RuntimeError, OSError) as error:
        print(f"hostler: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()

"""`hostler down` and `hostler clean`: stop everything, or leave nothing.

Clean works from whatever is left of a cloud: its folder, or only its run folder, where a copy of its description is.
"""

import shutil
from pathlib import Path

import msgspec

from controller.cli import guests, processes
from controller.cli.progress import Progress
from controller.cli.seat import Seat
from controller.cli.space import Outside, Space, remove_underlay
from controller.cli.trial import Trial, load, locate, run_root


def down(name: str, root: Path | None = None) -> None:
    """Stop processes and guests; state and disks stay, so that `up` brings everything back."""
    progress = Progress()
    trial = _found(name, root)
    if trial is None:
        progress.say(f"There is no cloud named {name} here.")
        return
    _stop_processes(trial, progress)
    with progress.step("Guests switched off"):
        guests.switch_off(trial)
    _remove_spaces(trial, progress)
    progress.say(f"Stopped. `make up` brings {name} back with its guests.")


def clean(name: str, root: Path | None = None) -> None:
    """Remove everything from this machine. Harmless if there is nothing."""
    progress = Progress()
    trial = _found(name, root)
    if trial is None:
        progress.say(f"Nothing of a cloud named {name} is here.")
        return
    _stop_processes(trial, progress)
    _remove_spaces(trial, progress)
    with progress.step("State and disks removed"):
        shutil.rmtree(trial.run_folder, ignore_errors=True)
        shutil.rmtree(trial.folder, ignore_errors=True)
    for parent in (trial.run_folder.parent, trial.folder.parent):
        if parent.exists() and not any(parent.iterdir()):
            parent.rmdir()


def _stop_processes(trial: Trial, progress: Progress) -> None:
    with progress.step("Processes stopped"):
        processes.stop(trial)


def _remove_spaces(trial: Trial, progress: Progress) -> None:
    with progress.step("Guests, namespaces and links removed"):
        for host in trial.hosts:
            Space(trial, host).remove()
        Outside(trial).remove()
        Seat(trial).remove()
        remove_underlay(trial)


def _found(name: str, root: Path | None) -> Trial | None:
    trial = load(name, root)
    if trial is not None:
        return trial
    copy = run_root() / name / "cloud.json"
    if copy.exists():
        return msgspec.json.decode(copy.read_bytes(), type=Trial)
    leftover = locate(name, root)
    if leftover.exists():
        # Which range it had is not known; the default one may be another cloud's.
        return Trial(name=name, tag="0000", state=str(leftover), run=str(run_root() / name), external="")
    return None

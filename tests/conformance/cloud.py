"""The cloud that is judged: everything real but the hosts, made for the run and removed after it."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from controller.cli import clean, furnish
from controller.cli.api import ApiError, Client
from controller.cli.trial import Trial, locate
from controller.cli.up import NotPossible, up
from drivers.command import CommandFailed
from tests.conformance import ending

NAME = "conformance"
PLACE = {
    "underlay": "198.18.252.0/24",
    "external": "198.19.252.0/24",
    "api_port": 5252,
    "metrics_port": 9752,
    "drivers": "fake",
}
IMAGES = ("judged-one", "judged-two")
FLAVOR_ID, OTHER_FLAVOR_ID = "42", "1"
MULTIATTACH = "judged-multiattach"
"""The volume type of volumes that several servers may have at once."""


@dataclass(frozen=True)
class Furnished:
    """What Tempest must be told of a cloud."""

    trial: Trial
    image_ids: tuple[str, str]
    network_id: str
    network_extensions: tuple[str, ...]
    compute_extensions: tuple[str, ...]
    volume_extensions: tuple[str, ...]
    microversion: str
    volume_microversion: str
    hosts: int

    @property
    def admin_password(self) -> str:
        return self.trial.password("admin")


class NotMade(Exception):
    """There is no cloud to judge; says why."""


@contextlib.contextmanager
def running_cloud(logs: Path, *, is_kept: bool) -> Iterator[Furnished]:
    """A cloud; one that an earlier run kept is used again, one that it left by accident is not.

    What its processes logged is in the folder `logs` afterwards. Raises NotMade.
    """
    if not is_kept:
        clean.clean(NAME)
    try:
        yield _made()
    finally:
        with ending.uninterrupted():
            _keep_logs(logs)
            if not is_kept:
                clean.clean(NAME)


def _made() -> Furnished:
    try:
        return furnished(up(NAME, PLACE, furnished=False))
    except (NotPossible, ApiError, CommandFailed, OSError) as error:
        raise NotMade(f"{type(error).__name__}: {error}") from error


def _keep_logs(logs: Path) -> None:
    shutil.rmtree(logs, ignore_errors=True)
    if (written := locate(NAME) / "logs").is_dir():
        shutil.copytree(written, logs)


def furnished(trial: Trial) -> Furnished:
    """Two images and an external network; what the cloud says of itself."""
    admin = Client(trial.api_url, "admin", trial.password("admin"), "admin")
    versions = admin.get("/compute/v2.1/")["version"]
    (volume_versions,) = admin.get("/volume/v3/")["versions"]
    _multiattach(admin)
    return Furnished(
        trial=trial,
        image_ids=(_image(admin, IMAGES[0]), _image(admin, IMAGES[1])),
        network_id=furnish.external_network(admin, trial),
        network_extensions=tuple(one["alias"] for one in admin.get("/network/v2.0/extensions")["extensions"]),
        compute_extensions=tuple(one["alias"] for one in admin.get("/compute/v2.1/extensions")["extensions"]),
        volume_extensions=tuple(one["alias"] for one in admin.get("/volume/v3/extensions")["extensions"]),
        microversion=versions["version"],
        volume_microversion=volume_versions["version"],
        hosts=len(trial.hosts),
    )


def _multiattach(admin: Client) -> None:
    if not any(one["name"] == MULTIATTACH for one in admin.get("/volume/v3/types")["volume_types"]):
        wish = {"name": MULTIATTACH, "extra_specs": {"multiattach": "<is> True"}}
        admin.post("/volume/v3/types", {"volume_type": wish})


def _image(admin: Client, name: str) -> str:
    """A public raw image; no guest ever runs it."""
    found = admin.get(f"/image/v2/images?name={name}")["images"]
    if found:
        return str(found[0]["id"])
    body = {"name": name, "disk_format": "raw", "container_format": "bare", "visibility": "public"}
    image = admin.post("/image/v2/images", body)
    with tempfile.NamedTemporaryFile() as file:
        file.write(name.encode() * 4096)
        file.flush()
        admin.upload(f"/image/v2/images/{image['id']}/file", Path(file.name))
    return str(image["id"])

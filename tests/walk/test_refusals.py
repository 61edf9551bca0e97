"""What cannot be: it is refused or ends in ERROR, says why, and leaves nothing."""

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.walk.client import OpenStack
from tests.walk.cloud import HOST, Cloud, eventually
from tests.walk.leftovers import traces

pytestmark = pytest.mark.usefixtures("nothing_left")

CREATE = ("server", "create", "--image", "hostler-tiny", "--network", "demo")


def test_a_flavor_that_no_host_can_hold_is_an_error_that_says_why(openstack: OpenStack, cloud: Cloud) -> None:
    admin = openstack.as_cloud("hostler-admin")
    admin.do("flavor", "create", "huge", "--vcpus", "900", "--ram", "9000000", "--disk", "1", "--id", "huge")
    # Beyond the project's quota it is refused at once.
    assert "403" in openstack.refused(*CREATE, "--flavor", "huge", "beyond")
    project = openstack.show("token", "issue")["project_id"]
    admin.do("quota", "set", "--cores", "-1", "--ram", "-1", project)
    server = openstack.show(*CREATE, "--flavor", "huge", "huge")
    shown = eventually("ERROR", lambda: _in(cloud, server["id"], "ERROR"))
    assert shown["fault"]["code"] == 500 and "No valid host was found" in shown["fault"]["message"], shown["fault"]

    as_admin = cloud.admin().get(f"/compute/v2.1/servers/{server['id']}")["server"]
    (refused,) = json.loads(as_admin["fault"]["details"])["hosts"]
    assert (refused["host"], refused["reason"], refused["wanted"]) == (HOST, "vcpus", 900), refused
    assert refused["free"] < 900
    openstack.do("server", "delete", "--wait", server["id"])
    admin.do("quota", "delete", project)
    admin.do("flavor", "delete", "huge")


def _in(cloud: Cloud, server_id: str, status: str) -> dict[str, Any] | None:
    server: dict[str, Any] = cloud.demo().get(f"/compute/v2.1/servers/{server_id}")["server"]
    return server if server["status"] == status else None


def test_an_image_that_is_not_what_it_says_is_refused(openstack: OpenStack, tmp_path: Path) -> None:
    base, overlay, split, text = (tmp_path / name for name in ("base.qcow2", "overlay.qcow2", "split.qcow2", "text"))
    make = ("qemu-img", "create", "-q", "-f", "qcow2")
    subprocess.run([*make, base, "16M"], check=True)
    subprocess.run([*make, "-b", "/etc/passwd", "-F", "raw", overlay, "1M"], check=True)
    subprocess.run([*make, "-o", f"data_file={tmp_path / 'data'}", split, "16M"], check=True)
    text.write_text("not an image at all\n" * 1000)
    for file in (overlay, split, text):
        said = openstack.refused("image", "create", file.stem, "--file", file, "--disk-format", "qcow2")
        assert "415" in said or "400" in said or "409" in said, said
        for image in openstack.show("image", "list", "--name", file.stem):
            assert image["Status"] == "queued", image
            openstack.do("image", "delete", image["ID"])


def test_a_server_deleted_while_it_is_made_leaves_nothing(openstack: OpenStack, cloud: Cloud) -> None:
    demo = cloud.demo()
    image = demo.get("/image/v2/images?name=hostler-tiny-agent")["images"][0]
    network = demo.get("/network/v2.0/networks?name=demo")["networks"][0]
    body = {
        "name": "short-lived",
        "imageRef": image["id"],
        "flavorRef": "42",
        "networks": [{"uuid": network["id"]}],
        "config_drive": True,
    }
    for later_s in (0.0, 0.05, 0.2, 0.5, 1.0):  # Placed, its image copied, its disk made, plugged, booting.
        made = demo.post("/compute/v2.1/servers", {"server": body})["server"]["id"]
        time.sleep(later_s)
        demo.delete(f"/compute/v2.1/servers/{made}")
    eventually("gone", lambda: len(demo.get("/compute/v2.1/servers")["servers"]) == 1)


def test_a_second_cloud_cannot_take_this_ones_range(cloud: Cloud, tmp_path: Path) -> None:
    rival = Cloud(f"{cloud.name}-rival", tmp_path, ())
    said = rival.hostler("up", "--underlay", cloud.trial.underlay, ok=False)
    assert f"{cloud.trial.underlay} leads to {cloud.trial.bridge}" in said
    assert "Nothing of a cloud" in rival.hostler("clean")
    assert json.dumps(traces(cloud.trial)).count(rival.name) == 0

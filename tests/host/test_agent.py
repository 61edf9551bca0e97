"""A whole agent with real drivers on a host of its own: a guest from first packet to nothing left."""

import os
import sys
from pathlib import Path

import pytest

from drivers import command
from tests.drivers.private_host import ROOT, PrivateHost

pytestmark = [
    pytest.mark.host,
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]

CACHE = Path(os.environ.get("HOSTLER_TEST_CACHE", ROOT / ".cache/tests"))


@pytest.fixture(scope="module")
def image() -> Path:
    """The tiny guest image, built if it is not there."""
    builder = [sys.executable, ROOT / "packaging/guest/build.py", "--out", CACHE / "images", "--cache", CACHE / "debs"]
    command.run([*builder, "--only", "hostler-tiny"], timeout_s=300, env={"HOME": os.environ.get("HOME", "/root")})
    return CACHE / "images" / "hostler-tiny.qcow2"


def test_a_guest_lives_through_restarts_and_leaves_nothing(image: Path) -> None:
    host = PrivateHost()
    try:
        host.run("sh", "-ec", "mkdir -p /run/netns && mount -t tmpfs -o mode=755 tmpfs /run/netns")
        done = host.run(sys.executable, "-m", "tests.host.agent_walk", str(host.folder), str(image), timeout_s=800)
        assert done.text.strip().endswith("nothing is left"), done.text
    finally:
        host.close()

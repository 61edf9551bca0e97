"""The guest images, from Debian packages to an SSH session: built, booted by bare QEMU under emulation.

No libvirt, no bridge, no cloud: what fails here is the image. The guest's network is QEMU's own user-mode one,
closed to the world (`restrict`) but for one port forwarded on loopback. It lies in 169.254.169.0/24, so that
QEMU can answer at the metadata service's address with a program that serves a folder.
"""

import contextlib
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.host, pytest.mark.timeout(400)]

CHECKOUT = Path(__file__).resolve().parents[2]
BUILDER = CHECKOUT / "packaging/guest/build.py"
CACHE = Path(os.environ.get("HOSTLER_TEST_CACHE", CHECKOUT / ".cache/tests"))

# An idle machine needs 4 s to the login prompt; a machine whose cores are all busy, twenty times that.
LIMIT_S = 120
BUILD_LIMIT_S = 300
PRESSES = 8

INSTANCE_ID = "6f1c0a52-7d1d-4b6e-9a3c-0c5d2f2f9b11"
OTHER_INSTANCE_ID = "0d8f7f0e-2f0b-4a51-9d8e-94d1f0a3c6e2"
USER_DATA = "#!/bin/sh\necho I am $(id -un)\n(sleep 600) &\nprintf unfinished\nexit 7\n"

CLOUD_CONFIG = """\
#cloud-config
hostname: renamed
packages: [emacs]
write_files:
  - path: /etc/made/here
    permissions: '0600'
    owner: cloud:cloud
    content: |
      it's "quoted"

        indented
  - path: /etc/made/encoded
    encoding: b64
    content: aGVsbG8=
runcmd:
  - [sh, -c, "echo word list $0"]
  - |
    if true; then
      echo block
    fi
  - cat /etc/made/encoded; exit 3
"""

# Answers one HTTP request on standard input with a file of the folder: QEMU starts it for each connection.
SERVE_ONCE = """
import pathlib, sys
path = sys.stdin.readline().split()[1]
while sys.stdin.readline().strip(): pass
name = path.strip("/") + ("/index" if path.endswith("/") else "")
file = pathlib.Path(sys.argv[1]) / name
status, body = ("200 OK", file.read_bytes()) if file.is_file() else ("404 Not Found", b"")
head = f"HTTP/1.1 {status}\\r\\nContent-Length: {len(body)}\\r\\nConnection: close\\r\\n\\r\\n"
sys.stdout.buffer.write(head.encode() + body)
"""


@dataclass(frozen=True)
class Guest:
    """A running guest: its serial console, its SSH port on loopback, its QEMU."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes]

    def console(self) -> str:
        """Everything that the serial console has said, without carriage returns."""
        return (self.folder / "console.log").read_text(errors="replace").replace("\r", "")

    def wait(self, pattern: str, times: int = 1) -> str:
        """Wait until the console has matched `pattern` that many times; the first group of the last match."""
        deadline = time.monotonic() + LIMIT_S
        while time.monotonic() < deadline:
            found = re.findall(pattern, self.console(), re.MULTILINE)
            if len(found) >= times:
                return str(found[times - 1])
            assert self.process.poll() is None, f"QEMU ended before {pattern!r}:\n{self.console()}"
            time.sleep(0.1)
        pytest.fail(f"no {pattern!r} within {LIMIT_S} s:\n{self.console()}")

    def ssh(self, user: str, command: str, *options: str, status: int = 0) -> str:
        """Run a command over SSH with the test's key; its output, both streams."""
        argv = ["ssh", "-i", str(self.folder / "key"), "-p", str(self.port)]
        for option in (
            *options,
            "BatchMode=yes",
            "IdentitiesOnly=yes",
            "StrictHostKeyChecking=no",
            "UserKnownHostsFile=/dev/null",
            f"ConnectTimeout={LIMIT_S}",
        ):
            argv += ["-o", option]
        argv += [f"{user}@127.0.0.1", command]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=LIMIT_S, check=False)
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    def end_by_power_button(self) -> None:
        """What a soft stop does, until the guest has ended by itself: it listens to the button from some moment on."""
        for _ in range(PRESSES):
            with contextlib.suppress(OSError):  # It has ended just now.
                talk(self.folder / "qmp", {"execute": "qmp_capabilities"}, {"execute": "system_powerdown"})
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(LIMIT_S / PRESSES)
                break
        assert self.process.poll() == 0

    def wait_for_end(self) -> None:
        """Wait until QEMU has ended by itself."""
        assert self.process.wait(LIMIT_S) == 0


StartGuest = Callable[..., Guest]


def talk(path: Path, *messages: dict[str, Any]) -> dict[str, Any]:
    """Send JSON lines to a socket of QEMU; the last answer that is a result and not an event."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(LIMIT_S)
        connection.connect(str(path))
        lines = connection.makefile("r")
        answer: dict[str, Any] = {}
        for message in messages:
            connection.sendall(json.dumps(message).encode() + b"\n")
            answer = next(reply for reply in map(json.loads, lines) if "return" in reply or "error" in reply)
        return answer


@pytest.fixture(scope="module")
def images() -> Path:
    """The folder of up-to-date images."""
    out = CACHE / "images"
    build(out)
    return out


def build(out: Path) -> str:
    """Run the builder as a person would."""
    argv = [sys.executable, str(BUILDER), "--out", str(out), "--cache", str(CACHE / "debs")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=BUILD_LIMIT_S, check=False)
    assert done.returncode == 0, done.stderr
    said: str = done.stdout
    return said


@pytest.fixture
def start(images: Path, tmp_path: Path) -> Iterator[StartGuest]:
    """Boots a guest from an image; it ends with the test."""
    with contextlib.ExitStack() as running:

        def start_guest(*arguments: str, image: str = "hostler-tiny", service: Path | None = None) -> Guest:
            make_disk(images / f"{image}.qcow2", tmp_path / "disk.qcow2")
            process, port = boot(tmp_path, arguments, service)
            running.callback(process.wait)
            running.callback(process.kill)
            return Guest(folder=tmp_path, port=port, process=process)

        make_key(tmp_path / "key")
        yield start_guest


def make_disk(image: Path, disk: Path) -> None:
    """An overlay of 1 GiB, the size of the smallest flavor's disk. A disk that is there already stays."""
    if not disk.exists():
        create = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(image), "-F", "qcow2", str(disk), "1G"]
        subprocess.run(create, check=True, timeout=LIMIT_S)


def boot(folder: Path, arguments: tuple[str, ...], service: Path | None) -> tuple[subprocess.Popen[bytes], int]:
    """Start QEMU on the folder's disk, with an empty console log."""
    disk = folder / "disk.qcow2"
    port = free_port()
    network = (
        "user,id=net,restrict=on,net=169.254.169.0/24,host=169.254.169.2,dns=169.254.169.3,"
        f"dhcpstart=169.254.169.15,hostfwd=tcp:127.0.0.1:{port}-:22"
    )
    if service is not None:
        script = folder / "serve_once.py"
        script.write_text(SERVE_ONCE)
        network += f",guestfwd=tcp:169.254.169.254:80-cmd:{shlex.join([sys.executable, str(script), str(service)])}"
    argv = [
        *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none"),
        *("-machine", "q35", "-accel", "tcg,tb-size=64", "-m", "128"),
        *("-drive", f"file={disk},format=qcow2,if=virtio"),
        *("-netdev", network, "-device", "virtio-net-pci,netdev=net,romfile="),
        *("-device", "virtio-rng-pci"),
        *("-serial", f"file:{folder / 'console.log'}", "-qmp", f"unix:{folder / 'qmp'},server=on,wait=off"),
        *arguments,
    ]
    (folder / "console.log").write_bytes(b"")
    return subprocess.Popen(argv), port


def free_port() -> int:
    """A loopback port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def make_key(path: Path) -> None:
    """An SSH key pair without passphrase; the comment has what a careless JSON reader stumbles over."""
    argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", 'me, "myself" {and} I', "-f", str(path)]
    subprocess.run(argv, check=True, timeout=LIMIT_S)


def openstack_layout(folder: Path, key: Path, instance_id: str = INSTANCE_ID, user_data: str = USER_DATA) -> Path:
    """The documents of an instance as OpenStack lays them out, in a folder."""
    latest = folder / "openstack/latest"
    latest.mkdir(parents=True)
    meta_data = {
        "uuid": instance_id,
        # A user's own values must not be mistaken for the instance's.
        "meta": {"uuid": "not-me", "hostname": "not-me"},
        "hostname": "walker.example.org",
        "public_keys": {"my/key": key.with_suffix(".pub").read_text()},
    }
    (latest / "meta_data.json").write_text(json.dumps(meta_data))
    (latest / "user_data").write_text(user_data)
    return folder


def ec2_layout(folder: Path, key: Path) -> Path:
    """The same instance as EC2 lays it out."""
    meta_data = folder / "latest/meta-data"
    (meta_data / "public-keys/0").mkdir(parents=True)
    (meta_data / "instance-id").write_text(INSTANCE_ID)
    (meta_data / "hostname").write_text("walker.example.org")
    (meta_data / "public-keys/index").write_text("0=mine")
    (meta_data / "public-keys/0/openssh-key").write_text(key.with_suffix(".pub").read_text())
    (folder / "latest/user-data").write_text(USER_DATA)
    return folder


def config_drive(folder: Path, instance_id: str = INSTANCE_ID, user_data: str = USER_DATA) -> tuple[str, ...]:
    """QEMU's arguments for a CD-ROM with an instance's documents, on the bus that the images ask for."""
    content = openstack_layout(folder / instance_id, folder / "key", instance_id, user_data)
    iso = folder / f"{instance_id}.iso"
    subprocess.run(["genisoimage", "-quiet", "-R", "-V", "config-2", "-o", iso, content], check=True, timeout=LIMIT_S)
    drive = f"file={iso},if=none,id=config,format=raw,readonly=on"
    return "-device", "virtio-scsi-pci", "-drive", drive, "-device", "scsi-cd,drive=config"


def test_description_vouches_for_the_image(images: Path) -> None:
    described = json.loads((images / "hostler-tiny.json").read_text())
    disk = images / "hostler-tiny.qcow2"
    shown = subprocess.run(
        ["qemu-img", "info", "--output=json", disk], capture_output=True, check=True, timeout=LIMIT_S
    )
    assert described["size"] == disk.stat().st_size
    assert described["virtual_size"] == json.loads(shown.stdout)["virtual-size"]
    assert described["properties"]["hw_firmware_type"] == "bios"


def test_second_build_leaves_the_images_alone(images: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in images.glob("hostler-*")}
    said = build(images)
    assert said.splitlines() == ["hostler-tiny: unchanged", "hostler-tiny-agent: unchanged"]
    assert {path: path.stat().st_mtime_ns for path in images.glob("hostler-*")} == before


def test_config_drive_gives_identity_keys_and_user_data(start: StartGuest, tmp_path: Path) -> None:
    guest = start(*config_drive(tmp_path))
    guest.wait(r"^walker login:")
    said = guest.console()
    for line in (
        r"dhcp eth0 169\.254\.169\.15/24",
        f"metadata drive {INSTANCE_ID}",
        r"ssh up",
        r"user-data exit 7",
        r"done",
    ):
        assert re.search(rf"^hostler-guest: [\d.]+ {line}$", said, re.MULTILINE), said
    assert "user-data: I am root\nuser-data: unfinished\n" in said

    assert guest.ssh("cloud", "cat /run/hostler-guest/source; id -un").startswith("drive\ncloud\n")
    assert "root" in guest.ssh("root", "id -un")
    root_kib = int(guest.ssh("root", "df -k / | awk 'NR == 2 { print $2 }'").split()[0])
    assert root_kib > 900 * 1024, "the root file system did not grow to the disk"
    assert guest.ssh("cloud", "ping -c 1 127.0.0.1")


def test_nobody_has_a_password(start: StartGuest, tmp_path: Path) -> None:
    guest = start(*config_drive(tmp_path))
    guest.wait(r"ssh up$")
    for user in ("root", "cloud", "nobody"):
        refused = guest.ssh(user, "true", "PreferredAuthentications=none", status=255)
        assert f"{user}@127.0.0.1: Permission denied (publickey)." in refused
    shadow = guest.ssh("root", "cat /etc/shadow")
    hashes = {line.split(":")[1] for line in shadow.splitlines() if line.count(":") == 8}
    assert hashes == {"*"}
    assert "/" not in guest.ssh("root", "find /usr /etc /root /home -perm -4000 -o -perm -2000")


@pytest.mark.parametrize(("source", "layout"), [("openstack", openstack_layout), ("ec2", ec2_layout)])
def test_metadata_service_is_asked_in_either_layout(
    start: StartGuest, tmp_path: Path, source: str, layout: Callable[[Path, Path], Path]
) -> None:
    guest = start(service=layout(tmp_path / "service", tmp_path / "key"))
    guest.wait(r"^walker login:")
    assert f"metadata {source} {INSTANCE_ID}\n" in guest.console()
    assert "user-data exit 7\n" in guest.console()
    assert guest.ssh("cloud", "cat /run/hostler-guest/source").startswith(f"{source}\n")


def test_reboot_keeps_the_instance_and_power_button_ends_it(start: StartGuest, tmp_path: Path) -> None:
    guest = start(*config_drive(tmp_path))
    first_key = guest.wait(r"host-key (\S+ \S+)$")
    guest.wait(r"^walker login:")
    guest.ssh("root", "reboot")
    assert guest.wait(r"host-key (\S+ \S+)$", times=2) == first_key
    guest.wait(r"^hostler-guest: [\d.]+ done$", times=2)
    assert guest.console().count("user-data exit") == 1
    guest.end_by_power_button()


def test_copied_disk_becomes_another_instance(start: StartGuest, tmp_path: Path) -> None:
    first = start(*config_drive(tmp_path))
    first_key = first.wait(r"host-key (\S+ \S+)$")
    first.wait(r"^hostler-guest: [\d.]+ done$")
    first.end_by_power_button()

    (tmp_path / "key").unlink()
    (tmp_path / "key.pub").unlink()
    make_key(tmp_path / "key")
    copy = start(*config_drive(tmp_path, OTHER_INSTANCE_ID))
    assert copy.wait(r"host-key (\S+ \S+)$") != first_key
    copy.wait(r"user-data exit 7$")
    public_key = (tmp_path / "key.pub").read_text().strip()
    for user in ("root", "cloud"):
        keys = copy.ssh(user, "cat ~/.ssh/authorized_keys; echo end")
        assert keys.startswith(f"{public_key}\nend\n"), "keys of the former instance still open this one"


def test_cloud_config_names_writes_and_runs(start: StartGuest, tmp_path: Path) -> None:
    guest = start(*config_drive(tmp_path, user_data=CLOUD_CONFIG))
    guest.wait(r"^renamed login:")
    said = guest.console()
    assert "cloud-config: packages is not known here\n" in said
    assert "user-data: word list sh\nuser-data: block\nuser-data: hello\n" in said
    assert "user-data exit 3\n" in said
    assert guest.ssh("cloud", "cat /etc/made/here").startswith('it\'s "quoted"\n\n  indented\n')
    assert guest.ssh("root", "stat -c '%a %U' /etc/made/here").startswith("600 cloud\n")


def test_guest_agent_answers_and_shuts_down(start: StartGuest, tmp_path: Path) -> None:
    channel = tmp_path / "agent"
    guest = start(
        *config_drive(tmp_path),
        *("-chardev", f"socket,path={channel},server=on,wait=off,id=agent", "-device", "virtio-serial"),
        *("-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0"),
        image="hostler-tiny-agent",
    )
    guest.wait(r"agent up$")
    answer = talk(channel, {"execute": "guest-get-host-name"})
    assert answer["return"]["host-name"] == "walker"
    guest.wait(r"^walker login:")
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(channel))
        # This command has no answer when it succeeds.
        connection.sendall(b'{"execute": "guest-shutdown"}\n')
        guest.wait_for_end()

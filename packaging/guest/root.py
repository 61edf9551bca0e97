"""The guest's root file system as a folder: Debian's programs, their libraries, and the files of rootfs/.

Everything executable is in /usr/bin, and /bin, /sbin and /usr/sbin are links to it: the SSH server gives
ordinary users a PATH without sbin, and they want `ip` all the same.
"""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from kernel import BOOT_MODULES, LATER_MODULES, SCSI_MODULES, Kernel, load_order
from tools import HERE, BuildError, run

DEFAULT_MODE = 0o755
FOLDERS: dict[str, int] = {
    "dev": DEFAULT_MODE,
    "etc/dropbear": 0o700,
    "home/cloud": DEFAULT_MODE,
    "mnt/config": DEFAULT_MODE,
    "proc": DEFAULT_MODE,
    "root": 0o700,
    "run": DEFAULT_MODE,
    "sys": DEFAULT_MODE,
    "tmp": 0o1777,
    "usr/bin": DEFAULT_MODE,
    "usr/lib": DEFAULT_MODE,
    "usr/lib64": DEFAULT_MODE,
    "var/lib/hostler-guest": 0o700,
    "var/log": DEFAULT_MODE,
}

LINKS = {
    "bin": "usr/bin",
    "sbin": "usr/bin",
    "usr/sbin": "bin",
    "lib": "usr/lib",
    "lib64": "usr/lib64",
    "var/run": "/run",
    "var/tmp": "/tmp",
    "etc/resolv.conf": "/run/hostler-guest/resolv.conf",
    "etc/mtab": "/proc/self/mounts",
}

# Files of rootfs/ that only root may read. All others are 0755 or 0644, as the checkout says.
SECRET_FILES = ("etc/shadow",)


@dataclass(frozen=True, kw_only=True)
class Programs:
    """What an image runs: Debian packages to unpack, and the programs to take out of them.

    Libraries are found by themselves; a package that ships a needed library must be listed.
    """

    packages: tuple[str, ...]
    paths: tuple[str, ...]


BASE = Programs(
    packages=(
        # Static: starting it takes 5 ms under emulation, the shared one 20 ms, and a boot does it a hundred times.
        "busybox-static",
        "dropbear-bin",
        "e2fsprogs",
        "libblkid1",
        "libc6",
        "libcom-err2",
        "libcrypt1",
        "libext2fs2",
        "libgmp10",
        "libtomcrypt1",
        "libtommath1",
        "libuuid1",
        "zlib1g",
    ),
    paths=("bin/busybox", "usr/sbin/dropbear", "usr/bin/dropbearkey", "sbin/resize2fs"),
)

AGENT = Programs(
    packages=(
        *BASE.packages,
        "libglib2.0-0",
        "libnuma1",
        "libpcre2-8-0",
        "libudev1",
        "liburing2",
        "qemu-guest-agent",
    ),
    paths=(*BASE.paths, "usr/sbin/qemu-ga"),
)


def make_root(programs: Programs, unpacked: Path, kernel: Kernel, root: Path) -> None:
    """Fill the folder `root`. Ownership is left to the file system's writer: this runs without privileges."""
    for folder, mode in FOLDERS.items():
        (root / folder).mkdir(parents=True)
        (root / folder).chmod(mode)
    for link, target in LINKS.items():
        (root / link).symlink_to(target)
    _copy_programs(programs, unpacked, root)
    _link_applets(unpacked / "bin/busybox", root / "usr/bin")
    _copy_modules(kernel, root)
    _copy_own_files(root)


def _copy_programs(programs: Programs, unpacked: Path, root: Path) -> None:
    sources = [unpacked / path for path in programs.paths]
    for source in sources:
        _install(source, root / "usr/bin" / source.name, 0o755)
    for name, library in _libraries(sources, unpacked).items():
        # The dynamic linker's path is written into every program.
        folder = "usr/lib64" if name.startswith("ld-linux") else "usr/lib"
        _install(library, root / folder / name, 0o755)


def _libraries(programs: list[Path], unpacked: Path) -> dict[str, Path]:
    """Every shared library that the programs need, directly or not, by the name they ask for."""
    available = {path.name: path for path in sorted(unpacked.rglob("*.so*"))}
    needed: dict[str, Path] = {}
    queue = list(programs)
    while queue:
        binary = queue.pop()
        for name in re.findall(r"\(NEEDED\).*\[(.+)\]", run("readelf", "-d", binary)):
            if name in needed:
                continue
            if name not in available:
                raise BuildError(f"{binary.name} needs {name}: add the Debian package that ships it to root.py")
            needed[name] = _resolved(available[name], unpacked)
            queue.append(needed[name])
    return needed


def _resolved(path: Path, unpacked: Path) -> Path:
    """Follow a package's link inside the unpacked tree: absolute links mean the guest's root, not ours."""
    while path.is_symlink():
        target = path.readlink()
        path = unpacked / str(target).lstrip("/") if target.is_absolute() else path.parent / target
    return path


def _link_applets(busybox: Path, folder: Path) -> None:
    for applet in run(busybox, "--list").split():
        link = folder / applet
        if not link.exists():
            link.symlink_to("busybox")


def _copy_modules(kernel: Kernel, root: Path) -> None:
    modules = root / "usr/lib/modules" / kernel.version
    for path in load_order(kernel, (*BOOT_MODULES, *SCSI_MODULES, *LATER_MODULES)):
        _install(kernel.modules_folder / path, modules / path, 0o644)
        run("strip", "--strip-debug", modules / path)
    indexes = ("modules.order", "modules.builtin", "modules.builtin.modinfo")
    for index in indexes:
        _install(kernel.modules_folder / index, modules / index, 0o644)
    run("depmod", "-b", root, kernel.version)
    # Big, and only depmod reads them; busybox's modprobe knows the text indexes alone.
    for index in (*indexes, *(path.name for path in modules.glob("*.bin"))):
        (modules / index).unlink()


def _copy_own_files(root: Path) -> None:
    source = HERE / "rootfs"
    for path in sorted(source.rglob("*")):
        if path.is_file():
            name = path.relative_to(source)
            secret = str(name) in SECRET_FILES
            public_mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
            # A file of ours replaces the applet of the same name.
            (root / name).unlink(missing_ok=True)
            _install(path, root / name, 0o600 if secret else public_mode)


def _install(source: Path, target: Path, mode: int) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(mode)

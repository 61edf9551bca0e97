"""Domain XML: what is rendered is written down, fits libvirt's own schema, and says what must be said.

To write the golden files anew after a change that was meant: `HOSTLER_GOLDEN=write python -m pytest <this file>`.
"""

import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from agent.wire.domain import Hardware, Landing
from agent.wire.errors import Invalid, Unfit
from agent.wire.lifecycle import Generation
from agent.wire.volume import Chap, IscsiSource, initiator_iqn, target_iqn
from drivers.hypervisor.base import DiskSource, NicSource
from drivers.hypervisor.hardware import resolved
from drivers.hypervisor.libvirt import xml
from tests.drivers.machines import a_machine, changed

GOLDEN = Path(__file__).parent / "golden"
SCHEMAS = Path("/usr/share/libvirt/schemas/domain.rng")

QEMU = xml.HostFacts(virt_type="qemu", arch="x86_64", emulator="/usr/bin/qemu-system-x86_64")
KVM = msgspec.structs.replace(QEMU, virt_type="kvm", gid=108)
RESOLVED = Hardware(machine="pc-q35-7.2", cpu_model="qemu64")

MACHINE = a_machine(
    domain_id="5b2c8f0e-7a64-4d8e-9a0f-0123456789ab",
    n=7,
    labels={"server": "first", "odd": '<&">\n'},
    disks=(
        DiskSource(disk_id="r", path="/srv/disks/r.qcow2", format="qcow2", boot_index=0, serial="r"),
        DiskSource(disk_id="e", path="/srv/disks/e.qcow2", format="qcow2"),
        DiskSource(disk_id="c", path="/srv/disks/c.iso", format="raw", is_cdrom=True),
    ),
    nics=(NicSource(device="t0123456789", mac="fa:16:3e:00:00:01", mtu=1450),),
    folder="/srv/guests/5b2c8f0e",
    memory_mib=256,
)

AT = "0a6d0c7e-1111-4111-8111-0123456789ab"
VOLUME = IscsiSource(
    volume_id="7f0a1b2c-2222-4222-8222-0123456789ab",
    host="198.18.0.11",
    port=3260,
    iqn=target_iqn("c0fe", AT),
    lun=1,
    initiator=initiator_iqn("c0fe", "h1"),
    chap=Chap(user=AT, secret="never-rendered"),
    size_gib=1,
)


def plugged(device: str, boot_index: int | None = None, bus: str = "", **changes) -> DiskSource:
    volume = msgspec.structs.replace(VOLUME, **changes)
    return DiskSource(
        disk_id=AT,
        path="",
        format="raw",
        iscsi=volume,
        device=device,
        bus=bus,
        serial=volume.volume_id,
        boot_index=boot_index,
    )


WITH_VOLUMES = msgspec.structs.replace(
    MACHINE, disks=(plugged("vda", 0), *MACHINE.disks[2:], plugged("vdc", is_shared=True, is_read_only=True))
)

CASES = {
    "domain-volumes": (WITH_VOLUMES, RESOLVED, QEMU),
    "domain-tcg": (MACHINE, RESOLVED, QEMU),
    "domain-kvm": (MACHINE, Hardware(machine="pc-q35-7.2", cpu_model="EPYC,+x2apic,-svm"), KVM),
    "domain-uefi-scsi": (
        MACHINE,
        Hardware(machine="pc-q35-7.2", cpu_model="qemu64", firmware="uefi", disk_bus="scsi", vif_model="e1000"),
        QEMU,
    ),
    "domain-bare": (a_machine(domain_id=MACHINE.spec.id), Hardware(machine="pc-i440fx-7.2", cpu_model="qemu64"), QEMU),
}


@pytest.fixture(scope="module")
def schema() -> etree.RelaxNG:
    if not SCHEMAS.exists():
        pytest.skip("libvirt's schemas are not installed")
    return etree.RelaxNG(etree.parse(str(SCHEMAS)))


@pytest.mark.parametrize("name", CASES)
def test_rendered_xml_is_as_written_down(name):
    text = xml.render(*CASES[name], "c0fe")
    golden = GOLDEN / f"{name}.xml"
    if os.environ.get("HOSTLER_GOLDEN") == "write":
        golden.write_text(text)
    assert text == golden.read_text()


@pytest.mark.parametrize("name", CASES)
def test_rendered_xml_fits_libvirts_schema(name, schema):
    text = xml.render(*CASES[name], "c0fe")
    assert schema.validate(etree.fromstring(text)), schema.error_log


def test_no_graphics_listens_and_no_owner_is_changed():
    domain = etree.fromstring(xml.render(MACHINE, RESOLVED, QEMU, "c0fe"))
    assert [element.get("type") for element in domain.iterfind("devices/graphics/listen")] == ["none"]
    labels = [(label.get("relabel"), label.findtext("label")) for label in domain.iterfind("seclabel")]
    assert labels == [("no", "+70001:+70001")]


def test_hardware_that_is_not_in_the_tables_is_unfit():
    for wrong in ({"disk_bus": "floppy"}, {"vif_model": "token-ring"}, {"firmware": "coreboot"}):
        with pytest.raises(Unfit):
            xml.render(MACHINE, msgspec.structs.replace(RESOLVED, **wrong), QEMU, "c0fe")


def test_text_that_xml_cannot_carry_is_invalid():
    with pytest.raises(Invalid):
        xml.render(changed(MACHINE, name="a\x00b"), RESOLVED, QEMU, "c0fe")


def test_thirty_disks_get_names_of_their_own():
    disks = tuple(DiskSource(disk_id=str(n), path=f"/d/{n}", format="raw") for n in range(30))
    domain = etree.fromstring(xml.render(msgspec.structs.replace(MACHINE, disks=disks), RESOLVED, QEMU, "c0fe"))
    names = [target.get("dev") for target in domain.iterfind("devices/disk/target")]
    assert names[:2] == ["vda", "vdb"] and names[26:28] == ["vdaa", "vdab"] and len(set(names)) == 30


@given(
    labels=st.dictionaries(st.text(max_size=20), st.text(max_size=50), max_size=5),
    epoch=st.integers(0, 2**62),
    n=st.integers(0, 2**62),
)
def test_the_mark_comes_back_whatever_the_labels_hold(labels, epoch, n):
    machine = changed(MACHINE, labels=labels, generation=Generation(epoch, n))
    domain = etree.fromstring(xml.render(machine, RESOLVED, QEMU, "c0fe"))
    element = domain.find(f"metadata/{{{xml.NAMESPACE}}}domain")
    mark = xml.parse_mark(etree.tostring(element, encoding="unicode"))
    assert mark is not None
    assert (mark.tag, mark.id, mark.generation) == ("c0fe", machine.spec.id, Generation(epoch, n))
    assert (mark.labels, mark.hardware, mark.folder) == (labels, RESOLVED, machine.folder)


@pytest.mark.parametrize("text", ["", "<x", "<domain/>", '<domain tag="a" id="b" epoch="x" n="1" folder="/"/>'])
def test_a_damaged_mark_is_nobodys(text):
    assert xml.parse_mark(text) is None


def test_host_model_is_written_out_with_its_features():
    capabilities = """<domainCapabilities><machine>pc-q35-7.2</machine><cpu>
      <mode name='host-passthrough' supported='yes'/>
      <mode name='host-model' supported='yes'><model fallback='forbid'>EPYC-Rome</model><vendor>AMD</vendor>
        <feature policy='require' name='x2apic'/><feature policy='disable' name='svm'/></mode></cpu>
      </domainCapabilities>"""
    assert xml.cpu_of(capabilities) == "EPYC-Rome,+x2apic,-svm"
    assert xml.machine_of(capabilities) == "pc-q35-7.2"


def test_a_host_without_a_cpu_model_is_unfit():
    with pytest.raises(Unfit):
        xml.cpu_of("<domainCapabilities><cpu><mode name='host-model' supported='no'/></cpu></domainCapabilities>")


def test_what_was_resolved_first_wins_over_what_the_host_would_say_now():
    known = Hardware(machine="pc-q35-6.0", cpu_model="EPYC")
    assert resolved(Hardware(), known, machine="pc-q35-7.2", cpu_model="qemu64") == known
    fresh = resolved(Hardware(), None, machine="pc-q35-7.2", cpu_model="qemu64")
    assert fresh == Hardware(machine="pc-q35-7.2", cpu_model="qemu64")
    asked = Hardware(machine="pc-q35-5.2", cpu_model="Nehalem", disk_bus="scsi")
    assert resolved(asked, known, machine="pc-q35-7.2", cpu_model="qemu64") == asked


def test_a_secret_is_in_no_xml_and_is_libvirts_alone():
    assert VOLUME.chap.secret not in xml.render(WITH_VOLUMES, RESOLVED, QEMU, "c0fe")
    element = etree.fromstring(xml.secret(VOLUME.iqn))
    assert (element.get("ephemeral"), element.get("private")) == ("yes", "yes")
    used = etree.fromstring(xml.volume(plugged("vdb"), RESOLVED)).find("source/auth/secret").get("usage")
    assert element.findtext("usage/target") == used == VOLUME.iqn


def test_volumes_are_found_again_in_a_domains_xml():
    machine = msgspec.structs.replace(MACHINE, disks=(*MACHINE.disks, plugged("vdq")))
    found = xml.volumes(xml.render(machine, RESOLVED, QEMU, "c0fe"))
    assert {key: (one.device, one.iqn) for key, one in found.items()} == {AT: ("vdq", VOLUME.iqn)}


def test_given_names_are_kept_and_the_others_take_what_is_free():
    disks = (plugged("vdb"), *MACHINE.disks, plugged("sda", bus="scsi"))
    domain = etree.fromstring(xml.render(msgspec.structs.replace(MACHINE, disks=disks), RESOLVED, QEMU, "c0fe"))
    found = [
        (each.find("target").get("dev"), each.find("target").get("bus")) for each in domain.iterfind("devices/disk")
    ]
    assert found == [("vdb", "virtio"), ("vda", "virtio"), ("vdc", "virtio"), ("sdb", "scsi"), ("sda", "scsi")]


def test_a_domain_that_moves_is_the_same_but_for_its_places() -> None:
    """Rendered for the other host it would be what it is rewritten to; what the guest sees stays word for word."""
    source = DiskSource(
        disk_id="v",
        path="",
        format="raw",
        iscsi=IscsiSource(
            volume_id="v",
            host="198.18.0.1",
            port=3260,
            iqn=target_iqn("abcd", "v"),
            lun=1,
            initiator=initiator_iqn("abcd", "h1"),
            chap=Chap(user="v", secret="s" * 32),
            size_gib=1,
        ),
        device="vdc",
    )
    here = msgspec.structs.replace(MACHINE, disks=(*MACHINE.disks, source))
    landing = Landing(
        uid=70002,
        gid=70002,
        folder="/there/guest",
        gate="/run/gate",
        disks={"r": "/there/r.qcow2", "e": "/there/e.qcow2", "c": "/there/c.iso"},
        nics={"fa:16:3e:00:00:01": "t9999999999"},
        initiators={"v": initiator_iqn("abcd", "h2")},
    )
    there = msgspec.structs.replace(
        here,
        uid=70002,
        folder="/there/guest",
        disks=(
            *(msgspec.structs.replace(disk, path=landing.disks[disk.disk_id]) for disk in MACHINE.disks),
            msgspec.structs.replace(
                source, iscsi=msgspec.structs.replace(source.iscsi, initiator=initiator_iqn("abcd", "h2"))
            ),
        ),
        nics=tuple(msgspec.structs.replace(nic, device="t9999999999") for nic in MACHINE.nics),
    )
    moved = xml.moved(xml.render(here, RESOLVED, QEMU, "abcd"), here.folder, landing)
    wanted = xml.render(there, RESOLVED, QEMU, "abcd")
    assert etree.canonicalize(moved, strip_text=True) == etree.canonicalize(wanted, strip_text=True)
    assert xml.own_disks(moved) == ["vda", "vdb"]

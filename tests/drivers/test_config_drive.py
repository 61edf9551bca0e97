"""The config drive as cloud-init reads it."""

import io
import json

import pycdlib
import pytest

from drivers.image import config_drive
from tests.drivers.machines import a_guest

GUEST = a_guest(
    meta_data='{"uuid": "x", "hostname": "förest"}',
    ec2={
        "instance-id": "i-1",
        "public-keys": "0=mine",
        "public-keys/0": "mine",
        "public-keys/0/openssh-key": "ssh-ed25519 A",
        "hostname": "first",
    },
)


@pytest.fixture
def iso():
    iso = pycdlib.PyCdlib()
    iso.open_fp(io.BytesIO(config_drive.render(GUEST)))
    yield iso
    iso.close()


def read(iso, **path: str) -> bytes:
    content = io.BytesIO()
    iso.get_file_from_iso_fp(content, **path)
    return content.getvalue()


def test_the_label_is_what_cloud_init_looks_for(iso):
    assert iso.pvd.volume_identifier.strip() == b"config-2"


@pytest.mark.parametrize("kind", ["rr_path", "joliet_path"])
def test_every_file_is_there_in_both_name_spaces(iso, kind):
    for path, content in config_drive.files(GUEST).items():
        assert read(iso, **{kind: f"/{path}"}) == content


def test_openstack_documents_are_carried_byte_for_byte(iso):
    assert json.loads(read(iso, rr_path="/openstack/latest/meta_data.json"))["hostname"] == "förest"
    assert read(iso, rr_path="/openstack/2018-08-27/user_data") == b"#!/bin/sh\n"


def test_ec2_paths_become_one_document():
    document = json.loads(config_drive.files(GUEST)["ec2/latest/meta-data.json"])
    assert document == {
        "hostname": "first",
        "instance-id": "i-1",
        "public-keys": {"_name": "0=mine", "0": {"_name": "mine", "openssh-key": "ssh-ed25519 A"}},
    }


def test_without_user_data_there_is_no_such_file():
    assert not [path for path in config_drive.files(a_guest(user_data=b"")) if "user" in path]


def test_user_data_of_the_largest_size_fits():
    guest = a_guest(user_data=bytes(range(256)) * 256)
    iso = pycdlib.PyCdlib()
    iso.open_fp(io.BytesIO(config_drive.render(guest)))
    assert read(iso, rr_path="/openstack/latest/user_data") == guest.user_data
    iso.close()

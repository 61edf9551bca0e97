"""What guests read of themselves."""

import pytest

from agent.layouts import find
from agent.wire.domain import GuestData

GUEST = GuestData(
    meta_data='{"uuid": "1", "public_keys": {"mine": "ssh-ed25519 AAAA me"}}',
    network_data='{"links": []}',
    user_data=b"#!/bin/sh\n\xff",
    ec2={
        "hostname": "first",
        "instance-id": "i-00000001",
        "public-keys/0/openssh-key": "ssh-ed25519 AAAA me",
        "public-keys/1/openssh-key": "ssh-ed25519 BBBB me",
        "placement/availability-zone": "nova",
    },
)


def text(path: str, guest: GuestData = GUEST) -> str | None:
    found = find(path, guest)
    return None if found is None else found.body.decode("latin-1")


def test_the_index_has_the_versions_that_cloud_init_looks_for() -> None:
    for path in ("/openstack", "/openstack/", "//openstack"):
        lines = (text(path) or "").split("\n")
        assert {"2012-08-10", "2018-08-27", "latest"} <= set(lines) and lines == sorted(lines)


def test_a_version_has_what_it_brought_and_all_before() -> None:
    assert text("/openstack/2012-08-10/") == "meta_data.json\nuser_data"
    assert text("/openstack/2012-08-10/network_data.json") is None
    assert text("/openstack/latest") == (
        "meta_data.json\nnetwork_data.json\nuser_data\nvendor_data.json\nvendor_data2.json"
    )
    assert text("/openstack/2018-08-27/meta_data.json") == GUEST.meta_data
    assert text("/openstack/latest/vendor_data.json") == "{}"


def test_user_data_is_bytes_and_absent_if_there_is_none() -> None:
    found = find("/openstack/latest/user_data", GUEST)
    assert found is not None and found.body == b"#!/bin/sh\n\xff"
    bare = GuestData(meta_data="{}", network_data="{}")
    assert text("/openstack/latest/user_data", bare) is None
    assert text("/latest/user-data", bare) is None
    assert text("/latest", bare) == "meta-data/"


def test_ec2_lists_directories_and_keys_as_amazon_does() -> None:
    assert (text("/") or "").endswith("2009-04-04\nlatest")
    assert text("/latest/") == "meta-data/\nuser-data"
    assert text("/2009-04-04/meta-data/") == "hostname\ninstance-id\nplacement/\npublic-keys/"
    assert text("/latest/meta-data/hostname/") == "first"
    assert text("/latest/meta-data/public-keys/") == "0=mine\n1=key-1"
    assert text("/latest/meta-data/public-keys/0/") == "openssh-key"
    assert text("/latest/meta-data/public-keys/0/openssh-key") == "ssh-ed25519 AAAA me"
    assert text("/latest/meta-data/placement/availability-zone") == "nova"


@pytest.mark.parametrize(
    "path",
    [
        "/openstack/../etc/passwd",
        "/openstack/1999-01-01",
        "/openstack/latest/meta_data.json/x",
        "/latest/meta-data/../user-data",
        "/latest/meta-data/public-keys/2",
        "/latest/meta-data/host",
        "/latest/meta-data/nothing/",
        "/latest/%6deta-data/",
        "/etc/passwd",
    ],
)
def test_nothing_else_is_there(path: str) -> None:
    assert find(path, GUEST) is None

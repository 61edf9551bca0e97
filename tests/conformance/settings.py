"""tempest.conf: where the cloud is, and which features it has. What is false here is skipped by Tempest itself."""

import configparser
from pathlib import Path

from tests.conformance.cloud import FLAVOR_ID, MULTIATTACH, OTHER_FLAVOR_ID, Furnished

NO = "false"

ABSENT = {
    # Features that come later, or that hosts without guests cannot show; Tempest skips what needs them.
    "compute-feature-enabled": (
        "cold_migration live_migration shelve snapshot config_drive metadata_service spice_console change_password "
        "personality attach_encrypted_volume enable_instance_password"
    ),
    "image-feature-enabled": "import_image image_format_enforcement",
    "identity-feature-enabled": "trust domain_specific_drivers access_rules",
    "volume-feature-enabled": (
        "backup multi_backend manage_snapshot manage_volume replication extend_attached_encrypted_volume"
    ),
    "service_available": "swift horizon",
}


def write(workspace: Path, cloud: Furnished) -> None:
    """Into the workspace's etc/tempest.conf."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_dict(_settings(workspace, cloud))
    with (workspace / "etc" / "tempest.conf").open("w") as file:
        parser.write(file)


def _settings(workspace: Path, cloud: Furnished) -> dict[str, dict[str, str]]:
    absent = {section: dict.fromkeys(names.split(), NO) for section, names in ABSENT.items()}
    return {
        "DEFAULT": {"debug": NO, "log_file": "tempest.log"},
        "oslo_concurrency": {"lock_path": str(workspace / "lock")},
        "auth": {
            "use_dynamic_credentials": "true",
            "create_isolated_networks": "true",
            "admin_username": "admin",
            "admin_password": cloud.admin_password,
            "admin_project_name": "admin",
            "admin_domain_name": "Default",
            "tempest_roles": "member",
        },
        "identity": {
            "uri_v3": f"{cloud.trial.api_url}/identity/v3",
            "auth_version": "v3",
            "region": "RegionOne",
            "v3_endpoint_type": "public",
            "user_unique_last_password_count": "0",
            "user_lockout_failure_attempts": "0",
        },
        # Without it Tempest changes nobody's password; history and lockout, which are absent, are switched off above.
        "identity-feature-enabled": {"security_compliance": "true", **absent["identity-feature-enabled"]},
        "service_available": {
            **dict.fromkeys(("nova", "neutron", "glance", "cinder"), "true"),
            **absent["service_available"],
        },
        "compute": {
            "image_ref": cloud.image_ids[0],
            "image_ref_alt": cloud.image_ids[1],
            "flavor_ref": FLAVOR_ID,
            "flavor_ref_alt": OTHER_FLAVOR_ID,
            "min_microversion": "2.1",
            "max_microversion": cloud.microversion,
            "min_compute_nodes": str(cloud.hosts),
            "hypervisor_type": "QEMU",
            "build_interval": "1",
            "build_timeout": "60",
        },
        "compute-feature-enabled": {
            **absent["compute-feature-enabled"],
            "console_output": "true",
            "vnc_console": "true",
            "disk_config": "true",
            "volume_multiattach": "true",
            "resize": "true",
            "scheduler_enabled_filters": "ComputeFilter",
            "api_extensions": ",".join(cloud.compute_extensions),
        },
        "image": {
            "http_image": f"{cloud.trial.api_url}/not-an-image",
            "container_formats": "bare",
            "disk_formats": "raw",
            "build_timeout": "60",
        },
        "image-feature-enabled": {"os_glance_reserved": "true", **absent["image-feature-enabled"]},
        "network": {
            "public_network_id": cloud.network_id,
            "floating_network_name": "public",
            "project_network_cidr": "10.100.0.0/16",
            "project_network_mask_bits": "28",
            "build_timeout": "60",
        },
        "network-feature-enabled": {
            "ipv6": "true",
            "ipv6_subnet_attributes": "true",
            "port_security": "true",
            "port_admin_state_change": "true",
            "api_extensions": ",".join(cloud.network_extensions),
        },
        "volume": {
            "min_microversion": "3.0",
            "max_microversion": cloud.volume_microversion,
            "disk_format": "raw",
            "vendor_name": "Hostler",
            "storage_protocol": "iSCSI",
            "volume_type_multiattach": MULTIATTACH,
            "build_timeout": "60",
        },
        "volume-feature-enabled": {
            "extend_attached_volume": "true",
            "api_extensions": ",".join(cloud.volume_extensions),
            **absent["volume-feature-enabled"],
        },
        "validation": {"run_validation": NO},
    }

"""OpenStack's own judge, Tempest, run against a cloud of its own with fake hosts. See README.md."""

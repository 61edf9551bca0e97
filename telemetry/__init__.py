"""Metering: what guests use, pulled from the hosts and shown to Prometheus."""

"""Metering: nothing yet."""

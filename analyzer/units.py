"""Times are integers: nanoseconds since 1970 in UTC, on the clock of the capture that saw them."""

NS = 1_000_000_000
US = 1_000
MS = 1_000_000

NO_TIME = -(2**63)
"""Stands for "not seen" in integer time columns; no capture can hold it."""

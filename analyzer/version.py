"""Versions: of the program, and of the kernel model's rules."""

VERSION = "0.1.0"
KERNEL_MODEL = 1
"""Raised whenever a rule or a profile changes what a SYN gets."""

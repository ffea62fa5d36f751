"""32-bit wrap-around arithmetic, the only place where it lives.

TCP sequence numbers and TSvals live on a circle of 2**32 values (RFC 9293 section 3.4,
RFC 7323 section 4.1).  Linux compares them as ``(s32)(a - b)``; so do these functions.
They take and return plain integers, and compiled stages compile these same functions:
pass ``int64`` values there, since ``uint32 - uint32`` would be unsigned.
"""

MASK32 = 0xFFFFFFFF
HALF = 0x80000000


def d32(a: int, b: int) -> int:
    """Return ``a - b`` on the circle as a signed 32-bit number, -2**31 … 2**31 - 1.

    >>> d32(5, 4294967290), d32(481284815, 517740536)
    (11, -36455721)
    """
    return (((a - b) & MASK32) ^ HALF) - HALF


def add32(a: int, b: int) -> int:
    """Return ``a + b`` on the circle, 0 … 2**32 - 1."""
    return (a + b) & MASK32


def after(a: int, b: int) -> bool:
    """Whether *a* is later than *b*; at a distance of exactly 2**31 neither is."""
    return d32(a, b) > 0


def before(a: int, b: int) -> bool:
    """Whether *a* is earlier than *b*; -2**31 counts as earlier, as in Linux ``before()``."""
    return d32(a, b) < 0


def u32age(now: int, then: int) -> int:
    """Return ``now - then`` as an unsigned 32-bit number: a stamp of the future is very old."""
    return (now - then) & MASK32

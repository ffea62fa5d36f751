"""What makes a command start quickly."""

import sys
from typing import Any


def load_numba() -> None:
    """Load numba without scipy's linear algebra, a fifth of a second that it spends in search of a BLAS.

    Nothing here multiplies matrices in compiled code.  For programs of ours only: numba, once loaded so, has no
    ``np.dot`` in this process.
    """
    if "numba" in sys.modules or "scipy.linalg" in sys.modules:
        return
    modules: dict[str, Any] = sys.modules
    modules["scipy.linalg"] = None  # Python's own way to say: not to be found
    try:
        from numba.core.registry import cpu_target

        cpu_target.target_context.refresh()
    finally:
        del modules["scipy.linalg"]

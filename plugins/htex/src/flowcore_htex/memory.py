"""Files in memory, which go from process to process by their descriptors, and can be sealed."""

from __future__ import annotations

import errno
import fcntl
import os
from typing import Final

# From Linux' headers: Python has no names for what the headers that it was built with did not know.
_MFD_CLOEXEC: Final = 1
_MFD_ALLOW_SEALING: Final = 2
_F_ADD_SEALS: Final = 1033
_F_GET_SEALS: Final = 1034
_SEALS: Final = 2 | 4 | 8
"""No shrinking, no growing, no writing."""


def memory_file(name: str) -> int:
    """Make a file in memory, and return its descriptor; raises `OSError` where there is none to be had."""
    flags = _MFD_CLOEXEC | _MFD_ALLOW_SEALING
    if hasattr(os, "memfd_create"):
        return os.memfd_create(name, flags)
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "memfd_create"):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    descriptor: int = libc.memfd_create(name.encode(), flags)
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return descriptor


def shared_file(name: str) -> int:
    """Return the descriptor of a file to be mapped by several processes: in memory, or else one without a name."""
    try:
        return memory_file(name)
    except OSError:
        import tempfile

        with tempfile.TemporaryFile(prefix=name) as file:
            return os.dup(file.fileno())


def seal(descriptor: int) -> None:
    """Let nobody change a file in memory any more."""
    fcntl.fcntl(descriptor, _F_ADD_SEALS, _SEALS)


def is_sealed(descriptor: int) -> bool:
    """Whether nobody can change the file; raises `OSError` for one that cannot be sealed."""
    return fcntl.fcntl(descriptor, _F_GET_SEALS) & _SEALS == _SEALS

"""A limit of the process stands in for a disk that is full."""

import contextlib
import resource


@contextlib.contextmanager
def no_file_above(size):
    """No file of this process may get more bytes; what would is told "File too large"."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

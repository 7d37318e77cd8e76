"""What can be done about Ray before it is imported: what its environment tells it, and whether a cluster answers."""

from __future__ import annotations

import os
import socket

from cp_vision import UserError
from cp_vision.shared.errors import one_line

__all__ = ["check_address", "prepare_environment"]

_SETTINGS = {
    # Its older, plain output: ours is the only progress bar.
    "RAY_AIR_NEW_OUTPUT": "0",
    # Paths in recipes are those of the command's own folder.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # The record is the study's; nothing is logged twice.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Ctrl-C ends the search as it does without Ray.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
}


def prepare_environment(address: str | None) -> None:
    """Set what the user has not set; call it before Ray is imported.

    Args:
        address: of the cluster; None stands for one that is started here, where nothing listens beyond this machine.
    """
    settings = dict(_SETTINGS)
    if address is None:
        # By the name of the first; it makes Ray take the loopback address on any system, which its own argument for
        # the address of a node does not.
        settings |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "disabled"}
    for name, value in settings.items():
        os.environ.setdefault(name, value)


def check_address(address: str) -> None:
    """Raise a UserError where nobody answers; Ray itself would try for minutes."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if not colon or not port.isdigit():
        if address == "auto":
            return
        raise UserError(f"address {address!r} must be HOST:PORT, such as ray-head:6379, or auto")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise UserError(f"address {address!r}: no Ray cluster can be reached there: {one_line(error)}") from error

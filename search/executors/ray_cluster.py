"""The Ray that a search runs on: one that is started here, or a cluster; what is checked before anything is written.

Ray is imported in the functions, since it reads its environment where it is imported.
"""

from __future__ import annotations

import ipaddress
import math
import os
import shutil
import socket
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from cp_vision.shared.command_line import CommandError
from cp_vision.shared.errors import UserError, one_line

from ...recipes.recipe.keys import Recipe
from ..config.files import absolute
from ..config.schema import SearchConfig

__all__ = ["check_cluster", "for_workers", "how_many_fit", "on_cluster", "wanted_resources"]

_SETTINGS = {
    # Its older, plain output: ours is the only progress bar.
    "RAY_AIR_NEW_OUTPUT": "0",
    # Paths in recipes are those of the command's own folder.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # The study has all results; nothing is logged twice.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Ctrl-C ends the search as it does without Ray.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
}
# By the name of the first; it makes Ray take the loopback address on any system, which the argument of ray.init for a
# node's address does not.
_LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
_ALONE = {_LOOPBACK: "0", "RAY_AUTH_MODE": "disabled"}


def check_cluster(config: SearchConfig) -> None:
    """Import Ray as a search needs it, and see that a candidate fits one of its nodes: Tune would wait for ever.

    Raises:
        UserError: Ray is not installed, or was imported too early; no cluster is at the address; a candidate asks for
            what no node has.
        CommandError: Ray can't be started here.
    """
    wanted = wanted_resources(config)
    _import_ray(config.address)
    import ray

    if config.address is None and not ray.is_initialized():
        here = {"CPU": float(os.cpu_count() or 1), "GPU": float(torch.cuda.device_count())}
        how_many_fit({name: wanted[name] for name in wanted.keys() & here.keys()}, [here])
        if wanted.keys() <= here.keys():
            return
    with on_cluster(config) as nodes:
        how_many_fit(wanted, nodes)


def for_workers(config: SearchConfig, recipe: Recipe) -> SearchConfig:
    """The same search for workers, which are in other folders, or on other machines."""
    return absolute(config, recipe).with_values(output=Path(config.output).resolve())


def wanted_resources(config: SearchConfig) -> dict[str, float]:
    """What a candidate asks for, by Ray's names.

    Raises:
        UserError: nothing, or parts of several GPUs.
    """
    if config.gpus > 1 and config.gpus != int(config.gpus):
        raise UserError(f"gpus {config.gpus} must be a whole number, or below 1 for a share of one GPU")
    wanted = {"CPU": config.cpus, "GPU": config.gpus, **config.resources}
    wanted = {name: float(amount) for name, amount in wanted.items() if amount > 0}
    if not wanted:
        raise UserError(f"cpus {config.cpus} and gpus {config.gpus}: one of them must be above 0")
    return wanted


def how_many_fit(wanted: Mapping[str, float], nodes: Iterable[Mapping[str, float]]) -> int:
    """How many candidates run at a time.

    Args:
        wanted: what each asks for.
        nodes: what each node has.

    Raises:
        UserError: none does, since a candidate runs on one node.
    """
    nodes = list(nodes)
    for name, amount in wanted.items():
        most = max((node.get(name, 0.0) for node in nodes), default=0.0)
        if amount > most:
            option = {"CPU": "cpus", "GPU": "gpus"}.get(name, f"resource {name!r}")
            raise UserError(
                f"{option} {amount:g} of a candidate: no machine has more than {most:g}; ask for no more, or name the "
                "address of another cluster"
            )
    fitting = sum(math.floor(min((node.get(n, 0.0) / most for n, most in wanted.items()), default=0)) for node in nodes)
    if wanted and not fitting:
        asked = ", ".join(f"{amount:g} {name}" for name, amount in wanted.items())
        raise UserError(f"a candidate asks for {asked}, and no node has all of that; ask for less")
    return fitting


@contextmanager
def on_cluster(config: SearchConfig) -> Iterator[list[Mapping[str, float]]]:
    """A Ray that is running already, the one at an address, or one on this machine alone; gives what its nodes have."""
    import ray

    own = not ray.is_initialized()
    if own:
        _start(config)
    try:
        yield [node["Resources"] for node in ray.nodes() if node["Alive"]]
    finally:
        if own:
            ray.shutdown()


def _start(config: SearchConfig) -> None:
    import ray

    options: dict[str, Any] = {"address": config.address, "logging_level": "error", "log_to_driver": False}
    if config.address is None:
        # Not one that somebody else left running here either.
        options |= {"address": "local", "include_dashboard": False}
        options["num_cpus"] = max(os.cpu_count() or 1, math.ceil((config.parallel or 1) * config.cpus))
    try:
        ray.init(**options)
    except Exception as error:
        # Ray raises a bare Exception where one of its processes doesn't start.
        reason = one_line(error)[:200]
        if config.address is None:
            place = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
            raise CommandError(
                f"Ray can't be started here: {reason}; RAY_TMPDIR names the folder of its files, now {place!r} with "
                f"{_free(place)} MiB left on its disk"
            ) from error
        raise UserError(f"address {config.address!r}: no Ray cluster can be reached there: {reason}") from error


def _free(folder: str) -> int:
    try:
        return shutil.disk_usage(folder).free >> 20
    except OSError:
        # It isn't there.
        return 0


def _import_ray(address: str | None) -> None:
    """Import Ray with the environment that the user has not set."""
    if address is not None:
        _check_address(address)
    for name, value in (_SETTINGS if address is not None else _SETTINGS | _ALONE).items():
        os.environ.setdefault(name, value)
    try:
        import ray.tune
    except ImportError as error:
        raise UserError(
            f"executor 'ray' needs Ray Tune, which can't be imported ({one_line(error)}); pip install "
            "'cp-vision[search]', or take the executor local"
        ) from error
    if address is not None or ray.is_initialized() or os.environ[_LOOPBACK] != "0":
        return
    if not ipaddress.ip_address(ray.util.get_node_ip_address()).is_loopback:
        raise UserError(
            "executor 'ray': Ray was imported before it could be told to listen on this machine alone; set "
            f"{_LOOPBACK}=0 before Ray is imported, or call ray.init() before the search"
        )


def _check_address(address: str) -> None:
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

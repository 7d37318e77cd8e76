"""One function in several workers of Ray, which share work among themselves."""

from __future__ import annotations

from collections.abc import Callable

from cp_vision.shared.command_line import CommandError
from cp_vision.shared.errors import UserError, one_line

from ...recipes.recipe.keys import Recipe
from ..config.schema import SearchConfig
from .ray_cluster import check_cluster, for_workers, how_many_fit, on_cluster, wanted_resources

__all__ = ["run_on_workers"]

# Seconds between looks at how far they are, and how often one that is lost is begun anew.
_POLL, _RETRIES = 0.5, 5


def run_on_workers(
    config: SearchConfig, recipe: Recipe, task: Callable[[SearchConfig], None], look: Callable[[], None]
) -> None:
    """Run a function of a module in as many workers as the config says, or as fit, until all have ended.

    Args:
        config: the search, which workers are given with whole paths.
        recipe: its recipe.
        task: what a worker runs; it finds out for itself what others do.
        look: called again and again meanwhile.

    Raises:
        UserError: no node has what a worker asks for, or raised by a worker.
        CommandError: Ray can't be started, a worker is lost again and again, or raised by a worker.
    """
    check_cluster(config)
    import ray
    from ray.exceptions import RayError, RayTaskError

    config = for_workers(config, recipe)
    with on_cluster(config) as nodes:
        wanted = wanted_resources(config)
        count = config.parallel or how_many_fit(wanted, nodes)
        remote = ray.remote(max_retries=_RETRIES)(task).options(
            num_cpus=config.cpus, num_gpus=config.gpus, resources=dict(config.resources)
        )
        waiting = [remote.remote(config) for _ in range(count)]
        while waiting:
            done, waiting = ray.wait(waiting, timeout=_POLL)
            look()
            for one in done:
                try:
                    ray.get(one)
                except RayTaskError as error:
                    if isinstance(error.cause, CommandError | UserError):
                        raise error.cause from None
                    raise
                except RayError as error:
                    raise CommandError(f"a worker of Ray is lost again and again: {one_line(error)}") from error

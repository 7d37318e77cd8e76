"""A model's structure as it was, to go back to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from torch import Tensor, nn

from ..anatomy.known_families import check_module

__all__ = ["Snapshot", "unchanged_on_error"]


class Snapshot:
    """The structure of a model, noted before it is changed.

    :meth:`restore` gives the model back: the same modules, parameters and buffers under the same names in the same
    order, the same hooks, attributes and training flags, and what timm saves of it. As a context manager it does so at
    the end, after an error as well::

        with cp_vision.Snapshot(model):
            cp_vision.insert_pools(model, ["blocks.2"])
            ...

    No weights are copied: the values of parameters and of the buffers in the state dict stay as they were trained in
    between. What surgery takes out lives as long as the snapshot, but isn't moved along with the model: after a
    ``model.to(...)`` in between, call it again. A ``torch.compile(model)`` made in between is of the changed model.

    Args:
        model: any module; stays as it is. Hooks, pools and whatever else it gets from now on goes with
            :meth:`restore`, what is taken from it comes back.

    Raises:
        UserError: it is no module.
    """

    def __init__(self, model: nn.Module) -> None:
        check_module(model)
        self.model = model
        self._parts = [_Part(module) for module in model.modules()]

    def restore(self) -> nn.Module:
        """Give the model its structure back, and return it; works as often as it is called."""
        for part in self._parts:
            part.restore()
        return self.model

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.restore()


@contextmanager
def unchanged_on_error(model: nn.Module) -> Iterator[None]:
    """Restore the model's structure where what is done to it within ends in an exception."""
    snapshot = Snapshot(model)
    try:
        yield
    except BaseException:
        snapshot.restore()
        raise


class _Part:
    """One module: its attributes, and what those hold that are containers (children, parameters, hooks)."""

    def __init__(self, module: nn.Module) -> None:
        self.module, self.kind = module, type(module)
        self.attributes: dict[str, Any] = dict(vars(module))
        self.contents = {
            name: value.copy() for name, value in vars(module).items() if isinstance(value, dict | list | set)
        }

    def restore(self) -> None:
        buffers = dict(self.module._buffers)
        vars(self.module).clear()
        vars(self.module).update(self.attributes)
        if type(self.module) is not self.kind:
            # A parametrization gives a module a class of its own.
            self.module.__class__ = self.kind
        for name, content in self.contents.items():
            # The same containers are filled again: the handle of a hook knows the one that it was put into.
            container = self.attributes[name]
            container.clear()
            if isinstance(container, list):
                container.extend(content)
            else:
                container.update(content)
        for name, noted in self.module._buffers.items():
            is_value = name not in self.module._non_persistent_buffers_set
            self.module._buffers[name] = _buffer(noted, buffers.get(name), is_value)


def _buffer(noted: Tensor | None, now: Tensor | None, is_value: bool) -> Tensor | None:
    """The buffer to give back; where a model is moved or converted, torch puts new ones in place of its buffers.

    What a state dict holds (a norm's statistics) is a value that stays, as those of parameters do; what it doesn't (a
    Swin's mask) belongs to the structure and follows to where the model is now.
    """
    if noted is None or now is None:
        return noted
    return now if is_value and noted.shape == now.shape else noted.to(now)

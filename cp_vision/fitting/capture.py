"""What goes into modules and comes out of them while a model runs, and ending the run when all has been seen."""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self

from torch import Tensor, nn

from ..anatomy.hidden_channels import last_act

__all__ = ["Capture"]


class _AllSeenError(Exception):
    """Ends a forward pass."""


class Capture:
    """Keeps the inputs and outputs of some modules of a model, of the last pass.

    Args:
        model: the model.
        inputs: paths of modules whose first argument to keep.
        outputs: paths of modules whose output to keep; of a tuple the first.
        sums: paths of blocks of which to keep what goes into the activation that they end with.

    Attributes:
        inputs: kept inputs by path.
        outputs: kept outputs by path.
        sums: what went into the last activations, by path of the block.
        order: paths in the order in which they came by.
    """

    def __init__(
        self, model: nn.Module, inputs: Iterable[str] = (), outputs: Iterable[str] = (), sums: Iterable[str] = ()
    ) -> None:
        self.model = model
        self.inputs: dict[str, Tensor] = {}
        self.outputs: dict[str, Tensor] = {}
        self.sums: dict[str, Tensor] = {}
        self.order: list[str] = []
        self.handles: list[Any] = []
        self._wanted = {("input", path) for path in inputs} | {("output", path) for path in outputs}
        self._wanted |= {("sum", path) for path in sums}
        self._left = set(self._wanted)

    def __enter__(self) -> Self:
        for kind, path in sorted(self._wanted):
            module = self.model.get_submodule(path)
            if kind == "input":
                self.handles.append(module.register_forward_pre_hook(self._keep_input(path), with_kwargs=True))
            elif kind == "sum":
                self._watch_sum(path, module)
            else:
                self.handles.append(module.register_forward_hook(self._keep_output(path)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self.handles:
            handle.remove()

    def run(self, images: Tensor) -> None:
        """Run the model until all has been seen."""
        self.order.clear()
        self._left = set(self._wanted)
        try:
            self.model(images)
        except _AllSeenError:
            return
        if self._left:
            paths = ", ".join(sorted(path for _, path in self._left))
            raise RuntimeError(f"{type(self.model).__name__} ran without calling {paths}")

    def _keep_input(self, path: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self.inputs[path] = args[0] if args else next(iter(kwargs.values()))
            self._seen("input", path)

        return hook

    def _keep_output(self, path: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            self.outputs[path] = output[0] if isinstance(output, tuple) else output
            self._seen("output", path)

        return hook

    def _watch_sum(self, path: str, block: nn.Module) -> None:
        """A block may use one activation several times: the last one counts."""
        act = last_act(block)
        if act is None:
            raise RuntimeError(f"{path} is not known to end with an activation")

        def keep(module: nn.Module, args: tuple[Any, ...]) -> None:
            # It may work in place.
            self.sums[path] = args[0].clone()

        self.handles.append(act.register_forward_pre_hook(keep))
        self.handles.append(block.register_forward_hook(lambda *_: self._seen("sum", path)))

    def _seen(self, kind: str, path: str) -> None:
        if path not in self.order:
            self.order.append(path)
        self._left.discard((kind, path))
        if not self._left:
            raise _AllSeenError

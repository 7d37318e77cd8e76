"""Where the patches of a vision transformer lie.

Shapes: B batch, C channels, H x W grid of patches; tokens are (B, prefix + H W, C), row by row.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torchvision.models.vision_transformer import VisionTransformer as TorchvisionViT

from ..shared.errors import UserError

__all__ = ["TokenGrid", "as_map", "patch_embedding"]


def patch_embedding(model: Any) -> Any:
    """What cuts an image into patches and knows their grid, by timm's names for it; None where there is none."""
    return getattr(model, "patch_embed", None) or getattr(model, "stem", None)


def as_map(patches: Tensor, grid: tuple[int, int]) -> Tensor:
    """Patches (B, H W, C) as a map (B, C, H, W).

    Raises:
        UserError: there are fewer patches, or more, than the grid has.
    """
    count = patches.shape[1]
    # Tracers have other numbers than these.
    if type(count) is int and type(grid[0]) is int and type(grid[1]) is int and count != grid[0] * grid[1]:
        raise UserError(
            f"{count} patches are no grid of {grid[0]} x {grid[1]}: something leaves patches out (timm's PatchDropout, "
            "at model.patch_drop) or adds tokens; pools and stand-ins on a map need the whole grid: set "
            "model.patch_drop = torch.nn.Identity()"
        )
    return patches.mT.unflatten(2, grid)


class TokenGrid:
    """Where the patches of a vision transformer lie.

    timm's patch embedding knows the grid, unless the model takes images of any size; then this object, as the
    embedding's forward hook, reads the grid off its output. A model of torchvision's has one grid for ever.
    """

    def __init__(self, model: Any) -> None:
        self.grid: tuple[int, int] | None = None
        self.patch_embed: Any = None
        if isinstance(model, TorchvisionViT):
            side = model.image_size // model.patch_size
            self.grid = (side, side)
            return
        self.patch_embed = patch_embedding(model)
        if getattr(model, "dynamic_img_size", False):
            self.handle = self.patch_embed.register_forward_hook(self)

    def __call__(self, module: nn.Module, args: Any, output: Tensor) -> None:
        """Note the grid; with images of any size timm's patch embedding gives (B, H, W, C)."""
        self.grid = (output.shape[1], output.shape[2])

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles forget the grid of the last image, which may be that of an export's open sizes."""
        return vars(self) if self.patch_embed is None else {**vars(self), "grid": None}

    def of_image(self, height: int, width: int) -> tuple[int, int]:
        """Height and width in tokens of an image of this size in pixels."""
        sized = getattr(self.patch_embed, "dynamic_feat_size", None) if self.grid is None else None
        rows, columns = self.now() if sized is None else sized((height, width))
        return int(rows), int(columns)

    def now(self) -> tuple[int, int]:
        """Height and width in tokens of the images that the model is running on."""
        return self.grid or self.patch_embed.grid_size

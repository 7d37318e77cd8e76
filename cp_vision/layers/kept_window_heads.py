"""Heads of a window attention that stay, with what they know of positions.

Shapes: B windows, C channels, N tokens of a window, k heads, d channels of a head, R relative positions, W windows of
an image.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from timm.layers import resize_rel_pos_bias_table
from timm.models.swin_transformer import get_relative_position_index
from torch import Tensor, nn
from torch.nn import functional as F

from .kept_heads import KeptHeads

__all__ = ["KeptWindowHeads"]


class KeptWindowHeads(KeptHeads):
    """What k heads of a Swin transformer's attention give each token of a window, before the projection behind them.

    Args:
        weight_3kdC: of queries, keys and values, each with its heads one after the other.
        bias_3kd: likewise; None is zero.
        heads: k.
        table_Rk: what each head adds to its logits at each relative position.
        window_size: height and width of a window.
        scale_k: of cosine attention, what the cosines are multiplied by; None divides products by the root of d.

    Attributes:
        mask: tells the (W, N, N) that is added to the logits of an image's windows, or None; of shifted windows. The
            windows of all images come one image after the other.

    Source: Liu et al., ICCV 2021, arXiv 2103.14030; cosine attention Liu et al., CVPR 2022, arXiv 2111.09883.
    """

    def __init__(
        self,
        weight_3kdC: Tensor,
        bias_3kd: Tensor | None,
        heads: int,
        table_Rk: Tensor,
        window_size: tuple[int, int],
        scale_k: Tensor | None = None,
    ) -> None:
        super().__init__(weight_3kdC, bias_3kd, heads, nn.Identity(), nn.Identity())
        self.mask: Callable[[], Tensor | None] | None = None
        self.window_size = window_size
        # Under the name by which timm resizes tables of checkpoints.
        self.relative_position_bias_table = nn.Parameter(table_Rk.detach().clone())
        self.scale = None if scale_k is None else nn.Parameter(scale_k.detach().clone())
        self.register_buffer("index", self._index(), persistent=False)

    def some(self, which_k: Tensor) -> KeptWindowHeads:
        """A copy with the heads of these numbers."""
        return self._of(super().some(which_k), which_k)

    @property
    def thinnable(self) -> int:
        """Channels of which each head can keep some; 0 of cosine attention, whose norms know of all."""
        return super().thinnable if self.scale is None else 0

    def thin(self, channels: int) -> KeptWindowHeads:
        """A copy whose heads have so many channels each; which, and of what weights, a fit tells."""
        return self._of(super().thin(channels), torch.arange(self.heads, device=self.weight.device))

    def _of(self, plain: KeptHeads, which_k: Tensor) -> KeptWindowHeads:
        """These heads in windows."""
        table, scale = (
            self.relative_position_bias_table[:, which_k],
            None if self.scale is None else self.scale[which_k],
        )
        made = KeptWindowHeads(plain.weight, plain.bias, plain.heads, table, self.window_size, scale)
        made.mask = self.mask
        return made

    def attend(self, q_BkNd: Tensor, k_BkNd: Tensor, v_BkNd: Tensor) -> Tensor:
        """Within each window."""
        logits_BkNN = self.relative_position_bias_table[self.index].permute(2, 0, 1)[None]
        mask_WNN = None if self.mask is None else self.mask()
        if mask_WNN is not None:
            number_B = torch.arange(q_BkNd.shape[0], device=q_BkNd.device) % len(mask_WNN)
            logits_BkNN = logits_BkNN + mask_WNN.to(logits_BkNN)[number_B, None]
        if self.scale is None:
            return F.scaled_dot_product_attention(q_BkNd, k_BkNd, v_BkNd, logits_BkNN.to(q_BkNd))
        q_BkNd, k_BkNd = F.normalize(q_BkNd, dim=-1) * self.scale[:, None, None].to(q_BkNd), F.normalize(k_BkNd, dim=-1)
        return F.scaled_dot_product_attention(q_BkNd, k_BkNd, v_BkNd, logits_BkNN.to(q_BkNd), scale=1.0)

    def set_window_size(self, window_size: tuple[int, int]) -> None:
        """Take windows of another size: biases between the positions that are known are interpolated, as timm does."""
        if tuple(window_size) == self.window_size:
            return
        height, width = window_size
        table = resize_rel_pos_bias_table(
            self.relative_position_bias_table.detach(),
            new_window_size=(height, width),
            new_bias_shape=((2 * height - 1) * (2 * width - 1), self.heads),
            old_window_size=self.window_size,
        )
        self.window_size = (height, width)
        self.relative_position_bias_table = nn.Parameter(table, self.relative_position_bias_table.requires_grad)
        self.index = self._index()

    def init_non_persistent_buffers(self) -> None:
        """As timm asks for after a model was made without memory."""
        self.index = self._index()

    def _index(self) -> Tensor:
        """Row of the table for each pair of tokens, (N, N)."""
        index: Tensor = get_relative_position_index(*self.window_size, device=self.weight.device)
        return index

    def extra_repr(self) -> str:
        """Show how many, and where."""
        return f"{super().extra_repr()}, in windows of {self.window_size[0]} x {self.window_size[1]}"

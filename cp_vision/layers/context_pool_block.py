"""A stand-in for blocks: a linear map of each token, of its pooled neighbourhood, and of parts of a block that stay.

Shapes: B batch, C channels, H x W grid, P prefix tokens (class and register tokens), N = P + H W tokens, S supports,
m features that stay, F = (1 + S) C + m features, r rank. ``x_BCHW`` the map, ``x_BPC`` its prefix tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import accumulate
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from .context_pool_2d import ContextPool2d, record_call
from .gaussian_pool import GaussianPool
from .pointwise import pointwise
from .read_out import ReadOut, read_out_macs

__all__ = ["ContextPoolBlock"]

_EPS = 1e-6


class ContextPoolBlock(nn.Module):
    """``y = x + U (V_0 n(x) + V_1 pool(n(x)) + ... + W h(x)) + b``, fitted in closed form to what blocks did.

    h are hidden units, heads or channels of the block that stay as they are; mostly there are none. A new block is the
    identity: U, b and what stands for prefix tokens are zero. Since a pool averages all channels of a token with the
    same weights, it acts on the r channels of ``V_1 n(x)`` and not on all C.

    A prefix token t has a map of its own, of the same rank, of ``[n(t), mean of n(patches), h(t)]``, or of h(t) alone.

    Args:
        channels: C.
        rank: r; None takes the rank at which the maps cost as many MACs as one full map of x, C^2 a token; where
            something is kept, C.
        pool: False leaves the pools away; what stays is a linear map of each token by itself.
        learned_weight: whether the pools predict a weight for each token.
        learned_support: whether the pools predict a support for each token. Where neither is predicted, a pool is a
            :class:`cp_vision.layers.gaussian_pool.GaussianPool`.
        supports: S, how many pools there are, each with weights and supports of its own.
        residual: whether x is added, as where whole blocks are replaced.
        norm: whether n is a LayerNorm over channels without parameters, as in front of pre-norm transformer blocks;
            else it is nothing.
        prefix: P.
        map: whether the tokens themselves are read, V_0; False where something is kept and nothing is pooled.
        kept: what gives h, with m as its ``size``, such as :class:`cp_vision.layers.kept_units.KeptUnits`.
        **pool_options: of pools that predict one of both, see :class:`cp_vision.ContextPool2d`, with 0.2 for
            ``support_range``.

    Attributes:
        pools: the S pools; what they predict is predicted from n(x).
        kept: see above, or None.
        read_out: U, V_0 ... V_S, W and b.
        prefix_read_outs: of each prefix token.

    Raises:
        ValueError: an argument outside its range.

    Source: our extension of Huang et al., ICML 2022. Linear maps in place of blocks, fitted to their outputs:
    ReplaceMe, Shopkhoev et al. 2025, arXiv 2505.02819 (language models). Parts kept, and the layer behind them fitted
    again: He et al., ICCV 2017, arXiv 1707.06168; a map beside them is our extension.
    """

    def __init__(
        self,
        channels: int,
        *,
        rank: int | None = None,
        pool: bool = True,
        supports: int = 1,
        residual: bool = True,
        norm: bool = False,
        prefix: int = 0,
        kept: nn.Module | None = None,
        map: bool = True,
        learned_weight: bool = False,
        learned_support: bool = False,
        **pool_options: Any,
    ) -> None:
        super().__init__()
        for name, value, least in (("channels", channels, 1), ("supports", supports, 1), ("prefix", prefix, 0)):
            _check_whole(name, value, least)
        learned = (("learned_weight", learned_weight), ("learned_support", learned_support))
        for name, value in (("pool", pool), ("residual", residual), ("norm", norm), ("map", map), *learned):
            if not isinstance(value, bool):
                raise ValueError(f"{name} {value!r} must be True or False")
        if rank is not None:
            _check_whole("rank", rank, 1)
            if rank > channels:
                raise ValueError(f"rank {rank} must be at most the number of channels, {channels}")
        if not map and (kept is None or pool):
            raise ValueError("map=False leaves nothing to read; keep something, and take pool=False")
        count = supports if pool else 0
        size = 0 if kept is None else int(cast("Any", kept).size)
        features = (map + count) * channels + size
        rank = rank or (max(1, channels * channels // (features + channels)) if pool and kept is None else channels)
        rank = min(rank, features)
        self.channels, self.residual, self.norm, self.prefix, self.map = channels, residual, norm, prefix, map
        if learned_weight or learned_support:
            predicted = {"learned_weight": learned_weight, "learned_support": learned_support}
            options = {"support_range": 0.2, **pool_options, **predicted}
            self.pools = nn.ModuleList(ContextPool2d(channels, 1, "replace", **options) for _ in range(count))
        elif pool_options:
            raise ValueError(f"{', '.join(pool_options)} need learned_weight=True or learned_support=True")
        else:
            self.pools = nn.ModuleList(GaussianPool() for _ in range(count))
        self.kept = kept
        self.read_out = ReadOut(features, channels, rank)
        self.prefix_read_outs = nn.ModuleList(ReadOut(2 * channels * map + size, channels, rank) for _ in range(prefix))

    @property
    def rank(self) -> int:
        """r."""
        return self.read_out.rank

    def forward(self, x_BCHW: Tensor, x_BPC: Tensor | None = None) -> Any:
        """Map (B, C, H, W) to (B, C, H, W); with prefix tokens (B, P, C) beside it, to both of them.

        Raises:
            ValueError: another number of dimensions or channels, no pixels, or prefix tokens where there are none.
        """
        if isinstance(x_BCHW, fx.Proxy):
            return record_call(self, x_BCHW, *([] if x_BPC is None else [x_BPC]))
        if x_BCHW.ndim != 4 or x_BCHW.shape[1] != self.channels or 0 in x_BCHW.shape[2:]:
            raise ValueError(f"expected (B, {self.channels}, H, W) with at least one pixel, got {tuple(x_BCHW.shape)}")
        if (0 if x_BPC is None else x_BPC.shape[1]) != self.prefix:
            raise ValueError(f"expected {self.prefix} prefix tokens, got {None if x_BPC is None else x_BPC.shape[1]}")
        n_BCHW, read_out, pools = self._norm(x_BCHW, 1), self.read_out, self._pools()
        n_BPC = None if x_BPC is None else self._norm(x_BPC, 2)
        h_BmHW, h_BPm = self._kept(n_BCHW, n_BPC)
        sizes = [self.channels * self.map] + [self.channels] * len(pools)
        down_0, *down, down_h = read_out.down.tensor_split(list(accumulate(sizes)), 1)
        y_BCHW: Any = pointwise(n_BCHW, down_0, read_out.bias if read_out.up is None else None) if self.map else 0
        for pool, down_k in zip(pools, down, strict=True):
            y_BCHW = y_BCHW + _pooled(pool, pointwise(n_BCHW, down_k), n_BCHW)
        if h_BmHW is not None:
            # The second convolution of a basic block reads neighbours, too.
            y_BCHW = y_BCHW + getattr(self.kept, "read", pointwise)(h_BmHW, down_h)
            if not self.map and read_out.up is None:
                y_BCHW = y_BCHW + read_out.bias[:, None, None]
        if read_out.up is not None:
            y_BCHW = pointwise(y_BCHW, read_out.up, read_out.bias)
        if self.residual:
            y_BCHW = x_BCHW + y_BCHW
        if x_BPC is None or n_BPC is None:
            return y_BCHW
        y_BPC = self._map_prefix(self._prefix_features(n_BPC, n_BCHW.flatten(2).mT, h_BPm))
        return y_BCHW, x_BPC + y_BPC if self.residual else y_BPC

    @property
    def takes_tokens(self) -> bool:
        """Whether it can do without a grid, see :meth:`of_tokens`."""
        # What has another forward isn't this function.
        is_own = type(self).forward is ContextPoolBlock.forward
        return is_own and not self.pools and (self.kept is None or hasattr(self.kept, "of_tokens"))

    def of_tokens(self, x_BNC: Tensor) -> Tensor:
        """The same of tokens in a row, the prefix tokens first: (B, N, C) to (B, N, C), in fewer steps."""
        n_BNC = self._norm(x_BNC, 2)
        h_BNm = None if self.kept is None else cast("Any", self.kept).of_tokens(n_BNC)
        parts = [*([n_BNC] if self.map else []), *([] if h_BNm is None else [h_BNm])]
        y_BNC: Tensor = self.read_out(parts[0] if len(parts) == 1 else torch.cat(parts, 2))
        if prefix := self.prefix:
            h_BPm = None if h_BNm is None else h_BNm[:, :prefix]
            features = self._prefix_features(n_BNC[:, :prefix], n_BNC[:, prefix:], h_BPm)
            y_BNC = torch.cat([self._map_prefix(features), y_BNC[:, prefix:]], 1)
        return x_BNC + y_BNC if self.residual else y_BNC

    def features(self, x_BCHW: Tensor, x_BPC: Tensor | None = None) -> list[Tensor]:
        """What the linear maps read: (B, H W, F) for the grid, then (B, 1, 2 C + m) for each prefix token."""
        n_BCHW, n_BPC = self._norm(x_BCHW, 1), None if x_BPC is None else self._norm(x_BPC, 2)
        h_BmHW, h_BPm = self._kept(n_BCHW, n_BPC)
        parts = [*([n_BCHW] if self.map else []), *(_pooled(pool, n_BCHW, n_BCHW) for pool in self._pools())]
        if h_BmHW is not None:
            parts.append(cast("Any", self.kept).neighbours(h_BmHW) if hasattr(self.kept, "neighbours") else h_BmHW)
        of_grid = torch.cat([part.flatten(2).mT for part in parts], 2)
        return [of_grid, *([] if n_BPC is None else self._prefix_features(n_BPC, n_BCHW.flatten(2).mT, h_BPm))]

    def read_outs(self) -> list[ReadOut]:
        """The linear maps, in the order of :meth:`features`."""
        return [self.read_out, *cast("Iterable[ReadOut]", self.prefix_read_outs)]

    def macs(self, grid: tuple[int, int]) -> int:
        """Cost of one map and its prefix tokens in MACs, in closed form.

        Args:
            grid: height and width of the map, in tokens or pixels.
        """
        kept: Any = self.kept
        maps = read_out_macs(self.read_out.down.shape[1], self.channels, self.rank)
        size = 0 if kept is None else kept.size
        prefix = self.prefix * read_out_macs(2 * self.channels * self.map + size, self.channels, self.rank)
        pooled = sum(pool.macs(grid, self.read_out.down.shape[0]) for pool in self._pools())
        # Tokens in a row go through the map all together, and prefix tokens through their own as well.
        tokens = math.prod(grid) + (self.prefix if self.takes_tokens else 0)
        return tokens * maps + prefix + pooled + (0 if kept is None else kept.macs(grid, self.prefix))

    def _pools(self) -> list[Any]:
        return list(self.pools)

    def _kept(self, n_BCHW: Tensor, n_BPC: Tensor | None) -> Any:
        return (None, None) if self.kept is None else self.kept(n_BCHW, n_BPC)

    def _prefix_features(self, n_BPC: Tensor, n_BNC: Tensor, h_BPm: Tensor | None) -> list[Tensor]:
        """What the map of each prefix token reads: the token, the mean of the patches (B, N, C), what is kept of it."""
        parts: list[Tensor] = []
        if self.map:
            parts += [n_BPC, n_BNC.mean(1, keepdim=True).expand_as(n_BPC)]
        if h_BPm is not None:
            parts.append(h_BPm)
        return list(torch.cat(parts, 2).split(1, 1))

    def _map_prefix(self, features: Iterable[Tensor]) -> Tensor:
        return torch.cat([one(of_token) for one, of_token in zip(self.prefix_read_outs, features, strict=True)], 1)

    def _norm(self, x: Tensor, dim: int) -> Tensor:
        if not self.norm:
            return x
        if dim == x.ndim - 1:
            return F.layer_norm(x, (self.channels,), eps=_EPS)
        return F.layer_norm(x.movedim(dim, -1), (self.channels,), eps=_EPS).movedim(-1, dim)

    def extra_repr(self) -> str:
        """Show what tells this block from another."""
        alone = "" if self.map else ", map=False"
        return (
            f"{self.channels}, rank={self.rank}, supports={len(self.pools)}, residual={self.residual}, norm={self.norm}"
            f"{alone}"
        )


def _pooled(pool: Any, x_BCHW: Tensor, n_BCHW: Tensor) -> Tensor:
    """Pool one map with what is predicted from another."""
    if isinstance(pool, ContextPool2d):
        return pool.pool(x_BCHW, *pool.weight_and_support(n_BCHW))
    pooled: Tensor = pool(x_BCHW)
    return pooled


def _check_whole(name: str, value: Any, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} {value!r} must be a whole number, {least} or more")

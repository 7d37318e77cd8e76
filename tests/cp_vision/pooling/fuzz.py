"""The linear backend against the formula in float64, over all inputs that ``context_pool`` promises to take.

    python -m tests.cp_vision.pooling.fuzz --cases 1000

prints the worst case of every kind with its inputs. A channel of random signs is at most as far off as the kernel is
in L1, so that errors are those of kernels, of 2 at most.
"""

import argparse
import math
from dataclasses import dataclass, field

import numpy as np
import torch

from cp_vision import context_pool
from cp_vision.pooling.context_pool import coarse_grid

# What the documentation promises of the error where log weights lie between -2 and 2; at the worst, where the heaviest
# tokens are few and all others the lightest.
BOUNDS = {"equal": 0.07, "bounded": 0.07, "spikes": 0.35}

_SAMPLES = 48

# In supports; tokens further away than this from an output weigh next to nothing beside nearer ones.
_REACH = 1.5


@dataclass
class Case:
    """Inputs of one call, drawn by a seed."""

    seed: int
    grid: tuple[int, int] = (1, 1)
    stride: int = 1
    kind: str = "equal"
    masked: float = 0.0
    supports: tuple[float, float] = (0.0, 1.0)
    sigma_max: float | None = None
    channels_last: bool = False
    error: float = field(default=0.0, compare=False)

    @classmethod
    def draw(cls, seed: int) -> "Case":
        """Draw a case: small and large maps, lines, all strides, supports of 0 to 4,000 pixels."""
        random = np.random.default_rng(seed)
        shapes = [(40, 40), (28, 28), (56, 56), (14, 14), (1, 1), (400, 666), (1, 2048), (300, 2), (97, 33)]
        grid = shapes[random.choice(len(shapes), p=[0.2, 0.15, 0.15, 0.1, 0.03, 0.02, 0.1, 0.1, 0.15])]
        grid = tuple(int(max(1, size - random.integers(0, 1 + size // 4))) for size in grid)
        most = (
            float(np.exp(random.uniform(math.log(0.05), math.log(4000.0))))
            if random.random() < 0.5
            else 0.1 * max(grid)
        )
        least = 0.0 if random.random() < 0.5 else float(most * random.random())
        return cls(
            seed=seed,
            grid=grid,
            stride=int(random.integers(1, 9)) if random.random() < 0.5 else 1,
            kind=str(random.choice(["equal", "bounded", "spikes"])),
            masked=float(random.choice([0.0, 0.0, 0.1, 0.5])),
            supports=(least, most),
            sigma_max=most if random.random() < 0.7 else None,
            channels_last=bool(random.random() < 0.5),
        )

    def tensors(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """x of random signs, log weights, supports."""
        generator = torch.Generator().manual_seed(self.seed)
        x = torch.randint(0, 2, (1, 17, *self.grid), generator=generator).float() * 2 - 1
        log_weight = torch.randn(1, *self.grid, generator=generator)
        if self.kind == "equal":
            log_weight = 0 * log_weight
        elif self.kind == "bounded":
            log_weight = 2 * log_weight.tanh()
        else:
            log_weight = torch.where(log_weight > 2, 2.0, -2.0)
        gone = torch.rand(log_weight.shape, generator=generator) < self.masked
        gone.view(-1)[self.seed % gone.numel()] = False
        least, most = self.supports
        coarse = coarse_grid(self.grid, self.stride)
        sigma = least + (most - least) * torch.rand(1, *coarse, generator=generator)
        if self.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        return x, log_weight.masked_fill(gone, -torch.inf), sigma


def measure(case: Case) -> float:
    """The largest error of some outputs of a case, after checks that hold for all of them."""
    x, log_weight, sigma = case.tensors()
    y = context_pool(x, log_weight, sigma, stride=case.stride, backend="linear", sigma_max=case.sigma_max)
    assert y.isfinite().all(), case
    assert y.abs().max() <= 1.0001, case
    flat = y[0].flatten(1)
    generator = np.random.default_rng(case.seed)
    chosen = generator.choice(flat.shape[1], min(_SAMPLES, flat.shape[1]), replace=False)
    rows, columns = (torch.arange(size, dtype=torch.float64) for size in case.grid)
    worst = 0.0
    for output in chosen:
        row, column = (int(i) * case.stride + (case.stride - 1) / 2 for i in divmod(int(output), sigma.shape[2]))
        squared = ((rows - row).square()[:, None] + (columns - column).square()).flatten()
        support = max(float(sigma.view(-1)[output]), 1e-9)
        kept = log_weight[0].flatten().double()
        nearest = squared[kept > -torch.inf].min()
        # Where tokens are left out, the nearest that stay may lie where windows end or beyond.
        if nearest > squared.min() and float(nearest) > (_REACH * support) ** 2:
            continue
        shares = (kept - (squared - nearest) / (2 * support**2)).softmax(0)
        expected = x[0].flatten(1).double() @ shares
        worst = max(worst, float((flat[:, output] - expected).abs().max()))
    return worst


def worst_cases(cases: int, first: int = 0) -> dict[str, Case]:
    """The worst case of every kind of weights."""
    worst: dict[str, Case] = {}
    for seed in range(first, first + cases):
        case = Case.draw(seed)
        case.error = measure(case)
        key = case.kind + (", masked" if case.masked else "") + (", strided" if case.stride > 1 else "")
        if key not in worst or case.error > worst[key].error:
            worst[key] = case
    return worst


def main() -> None:
    """Print the worst cases."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="of the first case")
    arguments = parser.parse_args()
    for key, case in sorted(worst_cases(arguments.cases, arguments.seed).items()):
        print(f"{key:26} {case.error:.4f}  {case}")


if __name__ == "__main__":
    main()

"""Regression from sums, against scikit-learn and against the formula on all rows."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from cp_vision.fitting.least_squares import RIDGES, Regression, Sums, fit, solve


def rows(count=200, features=12, targets=5, noise=0.5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(features, features, generator=generator, dtype=torch.float64)
    f = torch.randn(count, features, generator=generator, dtype=torch.float64) @ mixing + 3
    true = torch.randn(features, targets, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    return f, f @ true + noise * torch.randn(count, targets, generator=generator, dtype=torch.float64) - 2


def summed(f, t, batch=64):
    sums = Sums(f.shape[1], t.shape[1])
    for part in range(0, len(f), batch):
        sums.add(f[part : part + batch], t[part : part + batch])
    return sums


@pytest.mark.parametrize("ridge", [1e-8, 1e-3, 0.1, 1.0])
def test_full_rank_is_ridge_regression(ridge):
    f, t = rows()
    found = fit(summed(f, t), 5, ridge)
    penalty = ridge * float((f - f.mean(0)).square().sum(0).mean())
    other = Ridge(alpha=penalty).fit(f.numpy(), t.numpy())
    np.testing.assert_allclose((found.up @ found.down).numpy(), other.coef_, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(found.bias.numpy(), other.intercept_, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_reduced_rank_is_the_best_of_its_rank(rank):
    """By Eckart and Young: without a ridge the error of a map is that of the regression plus its distance to it."""
    f, t = rows()
    found = fit(summed(f, t), rank, 1e-12)
    full = fit(summed(f, t), 5, 1e-12)
    left, values, right = torch.linalg.svd((f - f.mean(0)) @ (full.up @ full.down).mT, full_matrices=False)
    best = left[:, :rank] * values[:rank] @ right[:rank]
    torch.testing.assert_close((f - f.mean(0)) @ (found.up @ found.down).mT, best, rtol=1e-6, atol=1e-6)


def test_errors_and_totals_are_those_of_the_rows():
    f, t = rows()
    sums, found = summed(f, t), fit(summed(f, t), 2, 1e-2)
    direct = (f @ (found.up @ found.down).mT + found.bias - t).square().sum()
    assert sums.error(found) == pytest.approx(float(direct), rel=1e-9)
    assert sums.total(False) == pytest.approx(float(t.square().sum()))
    assert sums.total(True) == pytest.approx(float((t - t.mean(0)).square().sum()))
    parts = Sums.of([summed(f[:50], t[:50]), summed(f[50:], t[50:])])
    assert parts.error(found) == pytest.approx(sums.error(found), rel=1e-9)


@pytest.mark.parametrize(("count", "noise"), [(400, 0.01), (14, 5.0), (20, 20.0), (60, 2.0)])
def test_the_ridge_is_the_best_on_held_out_rows(count, noise):
    fitted, held_out = summed(*rows(count, noise=noise)), summed(*rows(300, noise=noise, seed=1))
    found, error = solve(Regression(fitted), held_out, 5)
    errors = {ridge: held_out.error(fit(fitted, 5, ridge)) for ridge in RIDGES}
    assert error == min(errors.values())
    assert errors[found.ridge] == error


def test_features_that_depend_on_each_other():
    f, t = rows(noise=0)
    found, error = solve(
        Regression(summed(torch.cat([f, f, torch.zeros_like(f)], 1), t)), summed(torch.cat([f, f, 0 * f], 1), t), 5
    )
    assert error < 1e-6 * summed(f, t).total(True)
    assert torch.isfinite(found.down).all()
    constant, error = solve(Regression(summed(0 * f, t)), summed(0 * f, t), 5)
    torch.testing.assert_close(constant.bias, t.mean(0))

"""Exported graphs of the pool, with sizes left open."""

import pytest
import torch

from cp_vision import ContextPool2d

pytestmark = pytest.mark.slow

SHAPES = [(2, 16, 20, 24), (3, 16, 33, 17), (1, 16, 40, 64)]


# With open sizes, "auto" is "linear".
@pytest.fixture(params=["exact", "linear"])
def exportable(request):
    """A pool, an example and its open sizes."""
    pool = ContextPool2d(16, mode="replace", backend=request.param).eval()
    with torch.no_grad():
        for parameter in pool.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    batch, height, width = (torch.export.Dim(name, min=low, max=512) for name, low in (("b", 1), ("h", 2), ("w", 2)))
    return pool, torch.randn(SHAPES[0]), ({0: batch, 2: height, 3: width},)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_export_with_open_sizes(exportable, memory_format):
    pool, example, sizes = exportable
    example = example.contiguous(memory_format=memory_format)
    program = torch.export.export(pool, (example,), dynamic_shapes=sizes).module()
    for shape in SHAPES:
        x = torch.randn(shape).contiguous(memory_format=memory_format)
        results = []
        for module in (program, pool):
            leaf = x.clone().requires_grad_()
            y = module(leaf)
            y.square().sum().backward()
            results += [y.detach(), leaf.grad]
        torch.testing.assert_close(results[:2], results[2:], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_onnx_with_open_sizes(exportable, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pool, example, sizes = exportable
    path = tmp_path / "pool.onnx"
    torch.onnx.export(pool, (example,), dynamic_shapes=sizes, dynamo=True, verbose=False).save(path)
    session = onnxruntime.InferenceSession(path)
    for shape in SHAPES:
        x = torch.randn(shape)
        (got,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        torch.testing.assert_close(torch.from_numpy(got), pool(x), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("side", "options"),
    [(14, {}), (28, {}), (36, {}), (28, {"mode": "replace", "stride": 2}), (14, {"mode": "replace", "stride": 4})],
)
@torch.no_grad()
def test_onnx_of_a_known_grid(side, options, tmp_path):
    """With pyramids of one level and of more, on maps small and large."""
    onnxruntime = pytest.importorskip("onnxruntime")
    pool = ContextPool2d(16, backend="linear", **options).eval()
    for parameter in pool.parameters():
        parameter.add_(0.3 * torch.randn_like(parameter))
    sizes = ({0: torch.export.Dim("batch", min=1, max=64)},)
    path = tmp_path / "pool.onnx"
    example = torch.randn(2, 16, side, side)
    torch.onnx.export(pool, (example,), dynamic_shapes=sizes, dynamo=True, verbose=False).save(path)
    session = onnxruntime.InferenceSession(path)
    for batch in (1, 3):
        x = torch.randn(batch, 16, side, side)
        (got,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        torch.testing.assert_close(torch.from_numpy(got), pool(x), atol=1e-4, rtol=1e-4)

"""1 x 1 convolutions as matrix products."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cp_vision.cost.macs import count_module
from cp_vision.layers.pointwise import pointwise

LAYOUTS = [torch.contiguous_format, torch.channels_last]
# Input channels, output channels, height, width: few outputs and many, a sequence, a pixel.
SIZES = [(64, 2, 6, 5), (64, 48, 6, 5), (32, 2, 1, 9), (32, 2, 1, 1), (1, 1, 4, 4)]


class Pointwise(nn.Module):
    def __init__(self, channels, outputs, *, bias=True):
        super().__init__()
        self.conv = nn.Conv2d(channels, outputs, 1, bias=bias)

    def forward(self, x):
        return pointwise(x, self.conv.weight.flatten(1), self.conv.bias)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("bias", [True, False])
def test_it_is_the_convolution(size, layout, bias):
    channels, outputs, *grid = size
    module = Pointwise(channels, outputs, bias=bias)
    x = torch.randn(3, channels, *grid).contiguous(memory_format=layout).requires_grad_()
    tensors = [x, *module.parameters()]
    y, expected = module(x), module.conv(x)
    torch.testing.assert_close(y, expected)
    assert y.is_contiguous(memory_format=layout)
    weight = torch.randn_like(y)
    gradients = (torch.autograd.grad((each * weight).sum(), tensors) for each in (y, expected))
    torch.testing.assert_close(*gradients)


def test_views():
    """Patches behind a class token, and every other pixel."""
    module = Pointwise(64, 4)
    patches = torch.randn(2, 31, 64)[:, 1:].mT.unflatten(2, (6, 5))
    for x in (patches, torch.randn(2, 64, 8, 8)[:, :, ::2, 1:]):
        torch.testing.assert_close(module(x), module.conv(x))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("outputs", [4, 48])
def test_transforms_and_autocast(outputs, layout):
    module = Pointwise(64, outputs)
    x = torch.randn(3, 64, 6, 5).contiguous(memory_format=layout)
    torch.testing.assert_close(torch.vmap(module)(x[:, None])[:, 0], module.conv(x))
    gradient = torch.func.grad(lambda x: module(x).square().sum())(x)
    torch.testing.assert_close(gradient, torch.func.grad(lambda x: module.conv(x).square().sum())(x))
    with torch.autocast("cpu", torch.bfloat16):
        assert module(x).dtype == torch.bfloat16
        torch.testing.assert_close(module(x), module.conv(x))


@pytest.mark.parametrize("outputs", [4, 48])
@pytest.mark.parametrize("bias", [True, False])
def test_its_cost_is_that_of_the_convolution(outputs, bias):
    module = Pointwise(64, outputs, bias=bias).to("meta")
    assert count_module(module, (64, 6, 5)) == 30 * outputs * (64 + bias)


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
@torch.no_grad()
def test_compiled_and_exported(layout, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    module = Pointwise(64, 4).eval()
    batch, height, width = (torch.export.Dim(name, min=low, max=512) for name, low in (("b", 1), ("h", 2), ("w", 2)))
    example = torch.randn(2, 64, 20, 24).contiguous(memory_format=layout)
    sizes = ({0: batch, 2: height, 3: width},)
    program = torch.export.export(module, (example,), dynamic_shapes=sizes).module()
    compiled = torch.compile(module, fullgraph=True)
    torch.onnx.export(module, (example,), dynamic_shapes=sizes, dynamo=True, verbose=False).save(tmp_path / "a.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx")
    for shape in ((2, 64, 20, 24), (1, 64, 33, 17)):
        x = torch.randn(shape).contiguous(memory_format=layout)
        (got,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        for y in (program(x), compiled(x), torch.from_numpy(got)):
            torch.testing.assert_close(y, F.conv2d(x, *module.conv.parameters()), atol=1e-4, rtol=1e-4)

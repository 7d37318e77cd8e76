"""Models as they are deployed and trained at large: ONNX Runtime, the compiler, distributed training."""

import pytest
import timm
import torch
from onnx_graphs import check_onnx, open_batch
from small_models import close, images, short, small, stir
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

# One of each layout (NCHW, NHWC, tokens), and of each kind of pool (gated, before attention, strided).
EXPORTED = [
    ("cp_resnet18", {}),
    ("cp_convnextv2_nano", {"pools": ["stages.1.downsample", "stages.2.blocks.0"]}),
    ("cp_swin_tiny_patch4_window7_224", {}),
    ("cp_vit_small_patch16_224", {"pool_options": {"mode": "pre_attn"}}),
    ("cp_deit_tiny_distilled_patch16_224", {}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "args"), EXPORTED)
@torch.no_grad()
def test_onnx_of_open_batch(name, args, tmp_path):
    model = stir(short(name, **args), 0.3)
    assert any(".context_pool." in key for key in model.state_dict())
    check_onnx(model, tmp_path, [images(3)])


@pytest.mark.slow
@torch.no_grad()
def test_onnx_of_open_size(tmp_path):
    model = stir(short("cp_resnet18", pools=["layer3.0.downsample"]), 0.3)
    sizes = {0: open_batch()}
    # The network halves its map five times.
    sizes |= {i: 32 * torch.export.Dim(name, min=2, max=16) for i, name in ((2, "rows"), (3, "columns"))}
    check_onnx(model, tmp_path, [images(1, size=size) for size in ((64, 96), (128, 64), (160, 224))], sizes)


@pytest.mark.slow
def test_the_compiler_trains_them():
    """With a pool of each backend, one of them strided."""
    model = stir(short("cp_resnet18", pools=["layer1.0", "layer4.0.downsample"]), 0.3)
    torch.compiler.reset()
    x = images(2)
    plain = model(x)
    plain.square().sum().backward()
    gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    compiled = torch.compile(model, fullgraph=True)(x)
    close(compiled.detach(), plain.detach(), 1e-4)
    compiled.square().sum().backward()
    largest = max(float(gradient.abs().max()) for gradient in gradients)
    for p, gradient in zip((p for p in model.parameters() if p.grad is not None), gradients, strict=True):
        assert (p.grad - gradient).abs().max() <= 1e-3 * largest


@pytest.fixture(scope="module")
def group(tmp_path_factory):
    """A process group of this process alone."""
    store = distributed.FileStore(str(tmp_path_factory.mktemp("group") / "store"), 1)
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


# That every other model's parameters get gradients is in test_as_timm_models.
@pytest.mark.usefixtures("group")
def test_distributed_training_finds_every_parameter_used():
    model = small("cp_vit_small_patch16_224", drop_path_rate=0.0).train()
    parallel = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    # A parameter that is left without a gradient stops the second step.
    for _ in range(2):
        optimizer.zero_grad()
        outputs = parallel(images(4))
        sum(output.square().sum() for output in (outputs if isinstance(outputs, tuple) else (outputs,))).backward()
        optimizer.step()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::torch.jit.TracerWarning")
def test_torchscript_is_refused_by_what_to_use_instead():
    with pytest.raises(RuntimeError, match=r"torch\.export"):
        torch.jit.trace(timm.create_model("cp_test_resnet").eval(), images())

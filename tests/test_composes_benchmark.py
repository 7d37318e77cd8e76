"""The benchmark of what goes with stand-ins: what each maker gives, and what it says of one that fails."""

import timm
import torch
from small_models import images

from benchmarks.composes import COLUMNS, accuracies, fewer_patches, int8, megabytes
from cp_vision import replace_blocks


class Few:
    """Twelve images."""

    images, labels = images(12, size=(32, 32)), torch.arange(12) % 5

    def right(self, model):
        like = next(p for p in model.parameters() if p.is_floating_point())
        return (model(self.images.to(like.dtype)).argmax(1) == self.labels).double()


def small():
    torch.manual_seed(0)
    return timm.create_model("test_vit", img_size=32, patch_size=8, depth=3, num_classes=5).eval()


def test_each_column_has_an_accuracy_or_says_why_not():
    test, models = Few(), {"plain": small(), "pooled": replace_blocks(small(), ["blocks.1.attn"])}
    models["mapped"] = replace_blocks(small(), ["blocks.1.attn"], pool=False)
    cells = {name: accuracies(model, test, test.images, False) for name, model in models.items()}
    assert {name for name, own in cells.items() if own[3].startswith("no: ")} == {"pooled"}
    for own in cells.values():
        assert len(own) == len(COLUMNS) - 1
        assert all(" ± " in cell for cell in own[:3])
        assert own[2].endswith(" MB)")


def test_int8_is_smaller_and_patches_are_left_out_as_it_runs():
    model, x = small(), Few.images
    assert megabytes(int8(model)) < 0.7 * megabytes(model)
    with torch.no_grad():
        assert (int8(model)(x) - model(x)).abs().max() < 0.2
        fewer = fewer_patches(model)
        torch.manual_seed(0)
        one, two = fewer(x), fewer(x)
    assert not torch.equal(one, two)

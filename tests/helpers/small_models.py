"""Every registered name, small: the base's own builder with fewer blocks and channels."""

import functools

import timm
import torch
from timm.models import list_models, model_entrypoint
from torch import fx

from cp_vision.models import cp_models

NAMES = list_models("cp_*", module="cp_models")

# What timm's and torchvision's own models end in where they can't be traced.
UNTRACEABLE = (fx.proxy.TraceError, TypeError, RuntimeError, ValueError)

# Few blocks, few channels, images of 64 x 96 pixels; what makes an architecture its own stays.
SMALL = {
    "resnet": {"layers": (2, 2, 2, 2), "channels": (32, 32, 64, 64)},
    "regnet": {"depth": 8, "w0": 16, "wa": 16.0, "wm": 2.0, "group_size": 8},
    "convnext": {"depths": (2, 2, 2, 2), "dims": (16, 24, 32, 40)},
    "swin_transformer": {
        "img_size": (64, 96),
        "window_size": 4,
        "depths": (2, 2, 2, 2),
        "embed_dim": 32,
        "num_heads": (2, 4, 8, 16),
    },
    "vision_transformer": {"img_size": (64, 96), "embed_dim": 48, "depth": 4, "num_heads": 4, "patch_size": 16},
}
SMALL["swin_transformer_v2"] = SMALL["swin_transformer"]
SMALL["deit"] = SMALL["vision_transformer"]
FAMILIES = tuple(SMALL)

# A graph takes as long as it has blocks: one of each kind, and of Swin's a plain and a shifted one.
SHORT = {
    "resnet": {"layers": (1, 1, 1, 1)},
    "convnext": {"depths": (1, 1, 1, 1)},
    "swin_transformer": {"depths": (2, 2), "num_heads": (2, 4)},
    "vision_transformer": {"depth": 2},
}
SHORT["swin_transformer_v2"] = SHORT["swin_transformer"]
SHORT["deit"] = SHORT["vision_transformer"]

# One of each kind of block and stem.
QUICK = (
    "cp_resnet18",
    "cp_resnet50d",
    "cp_resnetblur50",
    "cp_resnext50_32x4d",
    "cp_regnety_002",
    "cp_regnetv_040",
    "cp_convnext_tiny",
    "cp_convnextv2_nano",
    "cp_swin_tiny_patch4_window7_224",
    "cp_swinv2_tiny_window8_256",
    "cp_vit_small_patch16_224",
    "cp_vit_base_patch14_reg4_dinov2",
    "cp_deit_tiny_distilled_patch16_224",
    "cp_deit3_small_patch16_224",
)


def base_of(name):
    return name.removeprefix("cp_")


def family_of(name):
    return model_entrypoint(base_of(name)).__module__.rpartition(".")[2]


def is_fixed(name):
    """Whether a size is the model's own: timm's test models are small, pruned ones have their list of channels."""
    return "pruned" in name or base_of(name).startswith("test_")


def small_args(name):
    args = SMALL[family_of(name)]
    if is_fixed(name):
        return {"img_size": args["img_size"]} if "img_size" in args else {}
    return dict(args)


def small(name, **kwargs):
    """The small model of a ``cp_`` or base name, with weights in which no block is a no-op."""
    torch.manual_seed(0)
    model = timm.create_model(name, **{**small_args(name), "num_classes": 5, **kwargs})
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if parameter.ndim == 1 and not is_added(key):
                parameter.add_(0.1 * torch.rand(parameter.shape, generator=generator))
    return model.eval()


def short(name, **kwargs):
    """The small model with as few blocks as a graph needs."""
    args = {} if is_fixed(name) else SHORT.get(family_of(name), {})
    return small(name, **args, **kwargs)


def pair(name, **kwargs):
    """A base and its pooled model with the same weights."""
    base = small(base_of(name), **kwargs)
    model = small(name, **kwargs)
    result = model.load_state_dict(base.state_dict(), strict=False)
    assert not result.unexpected_keys
    assert all(".context_pool." in key for key in result.missing_keys)
    return base, model


def is_added(key):
    """Whether a key of a state dict is that of a pool or a stand-in."""
    return ".context_pool." in key or ".context_pool_block." in key


def stir(model, scale=1.0):
    """Give every pool and every stand-in weights under which it changes what it gets."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if is_added(key):
                parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    return model


def build_meta(name, **kwargs):
    """A model that takes no memory."""
    with torch.device("meta"):
        return timm.create_model(name, **kwargs)


def record(module):
    """What the module's last call took and gave, from now on."""
    seen = {}
    module.register_forward_hook(lambda m, args, output: seen.update(input=args[0], output=output))
    return seen


def hooked(model, names, x):
    """What forward hooks see of the modules of these names."""
    seen, handles = {}, []
    for name in names:
        hook = lambda module, args, output, name=name: seen.__setitem__(name, output.clone())  # noqa: E731
        handles.append(model.get_submodule(name).register_forward_hook(hook))
    model(x)
    for handle in handles:
        handle.remove()
    return seen


def images(batch=1, channels=3, size=(64, 96)):
    return torch.randn(batch, channels, *size, generator=torch.Generator().manual_seed(3))


def close(one, other, limit=1e-6):
    # Of the largest output: some networks without training give large ones.
    assert one.shape == other.shape
    assert (one - other).abs().max() <= limit * max(1.0, float(other.abs().max()))


@functools.cache
def distinct(family, kinds=False):
    """Names of a family, one for each structure that the small models have, or for each set of kinds of modules."""
    found = {}
    for name in NAMES:
        if family_of(name) == family:
            with torch.device("meta"):
                base = timm.create_model(base_of(name), **small_args(name))
            key = frozenset(map(type, base.modules())) if kinds else (repr(base), type(base))
            found.setdefault(key, name)
    return tuple(found.values())


assert set(map(base_of, NAMES)) == set(cp_models.BASES)

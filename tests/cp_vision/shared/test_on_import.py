"""Importing the library is light, and registers its models in timm and torchvision whatever is imported first."""

import subprocess
import sys

import pytest

IN_TIMM = "assert 'cp_resnet18' in timm.list_models('cp_*'); timm.create_model('cp_test_vit')"
IN_TORCHVISION = "assert 'cp_resnet18' in torchvision.models.list_models()"
HEAVY = ("torch", "torchvision", "timm", "numpy", "optuna", "ray", "sklearn")


# By what is imported first; each needs a process of its own, and seconds for torch.
ORDERS = {
    "timm_after": f"import cp_vision, timm; {IN_TIMM}; import torchvision; {IN_TORCHVISION}",
    "timm_before": f"import timm, cp_vision; {IN_TIMM}",
    "a_module_of_timms": f"import timm.models.vision_transformer, cp_vision; {IN_TIMM}",
    # Looking whether timm is there is no import.
    "timm_looked_for": f"import cp_vision, importlib.util; importlib.util.find_spec('timm'); import timm; {IN_TIMM}",
    "a_module_that_imports_timm": f"from cp_vision.anatomy.known_families import list_blocks; import timm; {IN_TIMM}",
    "the_builder": f"from cp_vision.models.build import build_context_pooled; import timm; {IN_TIMM}",
    "a_public_name": f"from cp_vision import Architecture; import timm; {IN_TIMM}; Architecture('test_vit').build()",
    "torchvision_after": f"import cp_vision, torchvision; {IN_TORCHVISION}",
    "torchvision_before": f"import torchvision, cp_vision; {IN_TORCHVISION}",
    "all_names": "from cp_vision import *; assert cp_models.BASES and torchvision_models.TORCHVISION_BASES",
    "nothing": f"import cp_vision, sys; assert not set({HEAVY}) & set(sys.modules)",
}
QUICK = ("timm_after", "nothing")


@pytest.mark.parametrize("order", [o if o in QUICK else pytest.param(o, marks=pytest.mark.slow) for o in ORDERS])
def test_models_are_registered_in_any_order_of_imports(order):
    done = subprocess.run([sys.executable, "-c", ORDERS[order]], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_public_name_is_there():
    import cp_vision

    assert all(getattr(cp_vision, name) is not None for name in cp_vision.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        _ = cp_vision.nothing

"""Values of no use for arguments of the public functions are refused, each argument by name."""

import copy
import inspect

import pytest
import timm
import torch

from cp_vision import UserError, drop_blocks, fit_blocks, insert_pools, replace_blocks
from cp_vision.search import compress

VALUES = [3, -1, True, None, "x", [], {}, object(), 1.5, float("nan"), torch.zeros(2)]
QUICK = {"budget": "0.8x", "kinds": ["linear"], "max_run": 1, "tries": 1, "counterparts": False}
FUNCTIONS = {
    insert_pools: {"names": ["blocks.1"]},
    drop_blocks: {"names": ["blocks.1"]},
    replace_blocks: {"runs": ["blocks.1"]},
    fit_blocks: {},
    compress: QUICK,
}


def arguments(function, model, images):
    models = {"student": replace_blocks(copy.deepcopy(model), ["blocks.1"]), "teacher": model, "model": model}
    given = {**models, "images": images, **FUNCTIONS[function]}
    return {name: given[name] for name in inspect.signature(function).parameters if name in given}


@pytest.mark.slow
@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_each_argument_of(function, tmp_path, monkeypatch):
    # What may be a path is made there.
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = timm.create_model("test_vit", img_size=32, patch_size=8, depth=3, num_classes=3).eval()
    images = torch.randn(8, 3, 32, 32)
    refused: dict[str, list[str]] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD or name == "alone":
            continue
        for value in VALUES:
            given = arguments(function, copy.deepcopy(model), images) | {name: value}
            try:
                function(**given)
            except UserError as error:
                refused.setdefault(name, []).append(str(error))
    assert not [text for texts in refused.values() for text in texts if "\n" in text]
    assert set(refused) == {*inspect.signature(function).parameters} - {"options", "alone"}

"""Models in ONNX Runtime."""

import pytest
import torch
from small_models import close, images


def open_batch():
    """The dimension of a batch of any size."""
    return torch.export.Dim("batch", min=1, max=64)


def check_onnx(model, folder, inputs, sizes=None):
    """Export a model once and check that the graph gives what the model does.

    Args:
        model: in evaluation mode; called without gradients.
        folder: where the graph is written.
        inputs: images to try, of other sizes than the batch of two that it is exported with.
        sizes: the open dimensions by axis; None is the batch alone.
    """
    onnxruntime = pytest.importorskip("onnxruntime")
    sizes = sizes or {0: open_batch()}
    program = torch.onnx.export(model, (images(2),), dynamic_shapes=(sizes,), dynamo=True, verbose=False)
    program.save(folder / "model.onnx")
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    for x in inputs:
        (got,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        close(torch.from_numpy(got), model(x), 1e-4)

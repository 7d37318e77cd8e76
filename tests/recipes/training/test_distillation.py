"""Distillation."""

import pytest
import timm
import torch
from digits_folder import CPU, SMALL, digits, parts, sets

from cp_vision import UserError
from cp_vision.recipes import Training
from cp_vision.recipes.cli import main
from cp_vision.recipes.models import build_model, load_teacher
from cp_vision.recipes.training.task import make_task


@pytest.mark.slow
def test_distillation_follows_the_teacher(tmp_path):
    teacher, fast = tmp_path / "teacher", ("opt=adamw", "lr=0.004")
    Training(digits("epochs=6", *fast), teacher).run()
    agreement = {}
    for weight in (0.0, 1.0):
        recipe = digits(f"kd_model_name=local-dir:{teacher / 'last'}", f"distill_loss_weight={weight}", *fast)
        recipe = recipe.with_values(task_loss_weight=1 - weight, kd_temperature=2.0, smoothing=0.0)
        folder = tmp_path / f"student{weight}"
        Training(recipe, folder).run()
        names = [f"local-dir:{path}" for path in (teacher / "last", folder / "last")]
        models = [timm.create_model(name, pretrained=True).eval() for name in names]
        _, _, scoring = parts(recipe)
        with torch.inference_mode():
            pairs = [[model(images).log_softmax(1) for model in models] for images, _ in scoring]
        agreement[weight] = sum(float((one - two).abs().mean()) for one, two in pairs)
    # A student of the teacher alone comes nearer to it than one of the labels alone.
    assert agreement[1.0] < agreement[0.0]
    with pytest.raises(UserError, match=r"10 classes.* 3"):
        load_teacher(recipe, 3)


@pytest.mark.parametrize("colours", [3, 1])
def test_a_teacher_sees_the_pixels_that_it_was_trained_on(colours):
    """Whatever normalisation the recipe gives to the student."""
    recipe = digits(f"in_chans={colours}", f"mean={[0.1] * colours}", f"std={[0.7] * colours}")
    student, teacher = (build_model("cp_test_vit2", {"num_classes": 10, "in_chans": colours}) for _ in range(2))
    teacher.pretrained_cfg.update(mean=(0.2, 0.3, 0.4), std=(0.5, 0.6, 0.7))
    _, task = make_task(student, recipe, CPU, teacher)
    pixels = torch.rand(2, colours, 4, 4)
    seen = task.teacher.normalize_input((pixels - 0.1) / 0.7, task.student_mean, task.student_std)
    mean, std = ([0.2, 0.3, 0.4], [0.5, 0.6, 0.7]) if colours == 3 else ([0.3], [0.6])
    torch.testing.assert_close(seen, (pixels - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(-1, 1, 1))


def test_distillation_of_grey_images(tmp_path):
    teacher = tmp_path / "teacher"
    grey = [*SMALL, "in_chans=1", "epochs=1", "batch_size=512"]
    assert main(["digits", *sets(grey), "--output", str(teacher)]) == 0
    grey.append(f"kd_model_name=local-dir:{teacher / 'last'}")
    assert main(["digits", *sets(grey), "--output", str(tmp_path / "student")]) == 0

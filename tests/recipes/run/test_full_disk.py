"""What a training does on a full disk."""

import pytest
import torch
from digits_folder import FOLDER, sets
from full_disk import no_file_above

from cp_vision.recipes import Training, load_recipe
from cp_vision.recipes.cli import main
from cp_vision.recipes.run.events import EventFile


@pytest.fixture(scope="module")
def recipe(image_folder):
    settings = [*FOLDER, "epochs=2", "log_interval=1", "recovery_interval=1"]
    return load_recipe("default", [*settings, f"data_dir={image_folder}"])


@pytest.fixture(scope="module")
def whole(recipe, tmp_path_factory):
    return Training(recipe, tmp_path_factory.mktemp("whole") / "run").run()


# The sizes at which recipe.yaml, the first event, one of the later events, a checkpoint, a model can't be written.
@pytest.mark.parametrize("size", [200, 1_700, 2_000, 100_000, 600_000])
def test_it_ends_in_one_line_and_goes_on_when_there_is_room(size, recipe, whole, image_folder, tmp_path, capsys):
    output = tmp_path / "run"
    settings = [*FOLDER, "epochs=2", "log_interval=1", "recovery_interval=1"]
    words = ["default", *sets(settings), "--data-dir", str(image_folder), "--quiet", "--output", str(output)]
    with no_file_above(size):
        assert main(words) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    (line,) = shown.err.splitlines()
    assert "File too large" in line
    assert str(output) in line
    assert not [path for path in output.rglob(".*") if path.name != ".lock"]
    for checkpoint in output.glob("checkpoint*.pt"):
        torch.load(checkpoint, weights_only=True)
    assert Training(recipe, output).run() == whole


def test_an_event_is_written_whole_or_not_at_all(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventFile(tmp_path, 0)
    events.add({"a": 1.0}, 1)
    with no_file_above(events.file.tell() + 20), pytest.raises(OSError, match="File too large"):
        events.add({"a": 2.0}, 2)
    events.add({"a": 3.0}, 3)
    events.close()
    read = EventAccumulator(str(tmp_path)).Reload().Scalars("a")
    assert [(event.step, event.value) for event in read] == [(1, 1.0), (3, 3.0)]

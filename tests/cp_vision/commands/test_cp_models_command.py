"""``cp-models``: lists, tables, pictures, and mistakes in one line."""

import os
import re
import shutil
import subprocess
import sys

import pytest
import timm
import torch
from mistakes import assert_one_line_mistake
from PIL import Image
from sklearn.datasets import load_sample_image
from small_models import small, stir
from timm.models import save_for_hf

import cp_vision
from cp_vision.commands.cp_models_command import main
from cp_vision.commands.support_maps import support_maps

ARGS = {"pools": ["layer2.1", "layer4.0", "maxpool"], "drops": ["layer3.1"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A trained model, its weights alone, and a photograph."""
    folder = tmp_path_factory.mktemp("models")
    model = stir(timm.create_model("cp_resnet18", num_classes=3, **ARGS), 0.5)
    save_for_hf(model, folder / "trained", safe_serialization=True)
    torch.save(model.state_dict(), folder / "weights.pth")
    save_for_hf(timm.create_model("cp_test_vit", in_chans=4), folder / "four", safe_serialization=True)
    Image.fromarray(load_sample_image("china.jpg")).save(folder / "photo.jpg")
    (folder / "text.jpg").write_text("no image")
    return folder


def test_a_list_says_what_each_name_costs(capsys):
    assert main(["cp_test_res*"]) == 0
    head, row, note = capsys.readouterr().out.splitlines()
    assert head.split() == ["name", "pixels", "params", "MACs", "pooled", "sites"]
    model = timm.create_model("cp_test_resnet")
    costs = (
        sum(p.numel() for p in model.parameters()),
        cp_vision.count_macs("test_resnet"),
        cp_vision.count_macs(model),
    )
    assert row.split()[:7] == ["cp_test_resnet", "160", "x", "160", *map(cp_vision.cost.macs.format_macs, costs)]
    assert row.endswith("4 blocks, 1 stem, 3 down-samplings; 2 pooled")
    assert note.startswith("MACs of the base")


def test_a_list_goes_on_where_one_model_takes_no_such_argument(capsys):
    assert main(["cp_test_[rv]*t", "--model-kwargs", "img_size=64"]) == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "unexpected keyword argument 'img_size'" in rows["cp_test_resnet"]
    assert " 64 x 64 " in rows["cp_test_vit"]


@pytest.mark.slow
def test_a_reader_that_stops_early_is_no_error(folder):
    script = "import sys; from cp_vision.commands.cp_models_command import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", script, f"local-dir:{folder / 'trained'}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 0


def test_a_folder_may_have_the_marks_of_a_pattern(capsys, folder, tmp_path):
    odd = tmp_path / "run[1]*"
    shutil.copytree(folder / "trained", odd)
    assert main([f"local-dir:{odd}"]) == 0
    assert capsys.readouterr().out.startswith(f"local-dir:{odd}: ")


def test_a_table_shows_the_sites(capsys, folder):
    assert main([f"local-dir:{folder / 'trained'}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    sites = cp_vision.find_sites(timm.create_model("cp_resnet18", **ARGS))
    rows = {line.split()[0]: line for line in lines[2:-1]}
    assert list(rows) == [site.name for site in sites]
    assert {name for name, row in rows.items() if " yes, " in row} == set(ARGS["pools"])
    assert lines[-1] == "dropped: layer3.1"
    assert main(["test_vit"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("no pools; by default they would stand at blocks.0, ")


REPLACED = {
    "blocks.0": {"rank": 3, "supports": 2},
    "blocks.1:blocks.2": {"rank": 8},
    "blocks.3.attn": {"rank": 5, "pool": False},
}
SAID = {"blocks.0": "rank 3, 2 supports", "blocks.1:blocks.2": "rank 8, 1 support", "blocks.3.attn": "rank 5, no pool"}


@pytest.mark.parametrize("saved", [True, False])
def test_stand_ins_are_shown_with_what_they_replace_and_what_that_saves(capsys, tmp_path, saved):
    args = {"pools": ["blocks.3"], "drops": ["blocks.4"], "replaces": REPLACED}
    if saved:
        save_for_hf(timm.create_model("cp_test_vit", **args), tmp_path / "replaced", safe_serialization=True)
        assert main([f"local-dir:{tmp_path / 'replaced'}"]) == 0
    else:
        assert main(["cp_test_vit", "--model-kwargs", *(f"{key}={value}" for key, value in args.items())]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-4] == "dropped: blocks.4"
    for (name, options), line in zip(REPLACED.items(), lines[-3:], strict=True):
        alone = timm.create_model("cp_test_vit", pools=(), replaces={name: options})
        own, replaced = re.fullmatch(rf"replaced: {name} by {SAID[name]}; (\S+) MACs in place of (\S+)", line).groups()
        saving = cp_vision.count_macs("test_vit") - cp_vision.count_macs(alone)
        assert as_number(replaced) - as_number(own) == pytest.approx(saving, rel=0.01)


def as_number(macs):
    return float(macs[:-1]) * {"K": 1e3, "M": 1e6}[macs[-1]]


def test_pools_stand_by_default_where_no_block_was_replaced(capsys):
    assert main(["cp_test_vit", "--model-kwargs", "replaces=['blocks.1:blocks.2']"]) == 0
    *_, last_site, replaced = capsys.readouterr().out.splitlines()
    assert last_site.startswith("blocks.5")
    assert replaced.startswith("replaced: blocks.1:blocks.2 by rank ")


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_pictures_of_supports(capsys, folder, tmp_path, suffix):
    path = tmp_path / f"supports.{suffix}"
    photo = ["--image", str(folder / "photo.jpg"), "--plot", str(path)]
    assert main([f"local-dir:{folder / 'trained'}", *photo]) == 0
    assert capsys.readouterr().out == f"wrote {path}\n"
    first = path.stat().st_size
    assert first > 10_000
    kwargs = [f"{key}={value}" for key, value in ARGS.items()]
    given = ["cp_resnet18", "--model-kwargs", *kwargs, "--checkpoint", str(folder / "weights.pth"), *photo]
    assert main(given) == 0
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    if suffix == "png":
        with Image.open(path) as picture:
            assert picture.size[0] > 1000


def test_supports_of_a_model_of_grey_images(folder, tmp_path):
    torch.save(stir(timm.create_model("cp_test_vit", in_chans=1, img_size=64), 0.5).state_dict(), tmp_path / "grey.pth")
    given = ["cp_test_vit", "--model-kwargs", "in_chans=1", "img_size=64", "--checkpoint", str(tmp_path / "grey.pth")]
    assert main([*given, "--image", str(folder / "photo.jpg"), "--plot", str(tmp_path / "supports.png")]) == 0
    assert (tmp_path / "supports.png").stat().st_size > 10_000


def test_names_that_no_terminal_can_show():
    script = r"import sys; from cp_vision.shared.command_line import run_command as run; "
    script += r"sys.exit(run(lambda arguments: print('\udcff.png'), [], 'cp'))"
    strict = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run([sys.executable, "-c", script], env=strict, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "\\udcff.png\n", "")


@torch.inference_mode()
def test_support_maps_are_in_pixels_of_the_image():
    model = small("cp_resnet18", pools=["layer1.0", "layer4.1", "maxpool"])
    maps = {one.site: one for one in support_maps(model, torch.randn(1, 3, 64, 96))}
    assert list(maps) == ["maxpool", "layer1.0", "layer4.1"]
    # A new pool has the middle of its range everywhere: sigma_min + 0.1 * side / 2 in pixels of its map.
    for site, reduction, shape in (("layer1.0", 4, (16, 24)), ("layer4.1", 32, (2, 3)), ("maxpool", 2, (16, 24))):
        longest = 96 / reduction
        assert maps[site].sigma.shape == shape
        assert torch.allclose(maps[site].sigma, torch.tensor((0.1 + 0.05 * longest) * reduction))
    assert maps["layer1.0"].gate == 0.0
    assert maps["maxpool"].gate is None


PHOTO = ["--image", "{}/photo.jpg"]
MISTAKES = [
    (["cp_resnt18"], ["'cp_resnt18'", "'cp_resnet18'"]),
    (["zz*"], ["'zz*'"]),
    (["cp_test_vit", "--model-kwargs", "pretrained_cfg_overlay=abc"], ["pretrained_cfg_overlay", "'abc'"]),
    (["cp_test_vit", "--model-kwargs", "pool_options=3"], ["pool options 3"]),
    (["cp_test_vit", "--model-kwargs", "replaces=['blocks.9']"], ["'blocks.9'", "blocks.5"]),
    (["cp_test_vit", "--model-kwargs", "replaces=blocks.1"], ["replaces", "'blocks.1'"]),
    (["cp_test_vit", "--plot", "x.png"], ["--plot", "--image"]),
    (["cp_test_vit", "--checkpoint", "{}/weights.pth"], ["--checkpoint", "--plot"]),
    (["cp_*", "--plot", "x.png", *PHOTO], ["--plot", "'cp_*'"]),
    (["cp_test_vit", "--plot", "x.png", *PHOTO], ["'cp_test_vit'", "--checkpoint"]),
    (["test_vit", "--model-kwargs", "colour=1"], ["'colour'"]),
    (["test_vit", "--model-kwargs", "colour"], ["--model-kwargs", "'colour'"]),
    (["cp_test_vit", "--model-kwargs", "img_size=97"], ["cp_test_vit", "97"]),
    (["vgg11"], ["VGG"]),
    (["local-dir:{}/nothing"], ["'local-dir:", "nothing"]),
    (["local-dir:{}/trained", "--image", "{}/text.jpg", "--plot", "{}/x.png"], ["text.jpg"]),
    (["local-dir:{}/trained", "--image", "{}/none.jpg", "--plot", "{}/x.png"], ["none.jpg"]),
    (["local-dir:{}/trained", *PHOTO, "--plot", "{}/x.doc"], ["--plot", "x.doc", ".png"]),
    (["local-dir:{}/trained", *PHOTO, "--plot", "{}/none/x.png"], ["--plot", "none/x.png"]),
    (["cp_resnet18", "--checkpoint", "{}/weights.pth", *PHOTO, "--plot", "{}/x.png"], ["missing", "unexpected"]),
    (["local-dir:{}/four", *PHOTO, "--plot", "{}/x.png"], ["4 channels"]),
    (["cp_test_vit", "--checkpoint", "{}/text.jpg", *PHOTO, "--plot", "{}/x.png"], ["text.jpg'"]),
    (["cp_test_vit", "--model-kwargs", "features_only=True"], ["features_only"]),
    (["cp_test_vit", "--checkpoint", "{}/no.pth", *PHOTO, "--plot", "{}/x.png"], ["no.pth'"]),
    (["cp_test_vit", "--colour"], ["--colour"]),
]


@pytest.mark.parametrize(("arguments", "names"), MISTAKES)
def test_mistakes_are_one_line(capsys, folder, arguments, names):
    before = sorted(folder.iterdir())
    line = assert_one_line_mistake(main, [argument.format(folder) for argument in arguments], capsys, names)
    assert line.startswith("cp-models: error: ")
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("arguments", [["--help"], ["--colour"], ["x", "--plot"]])
def test_help_and_a_mistyped_option_answer_before_torch_is_imported(arguments):
    script = "import sys; from cp_vision.commands.cp_models_command import main\n"
    script += "try: main(sys.argv[1:])\nexcept SystemExit: pass\n"
    script += "assert not {'torch', 'timm', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script, *arguments], check=True, capture_output=True)

"""What a recipe may say."""

import pytest

from cp_vision import UserError
from cp_vision.recipes import Recipe, load_recipe
from cp_vision.recipes.recipe.allowed import allowed
from cp_vision.recipes.run.output_folder import check_folder


def test_yaml_round_trip(tmp_path):
    recipe = load_recipe("digits", ["lr=0.5", "model=cp_resnet18"])
    (tmp_path / "own.yaml").write_text(recipe.to_yaml())
    assert load_recipe(tmp_path / "own.yaml") == recipe
    assert recipe.lr == 0.5


def test_numbers_without_a_point_are_numbers(tmp_path):
    (tmp_path / "own.yaml").write_text("model_kwargs: {init_values: 1e-5}\nlr: 1E-3\nepochs: 1e2\n")
    recipe = load_recipe(tmp_path / "own.yaml", ["drop_path=1e-1"])
    assert (recipe.model_kwargs, recipe.lr, recipe.epochs, recipe.drop_path) == ({"init_values": 1e-5}, 1e-3, 100, 0.1)


def test_a_training_goes_on_from_a_recipe_of_tuples(tmp_path):
    recipe = Recipe(model_kwargs={"pools": ("blocks.1",), "pool_options": {"support_range": (0.1, 0.25)}})
    recipe = recipe.with_values(model_kwargs={**recipe.model_kwargs, "drops": ("blocks.0",)})
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    assert check_folder(tmp_path, recipe) is None
    assert load_recipe(tmp_path / "recipe.yaml") == recipe


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *[(key, value) for key in ("lr", "epochs", "in_chans", "mixup") for value in ("true", "yes", "ten", ".nan")],
        *[(key, value) for key in ("amp", "model_ema", "pretrained") for value in ("1", "0", "'true'")],
        *[(key, value) for key in ("mean", "scale", "decay_milestones") for value in ("0.5", "'1, 2'", "[true, 1, 1]")],
        *[(key, "3") for key in ("model", "dataset", "data_dir", "model_kwargs")],
        *[(key, "null") for key in ("lr", "epochs", "opt", "amp", "scale", "model_kwargs", "seed")],
        ("epochs", "2.5"),
        ("epochs", "0"),
        ("num_classes", "0"),
        ("hflip", "2"),
        ("crop_pct", "87.5"),
        ("momentum", "50"),
        ("opt_eps", "-1"),
        ("layer_decay", "7"),
        ("bce_target_thresh", "-5"),
        ("decay_milestones", "[-4]"),
        ("opt_betas", "[2, 3]"),
        ("sched", "cosin"),
        ("opt", "adamm"),
        ("opt", "lookahead_adahessian"),
        ("dataset", "Digits"),
        ("img_size", "100000"),
        ("scale", "[2, 1]"),
        ("scale", "[1]"),
        ("ratio", "[-1, 1]"),
        ("mean", "[0.5]"),
        ("seed", "4294967296"),
        ("model_kwargs", "{num_classes: 5}"),
        ("model_kwargs", "{depht: null}"),
        ("model_kwargs", "{depht=2}"),
        ("model_kwargs", "{a b: 2}"),
        ("drop_path_uniform", "true"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_its_key(key, value, tmp_path):
    path = tmp_path / "wrong.yaml"
    path.write_text(f"{key}: {value}")
    for source, arguments in ((f"recipe {path}: ", (path,)), ("--set: ", ("default", [f"{key}={value}"]))):
        with pytest.raises(UserError) as caught:
            load_recipe(*arguments)
        assert str(caught.value).startswith(f"{source}{key}")
        assert "\n" not in str(caught.value)
        # What pydantic would say tells nobody what to write.
        assert "nput should be" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "texts"),
    [
        ("lr", ["a number above 0"]),
        ("epochs", ["a whole number at least 1"]),
        ("crop_pct", ["null", "above 0 and at most 1"]),
        ("opt_betas", ["null", "a list in brackets", "at least 0 and below 1"]),
        ("sched", ["'cosine'", "'none'"]),
        ("amp", ["true or false"]),
        ("in_chans", ["one of 1, 3"]),
    ],
)
def test_what_is_allowed_is_told(key, texts):
    assert all(text in allowed(Recipe, key) for text in texts)


@pytest.mark.parametrize("key", ["mean", "opt_betas", "decay_milestones", "scale"])
def test_a_mistake_in_a_list_says_how_it_is_written(key):
    with pytest.raises(UserError, match="a list in brackets"):
        load_recipe("default", [f"{key}=0.5"])


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("epoch: 3", ["epoch", "'epochs'"]),
        ("{epoch: 3, lr: -1}", ["epoch", "'epochs'"]),
        ("1: 2", ["1 "]),
        ("{mixup: 0.2, batch_size: 33}", ["batch_size", "33"]),
        ("{dataset: digits, data_dir: images}", ["data_dir", "'images'"]),
        ("- 1", ["mapping"]),
        ("a: [", ["YAML"]),
        ("model: !!python/object/apply:os.getcwd []", ["YAML"]),
        ("epochs: 2024-13-45", ["YAML"]),
        ("epochs: !!int abc", ["YAML"]),
        ("amp: !!bool abc", ["YAML"]),
        ("epochs: !!timestamp abc", ["YAML"]),
    ],
)
def test_wrong_recipes(text, names, tmp_path):
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        load_recipe(path)
    assert "\n" not in str(caught.value)
    assert all(name in str(caught.value) for name in [str(path), *names])


def test_whole_numbers_are_numbers_and_tuples_are_lists():
    recipe = Recipe.model_validate({"lr": 1, "mixup": 0, "epochs": 3.0, "scale": (0.5, 1), "in_chans": 1})
    assert (recipe.lr, recipe.mixup, recipe.epochs, recipe.scale, recipe.in_chans) == (1.0, 0.0, 3, [0.5, 1.0], 1)


@pytest.mark.parametrize(
    ("overrides", "blamed"),
    [
        ([], "recipe "),
        (["epochs=3"], "recipe "),
        (["lr=-1"], "--set: lr"),
        (["scale=[2, 1]"], "--set: scale"),
        (["mixup=0.2"], "--set: batch_size"),
        (["epohcs=3"], "--set: epohcs"),
        (["opt_betas=[2, 3]"], "--set: opt_betas"),
    ],
)
def test_a_mistake_is_laid_to_what_holds_it(overrides, blamed, tmp_path):
    path = tmp_path / "wrong.yaml"
    path.write_text("{batch_size: 33, mixup: 0.2}" if blamed == "recipe " else "{batch_size: 33}")
    with pytest.raises(UserError) as caught:
        load_recipe(path, overrides)
    assert str(caught.value).startswith(blamed)


def test_another_model_leaves_the_recipes_model_arguments_out():
    assert load_recipe("digits", ["model=cp_resnet18"]).model_kwargs == {}
    assert load_recipe("digits", ["model=cp_resnet18", "model_kwargs={layers: [1, 1, 1, 1]}"]).model_kwargs
    assert load_recipe("digits", ["model=cp_test_vit2"]).model_kwargs == load_recipe("digits").model_kwargs

"""What a bench is asked for: the command line over a file over defaults, and every fault by name."""

import pytest
import yaml

from kdzoo.errors import InputError
from kdzoo.suite.plan.config import BenchConfig
from kdzoo.suite.plan.layers import bench_config, quick
from kdzoo.suite.plan.recipe_files import recipe_file, recipes
from kdzoo.suite.plan.yaml_files import assignments


def test_without_an_option_it_is_the_digits_bench_of_at_most_30_runs():
    config = bench_config({}, None)
    assert config.name == "digits"
    assert config.data == "digits"
    assert config.seeds == (0, 1, 2)
    assert config.tune is not None
    assert (1 + config.tune * len(config.methods)) * len(config.seeds) <= 30


def test_its_grid_belongs_to_it_alone():
    assert bench_config({"data": "cifar100"}, None).tune is None
    assert bench_config({"alphas": "0.3"}, None).tune is None
    assert bench_config({"alphas": "0.3"}, None).data == "digits"


def test_the_command_line_wins_over_the_file_and_the_file_over_defaults(tmp_path):
    file = tmp_path / "bench.yaml"
    file.write_text(yaml.safe_dump({"seeds": [3, 5], "temperatures": [1, 2], "set": {"recipe.batch_size": 32}}))
    config = bench_config({"temperatures": "8", "set": {"recipe.lr": 0.5}}, file)
    assert config.seeds == (3, 5)
    assert config.temperatures == (8,)
    assert config.set == {**bench_config({}, None).set, "recipe.batch_size": 32, "recipe.lr": 0.5}


@pytest.mark.parametrize(
    ("text", "seeds"), [("3", (0, 1, 2)), (3, (0, 1, 2)), ("4,7", (4, 7)), ([2], (2,)), ("1", (0,)), ("5,", (5,)), ("5, 7,", (5, 7))]
)
def test_one_number_of_seeds_counts_and_a_list_names(text, seeds):
    assert bench_config({"seeds": text}, None).seeds == seeds


def test_lists_may_be_commas_or_yaml():
    assert bench_config({"alphas": "0,0.5,0.9"}, None).alphas == bench_config({"alphas": [0, 0.5, 0.9]}, None).alphas == (0, 0.5, 0.9)


def test_all_problems_are_reported_at_once_with_the_nearest_key():
    with pytest.raises(InputError) as error:
        bench_config({"temperatuers": "4", "epochs": 0, "seeds": "0", "limit": True}, None)
    text = str(error.value)
    assert "temperatuers: unknown; did you mean 'temperatures'?" in text
    assert "epochs: expected a number > 0, got 0" in text
    assert "seeds: expected a number of seeds >= 1" in text
    assert "limit" in text


def test_a_file_that_is_no_yaml_is_named_with_its_line(tmp_path):
    file = tmp_path / "bad.yaml"
    file.write_text("seeds: 3\n methods: [hinton\n")
    with pytest.raises(InputError, match=r"bad\.yaml:2"):
        bench_config({}, file)


def test_assignments_are_read_as_yaml():
    assert assignments(["recipe.lr=0.1", "recipe.nesterov=true", "recipe.milestones=[0.5, 0.75]"]) == {
        "recipe.lr": 0.1,
        "recipe.nesterov": True,
        "recipe.milestones": [0.5, 0.75],
    }
    with pytest.raises(InputError, match="expected key=value"):
        assignments(["recipe.lr"])


def test_quick_keeps_what_was_given():
    assert quick({"epochs": 9})["epochs"] == 9
    assert bench_config(quick({}), None).seeds == (0,)


def test_quick_tries_two_settings_of_each_search_list_unless_axes_are_given(tmp_path):
    assert bench_config(quick({}), None).tune == 2
    (tmp_path / "bench.yaml").write_text("temperatures: [2]\n")
    for options, file in (({"temperatures": "1,4"}, None), ({"grid": {"at.dose": "0.1,1"}}, None), ({}, tmp_path / "bench.yaml")):
        config = bench_config(quick(options, file), file)
        assert (config.tune, config.alphas, config.seeds) == (None, (), (0,))
    assert bench_config(quick({"tune": 3}), None).tune == 3


@pytest.mark.parametrize("name", recipes())
def test_every_shipped_recipe_resolves(name):
    assert recipe_file(name).resolve("resnet20", {}).epochs >= 1


def test_an_unknown_recipe_and_an_unknown_field_name_the_nearest():
    with pytest.raises(InputError, match="did you mean 'crd240'"):
        recipe_file("crd24")
    with pytest.raises(InputError, match="did you mean 'epochs'"):
        recipe_file("smoke").resolve("resnet20", {"epoch": 3})


def test_aber200_is_the_published_one():
    recipe = recipe_file("aber200").resolve("resnet20", {})
    assert (recipe.epochs, recipe.batch_size, recipe.lr, recipe.nesterov, recipe.weight_decay) == (200, 128, 0.1, True, 1e-4)
    assert recipe.augment.padding == "reflect"


def test_every_field_has_a_default_so_that_nothing_must_be_said():
    assert BenchConfig().seeds == (0, 1, 2)


def test_a_size_is_a_number_of_bytes_with_or_without_a_unit():
    sizes = {"64GiB": 64 * 2**30, "1.5 kB": 1536, "0": 0, 4096: 4096}
    assert {text: bench_config({"image_cache": text}, None).image_cache for text in sizes} == sizes
    for wrong in ("-1GB", "12 parsecs", "much", -5, True):
        with pytest.raises(InputError, match=r"image_cache: expected a size such as 500MB or 64GB, got"):
            bench_config({"image_cache": wrong}, None)


@pytest.mark.parametrize("option", ["seeds", "temperatures", "alphas", "weights", "methods", "pairs", "plugin", "keep"])
@pytest.mark.parametrize("text", [",0.5", "1,,2", ",", ",,"])
def test_an_empty_item_of_a_list_is_refused_by_name(option, text):
    with pytest.raises(InputError, match=rf"{option}: expected values between commas, got '{text}'"):
        bench_config({option: text}, None)


def test_a_comma_may_end_a_list():
    config = bench_config({"temperatures": "2,", "alphas": "0.5, ", "methods": "hinton,at,", "grid": {"at.power": "1,2,"}}, None)
    assert (config.temperatures, config.alphas, config.methods, config.grid) == ((2,), (0.5,), ("hinton", "at"), {"at.power": (1, 2)})

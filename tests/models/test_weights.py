"""Networks in a user's words, and weights that come and go as plain files."""

import subprocess
import sys

import pytest
import timm
import torch
from safetensors.torch import save_file

from kdzoo.errors import InputError
from kdzoo.models.build import build_network
from kdzoo.models.checkpoints import read_checkpoint, read_state
from kdzoo.models.request import parse_network
from kdzoo.models.weights import classes_of, file_sha256, load_state, read_input_transform, save_student
from kdzoo.runs.spec import NetworkSpec
from kdzoo.training.run_networks import weights_path


@pytest.mark.parametrize(
    ("text", "name", "start", "stem", "size"),
    [
        ("resnet34", "resnet34", "random", "standard", None),
        ("resnet34:pretrained", "resnet34", "pretrained", "standard", None),
        ("resnet18@small", "resnet18", "random", "small", None),
        ("vit_tiny_patch16_224@32", "vit_tiny_patch16_224", "random", "standard", 32),
        ("none-0123456789ab", "", "run", "standard", None),
        ("resnet18:at+hinton-0123456789ab@small", "resnet18", "run", "small", None),
    ],
)
def test_a_network_in_words(text, name, start, stem, size):
    found = parse_network(text)
    assert (found.name, found.start, found.stem, found.image_size) == (name, start, stem, size)


def test_words_that_mean_nothing_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        parse_network("resnet18:nowhere.pth")
    with pytest.raises(InputError, match="expected @small or @SIZE"):
        parse_network("resnet18@tiny")
    torch.save({"weight": torch.zeros(2)}, tmp_path / "mine.pth")
    with pytest.raises(InputError, match="which architecture is it"):
        parse_network(str(tmp_path / "mine.pth"))


def test_a_file_says_its_architecture_in_its_name_its_key_or_its_metadata(tmp_path):
    state = timm.create_model("resnet18", num_classes=7).state_dict()
    torch.save(state, tmp_path / "my_resnet18.pth")
    torch.save({"arch": "resnet18", "state_dict": state}, tmp_path / "best.pth.tar")
    save_file(state, tmp_path / "student.safetensors", metadata={"architecture": "resnet18"})
    for file in tmp_path.iterdir():
        found = parse_network(str(file))
        assert (found.name, found.start) == ("resnet18", "file")
        assert classes_of(read_state(file)) == 7


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s, "epoch": 3}, lambda s: {f"module.{k}": v for k, v in s.items()}])
def test_wrappers_and_prefixes_are_seen_through(tmp_path, wrap):
    state = {"fc.weight": torch.ones(3, 2), "fc.bias": torch.zeros(3)}
    torch.save(wrap(state), tmp_path / "w.pth")
    assert read_state(tmp_path / "w.pth").keys() == state.keys()


class Evil:
    def __reduce__(self):
        return (print, ("code in a pickle was run",))


def test_a_whole_model_in_a_pickle_is_told_in_a_line_without_colours(tmp_path):
    torch.save(torch.nn.Sequential(torch.nn.Linear(2, 2)), tmp_path / "whole.pth")
    with pytest.raises(InputError) as refused:
        read_state(tmp_path / "whole.pth")
    assert str(refused.value) == (
        f"weights: {tmp_path}/whole.pth cannot be read as plain tensors: it holds a pickled model or other code "
        "(torch.nn.modules.container.Sequential), which is never run; save model.state_dict() instead"
    )


def test_code_in_a_pickle_is_never_run(tmp_path, capsys):
    torch.save({"x": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(InputError, match="cannot be read as plain tensors"):
        read_state(tmp_path / "evil.pth")
    assert "run" not in capsys.readouterr().out


def test_weights_that_do_not_fit_say_how():
    model = torch.nn.Linear(2, 3)
    with pytest.raises(InputError) as error:
        load_state(model, {"weight": torch.zeros(5, 2), "extra": torch.zeros(1)}, "w.pth")
    for words in ("1 missing: bias", "1 unexpected: extra", "1 of another shape: weight (5, 2), expected (3, 2)"):
        assert words in str(error.value)


def test_a_saved_student_is_loaded_by_plain_timm_and_says_the_same(tmp_path):
    made = build_network(NetworkSpec(name="test_resnet", classes=4), channels=3, side=64, mean=(0.5,) * 3, std=(0.5,) * 3, seed=3).eval()
    save_student(made, tmp_path / "student.safetensors", {"architecture": "test_resnet"})
    images = torch.rand(2, 3, 64, 64)
    torch.save((images, made.model(images).detach()), tmp_path / "expected.pt")
    code = (
        f"import sys, timm, torch; torch.set_num_threads({torch.get_num_threads()})\n"
        "model = timm.create_model('test_resnet', num_classes=4, checkpoint_path=sys.argv[1] + '/student.safetensors').eval()\n"
        "images, expected = torch.load(sys.argv[1] + '/expected.pt')\n"
        "assert torch.equal(model(images), expected)\n"
        "assert 'kdzoo' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)


PIXELS = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


RUN = "none-0123456789ab"
FOREIGN = f"file:{'0' * 64}"
"""a file that another program wrote"""


def reloaded(file, *, channels=3, side=64, name="test_resnet", start=f"run:{RUN}"):
    spec = NetworkSpec(name=name, classes=4, start=start)
    return build_network(spec, channels=channels, side=side, mean=(0.1,) * channels, std=(0.9,) * channels, seed=0, weights=file).eval()


def test_a_run_of_a_pretrained_network_is_reloaded_with_the_normalisation_it_was_trained_with(tmp_path):
    made = build_network(NetworkSpec(name="test_resnet", classes=4), channels=3, side=64, mean=(0.4,) * 3, std=(0.2,) * 3, seed=3).eval()
    save_student(made, tmp_path / "student.safetensors", {"owner": RUN})
    assert torch.equal(reloaded(tmp_path / "student.safetensors").logits(PIXELS), made.logits(PIXELS))


def test_the_weights_of_a_run_are_taken_from_a_file_of_that_run_alone(tmp_path):
    """Of another run, of nobody, with another normalisation beside them: none of them is what the run's id says."""
    made = build_network(NetworkSpec(name="test_resnet", classes=4), channels=3, side=64, mean=(0.4,) * 3, std=(0.2,) * 3, seed=3).eval()
    save_student(made, tmp_path / "another.safetensors", {"owner": "none-ba9876543210"})
    save_file(made.model.state_dict(), tmp_path / "nobody.safetensors", {"owner": RUN})
    save_student(made, tmp_path / "changed.safetensors", {"owner": RUN})
    content = (tmp_path / "changed.safetensors").read_bytes()
    assert content.count(b"0.4") == 3
    (tmp_path / "changed.safetensors").write_bytes(content.replace(b"0.4", b"0.5", 1))
    for name, reason in {"another": "belongs to 'none-ba9876543210'", "nobody": "has no digest", "changed": "digest differs"}.items():
        with pytest.raises(InputError, match=rf"weights: .*{name}.safetensors: .*{reason}.*`kdzoo run"):
            reloaded(tmp_path / f"{name}.safetensors")
    reloaded(tmp_path / "nobody.safetensors", start=FOREIGN)
    with pytest.raises(InputError, match="digest differs"):
        reloaded(tmp_path / "changed.safetensors", start=FOREIGN)


def test_a_file_that_has_changed_since_a_run_was_planned_with_it_is_refused(tmp_path):
    path = tmp_path / "test_resnet.safetensors"
    save_file(timm.create_model("test_resnet", num_classes=4).state_dict(), path)
    spec = NetworkSpec(name="test_resnet", classes=4, start=f"file:{file_sha256(path)}")
    assert weights_path(spec, str(path)) == path
    save_file({key: value + 1 for key, value in timm.create_model("test_resnet", num_classes=4).state_dict().items()}, path)
    with pytest.raises(InputError, match="is not the file that was planned"):
        weights_path(spec, str(path))


def test_a_network_that_resized_its_images_resizes_them_after_a_reload(tmp_path):
    spec = NetworkSpec(name="test_vit", classes=4, image_size=160)
    made = build_network(spec, channels=3, side=64, mean=(0.4,) * 3, std=(0.2,) * 3, seed=3).eval()
    save_student(made, tmp_path / "student.safetensors", {"owner": RUN})
    assert torch.equal(reloaded(tmp_path / "student.safetensors", name="test_vit").logits(PIXELS), made.logits(PIXELS))


def test_grey_images_reach_weights_of_three_channels(tmp_path):
    state = timm.create_model("resnet18", num_classes=4).state_dict()
    save_file(state, tmp_path / "w.safetensors")
    made = reloaded(tmp_path / "w.safetensors", channels=1, name="resnet18", start=FOREIGN)
    assert made.logits(PIXELS[:, :1]).shape == (2, 4)


@pytest.mark.parametrize("name", ["resnet18.pth", "resnet18.safetensors"])
@pytest.mark.parametrize("content", [b"", b"abc", b"PK\x03\x04 not a zip", bytes(64)])
def test_damaged_files_are_refused_in_words(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    for act in (read_state, lambda file: parse_network(str(file))):
        with pytest.raises(InputError, match="resnet18"):
            act(tmp_path / name)


def test_old_checkpoints_and_averaged_models_load(tmp_path):
    state = timm.create_model("test_resnet", num_classes=4).state_dict()
    torch.save({key: value for key, value in state.items() if "num_batches" not in key}, tmp_path / "old.pth")
    torch.save({"n_averaged": torch.tensor(3), **{f"module.{key}": value for key, value in state.items()}}, tmp_path / "averaged.pth")
    for file in tmp_path.iterdir():
        reloaded(file, start=FOREIGN)


@pytest.mark.parametrize("name", ["levit_128s", "vgg11", "densenet121", "mobilenetv3_small_050", "convnext_atto", "resnet56"])
def test_the_classes_of_a_state_whatever_its_order(name):
    state = timm.create_model(name, num_classes=7).state_dict()
    assert classes_of({key: state[key] for key in sorted(state)}) == 7


@pytest.mark.parametrize("said", ["image", "[" * 100_000, "{}", "[0.5]", '{"mean": 0.5, "std": 0.5, "image_size": null}'])
def test_metadata_of_another_program_is_taken_for_nothing_of_ours(tmp_path, said):
    file = tmp_path / "other.safetensors"
    save_file({"fc.weight": torch.zeros(2, 3)}, file, metadata={"input": said, "class_names": said})
    assert read_input_transform(file) is None
    assert read_checkpoint(file).class_names is None

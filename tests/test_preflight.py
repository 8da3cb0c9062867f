"""Bad input: one clear message with the value and the fix, before any work."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from runner import BACKDOOR, CAKE, DFQ, NOISE, make_cell
from safetensors.torch import save_file
from torch import nn

from dfkd.errors import ConfigError
from dfkd.models import cnn_bn
from dfkd.priors import Prior
from dfkd.run.run_cell import run_cell
from dfkd.stages.modality import modality_problems
from dfkd.stages.prepare import prepare

CAKE_PLAIN = ("synthesizer=cake",)
MLPS = ("network@teacher.network=mlp", "network@student.network=mlp")


def refusal(outputs: Path, *overrides: str) -> str:
    """The message with which a cell is refused; nothing was done."""
    with pytest.raises(ConfigError) as raised:
        run_cell(make_cell(outputs, *overrides))
    assert not outputs.exists() or list(outputs.iterdir()) == [], "something was made"
    return str(raised.value)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        # a key that is not there
        (["+teacher.epohcs=3"], ["teacher.epohcs", "did you mean 'epochs'?"]),
        (["+student.network.widht=[8]"], ["student.network.widht", "did you mean 'widths'?"]),
        (["+defense.wieght=3", "defense=atesc"], ["defense.wieght", "did you mean 'weight'?"]),
        ([*CAKE_PLAIN, "+synthesizer.gropus=2"], ["synthesizer.gropus", "did you mean 'groups'?"]),
        (["+prior.tv={_target_: dfkd.priors.TotalVaration}"], ["prior.tv._target_", "did you mean 'TotalVariation'?"]),
        # a number that cannot be
        ([*CAKE_PLAIN, "synthesizer.groups=7"], ["synthesizer", "groups=7 does not divide batch_size=500"]),
        ([*CAKE_PLAIN, "synthesizer.groups=20"], ["groups=20 exceeds", "10 classes"]),
        ([*CAKE_PLAIN, "synthesizer.groups=0"], ["groups", "at least 1", "0"]),
        ([*CAKE_PLAIN, "noise.eps=-0.1"], ["noise", "eps must be positive, got -0.1"]),
        ([*CAKE_PLAIN, "noise.decades=-1"], ["noise", "decades", "-1"]),
        ([*CAKE_PLAIN, "synthesizer.temperature=-1"], ["synthesizer", "temperature", "positive", "-1"]),
        (["student.loss.temperature=-2"], ["student.loss", "temperature must be positive, got -2"]),
        (
            ["defense=atesc", "defense.criterion.eps=-1/255"],
            ["defense.criterion", "eps must not be negative", "-0.0039"],
        ),
        (["defense=atesc", "defense.criterion.eps=abc"], ["defense.criterion: eps", "a number", "auto", "'abc'"]),
        (["defense=atesc", "defense.weight=-1"], ["defense", "weight", "-1"]),
        (["teacher.epochs=0"], ["teacher", "epochs must be at least 1, got 0"]),
        (["teacher.epochs=two"], ["teacher.epochs must be a whole number, got 'two'"]),
        (["student.steps=-1"], ["student", "steps must be at least 1, got -1"]),
        (["student.capacity=0"], ["student", "capacity must be at least 1, got 0"]),
        (["student.recipe.lr=0"], ["student.recipe", "lr > 0", "lr=0"]),
        (["teacher.recipe.momentum=1"], ["teacher.recipe", "momentum in [0, 1)", "momentum=1"]),
        (["synthesizer.batch_size=1"], ["synthesizer", "batch_size >= 2", "1"]),
        (["synthesizer.rounds=0"], ["synthesizer", "rounds must be at least 1, got 0"]),
        (["evaluate.checks=0"], ["evaluate.checks", "at least 1, got 0"]),
        (
            ["evaluate.premise.eps=[4/255,-1/255]"],
            ["evaluate.premise.eps must be positive numbers such as 4/255, got '-1/255'"],
        ),
        (
            ["evaluate.premise.eps=[4/255,abc]"],
            ["evaluate.premise.eps must be positive numbers such as 4/255, got 'abc'"],
        ),
        ([*BACKDOOR, "ntl_scenario.target=10"], ["ntl_scenario", "0..9, got 10"]),
        ([*BACKDOOR, "ntl_scenario.trigger.size=30"], ["ntl_scenario", "30-pixel patch", "16x16"]),
        (
            [*BACKDOOR, "trigger@ntl_scenario.trigger=image", "ntl_scenario.trigger.path=no.png"],
            ["ntl_scenario.trigger: there is no", "no.png", "trigger.path=FILE.png"],
        ),
        ([*BACKDOOR, "teacher.clean_label=true"], ["teacher", "clean_label=true", "poison_rate=0.1"]),
        ([*BACKDOOR, "teacher.poison_rate=0.4", "teacher.clean_label=true"], ["teacher", "poison_rate=0.4 asks for"]),
        (
            ["defense=atesc", "criterion@defense.criterion=entropy", "defense.criterion.value=1"],
            ["defense.criterion: set exactly one of value and quantile", "value=1", "quantile=0.5"],
        ),
        (
            ["defense=atesc", "criterion@defense.criterion=feature_distance", "teacher.network.norm=none", "~prior.bn"],
            ["defense: criterion=feature_distance compares with BatchNorm statistics"],
        ),
        (
            ["defense=atesc", "criterion@defense.criterion=oracle"],
            ["defense.criterion: criterion=oracle needs an OOD domain", "ntl_scenario=close_set"],
        ),
        (["data.channels=2"], ["ntl_scenario.id", "2", "1, 3 or null"]),
        # a word that is none of the possible ones
        (["student.recipe.optimizer=sgdd"], ["student.recipe", "sgd, adam, adamw", "'sgdd'"]),
        (["teacher.augment=flips"], ["teacher", "none, shift, crop_flip", "'flips'"]),
        (["teacher.network.norm=bacth"], ["teacher.network", "'batch' or 'none'", "'bacth'"]),
        (
            ["runtime.precision=tf32", "runtime.device=cpu"],
            ["runtime.precision=tf32", "has no TF32; set float32, or auto"],
        ),
        (["runtime.precision=half"], ["runtime.precision", "auto, float32, tf32 or bfloat16", "'half'"]),
        (["runtime.device=gpu"], ["runtime.device", "auto, cpu, cuda or cuda:N", "'gpu'"]),
        (["student.loss=l1"], ["student: loss must be a loss, as loss@student.loss=kl chooses it, got 'l1'"]),
        # parts that do not go together
        (["teacher=ntl"], ["teacher=ntl needs an OOD domain", "ntl_scenario=close_set"]),
        (["ntl_scenario=open_set", "teacher=hntl"], ["teacher=hntl has no form with a taught label", "close_set"]),
        (["ntl_scenario=open_set", "teacher=sophon"], ["teacher=sophon has no form with a taught label", "close_set"]),
        (
            ["~prior.bn", "ntl_scenario=close_set", "teacher=cuti", "network@teacher.network=mlp"],
            ["teacher=cuti works on feature maps", "names no stages"],
        ),
        (["teacher=backdoor"], ["teacher=backdoor needs an OOD domain", "backdoor"]),
        (["teacher.network.norm=none"], ["no BatchNorm", "~prior.bn"]),
        (["network@teacher.network=lenet"], ["teacher.network", "28 to 32 pixels", "16x16", "data.size"]),
        (["defense=abd", *CAKE_PLAIN], ["defense: the vaccine is a term of a generator's loss", "defense.vaccine=0"]),
        (
            ["defense=abd", "network@teacher.network=mlp", "~prior.bn"],
            ["defense: the vaccine shuffles input channels of convolutions", "defense.vaccine=0"],
        ),
        (
            ["defense=dhbe", "defense.size=20"],
            ["defense: a patch of 20x20 pixels does not fit images of 16x16", "size to 16"],
        ),
        (["defense=abd", "defense.share=2"], ["defense", "share must lie in (0, 1], got 2"]),
        (["network@student.network=lenet"], ["student.network", "28 to 32 pixels", "16x16", "data.size"]),
        (["student=offline"], ["synthesizer=dfq", "student.steps", "student=online"]),
        ([*CAKE_PLAIN, "student=online"], ["synthesizer=cake", "student.epochs", "student=offline"]),
        (
            ["ntl_scenario=close_set", "domain@ntl_scenario.ood=tinted", "+ntl_scenario.ood.of.channels=3"],
            ["1x16x16", "3x16x16", "data.channels"],
        ),
        (
            ["ntl_scenario=close_set", "domain@ntl_scenario.ood=circles"],
            ["'digits' is a domain of images, and 'circles' one of points", "of the same kind"],
        ),
        (
            [*CAKE_PLAIN, "domain@ntl_scenario.id=clusters", "network@teacher.network=mlp", "synthesizer.groups=2"],
            ["student.network", "cnn_bn", "got 2x1"],
        ),
        (
            ["synthesizer=cake_2d", "domain@ntl_scenario.id=clusters", *MLPS, "student.augment=shift"],
            ["student.augment=shift", "points", "set it to none"],
        ),
        (["synthesizer=cake", "prior=bn_ema"], ["synthesizer", "'bn_ema' carries statistics", "prior=bn"]),
        (["synthesizer=fast", "synthesizer.warm_up=1", "synthesizer.rounds=1"], ["warm_up=1 with rounds=1"]),
        (["synthesizer=fast", "teacher.network.norm=none"], ["no BatchNorm", "~prior.bn_ema"]),
        (["synthesizer=cmi", "teacher.network.norm=none", "~prior.bn"], ["cmi contrasts", "synthesizer.contrast=0"]),
        (["synthesizer=nayer", "generator@synthesizer.generator=dcgan"], ["noisy layer", "DCGAN", "=nayer"]),
        (["synthesizer=nayer", "synthesizer.embeddings=open_clip"], ["names of the 10 classes", "synthesizer.labels"]),
        (["synthesizer=deepinversion", "synthesizer.jitter=16"], ["jitter must lie in [0, 16)", "16"]),
        (["synthesizer=cake_generator", "synthesizer.generator.latent=10"], ["latent", "10 numbers, 10 of which"]),
        # files that are not there, nothing is downloaded
        (["domain@ntl_scenario.id=mnist", "data.root=nowhere"], ["MNIST is not in", "nowhere", "data.download=true"]),
        (["domain@ntl_scenario.id=cifar10", "data.root=nowhere"], ["CIFAR10 is not in", "data.download=true"]),
        (["domain@ntl_scenario.id=npz", "ntl_scenario.id.path=no.npz"], ["there is no", "no.npz", "path=FILE.npz"]),
        (
            ["domain@ntl_scenario.id=image_folder", "ntl_scenario.id.path=nowhere", "data.size=16"],
            ["there is no", "nowhere/train", "train/<class>/"],
        ),
        (["domain@ntl_scenario.id=image_folder", "ntl_scenario.id.path=nowhere"], ["data.size"]),
    ],
    ids=lambda value: " ".join(value) if value and "=" in value[-1] and " " not in value[-1] else "",
)
def test_a_mistake_is_named_with_its_fix_before_any_work(tmp_path, overrides, said):
    message = refusal(tmp_path, *overrides)
    for words in said:
        assert words in message
    assert len(message.splitlines()) == 1


def test_a_folder_for_results_that_cannot_be_made(tmp_path):
    (tmp_path / "o").write_text("a file")
    with pytest.raises(ConfigError, match=r"outputs=.*o cannot be written to .*; set outputs=DIR"):
        prepare(make_cell(tmp_path / "o"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_asked_for_and_absent(tmp_path):
    message = refusal(tmp_path, *DFQ, "runtime.device=cuda")
    assert "runtime.device=cuda" in message and "runtime.device=auto" in message


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["prior.bn=3"], "prior.bn"),
        (["prior.bn.weight=-1"], "prior.bn"),
        (["teacher.network.widths=16"], "teacher.network"),
        (["teacher.network.widths=[16,x]"], "teacher.network"),
        (["teacher.network.widths=[-4]"], "teacher.network"),
        (["synthesizer.betas=0.5"], "synthesizer"),
        ([*BACKDOOR, "teacher=ntl", "teacher.bandwidths=3"], "teacher"),
        (["+student.keep.eps=3"], "keep.eps"),
        (["evaluate.premise.eps=0.03"], "evaluate.premise.eps"),
        (["evaluate.premise.eps=4/255"], "evaluate.premise.eps"),
        (["data.size=-3"], "size"),
        (["data.size=big"], "size"),
        (["runtime.chunk=many"], "runtime.chunk"),
        (["runtime.threads=two"], "runtime.threads"),
        (["+runtime.chunks=10"], "runtime.chunks"),
        (["seed=abc"], "seed"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_value_of_the_wrong_kind_is_named(tmp_path, overrides, said):
    message = refusal(tmp_path, *overrides)
    assert said in message and len(message.splitlines()) == 1


@pytest.mark.parametrize("value", ["nan", "-inf", "1e999"])
def test_every_value_that_is_not_finite_is_named(tmp_path, value):
    keys = [
        *("prior.bn.weight", "teacher.recipe.lr", "teacher.epochs", "student.steps", "student.loss.temperature"),
        *("evaluate.checks", "evaluate.premise.steps", "data.limit", "runtime.threads", "attack.eps", "limit.epochs"),
    ]
    lines = refusal(tmp_path, "defense=atesc", *(f"{key}={value}" for key in keys)).splitlines()
    assert {f"{key} must be a finite number, got {float(value)}" for key in keys} <= set(lines)
    assert all("must be a finite number" in line for line in lines)


def test_all_mistakes_are_told_at_once(tmp_path):
    message = refusal(tmp_path, "teacher.epochs=two", "+student.stps=1", "+prior.bn.wieght=1", "+noise.epss=1")
    assert len(message.splitlines()) == 4
    message = refusal(tmp_path, "teacher.epochs=0", "student.steps=0", "prior.bn.weight=1", "synthesizer.rounds=0")
    assert len(message.splitlines()) == 3


def test_a_column_the_pool_will_not_have_is_refused_before_any_work(tmp_path):
    assert "eps" in refusal(tmp_path, *NOISE, "+student.keep.eps=[1e-3,1e-2]")


def test_data_limit_holds_for_every_domain(tmp_path):
    components = prepare(make_cell(tmp_path, *DFQ, "data.limit=50"))
    scenario = components.scenario
    assert max(len(part) for part in (scenario.id.train, scenario.id.val, scenario.id.test)) <= 50


# Checkpoints of others.


class RunsCode:
    """A pickle that touches a file when it is loaded."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def checkpoint(file: Path) -> tuple[str, ...]:
    return (*DFQ, "teacher=checkpoint", f"teacher.path={file}", "teacher.mean=[0.3]", "teacher.std=[0.4]")


def test_a_checkpoint_that_fits_is_taken(tmp_path):
    net = cnn_bn((1, 16, 16), 10)
    torch.save({"state_dict": {f"module.{k}": v for k, v in net.state_dict().items()}}, tmp_path / "teacher.pt")
    components = prepare(make_cell(tmp_path / "o", *checkpoint(tmp_path / "teacher.pt")))
    for key, value in components.teacher.network.state_dict().items():
        assert torch.equal(value, net.state_dict()[key])


def test_a_missing_checkpoint(tmp_path):
    message = refusal(tmp_path / "o", *checkpoint(tmp_path / "none.pt"))
    assert "there is no checkpoint" in message and "none.pt" in message and "teacher.path" in message


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_a_truncated_checkpoint(tmp_path, suffix):
    file, weights = tmp_path / f"teacher.{suffix}", cnn_bn((1, 16, 16), 10).state_dict()
    save_file(weights, file) if suffix == "safetensors" else torch.save(weights, file)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    message = refusal(tmp_path / "o", *checkpoint(file))
    assert str(file) in message and "truncated" in message


@pytest.mark.parametrize("content", [b"", b"weights", bytes(100)])
@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_a_file_that_is_no_checkpoint(tmp_path, suffix, content):
    file = tmp_path / f"teacher.{suffix}"
    file.write_bytes(content)
    assert str(file) in refusal(tmp_path / "o", *checkpoint(file))


@pytest.mark.parametrize("plain", [True, False])
def test_a_pickle_that_would_run_code_is_refused_and_does_not(tmp_path, plain):
    file, mark = tmp_path / "teacher.pt", tmp_path / "it-ran"
    if plain:
        file.write_bytes(pickle.dumps({"state_dict": RunsCode(mark)}))
    else:
        torch.save({"state_dict": RunsCode(mark)}, file)
    message = refusal(tmp_path / "o", *checkpoint(file))
    assert str(file) in message and "could run code" in message and "safetensors" in message
    assert not mark.exists()


@pytest.mark.parametrize(
    ("shape", "classes", "said"),
    [
        ((1, 32, 32), 10, "head.weight"),
        ((3, 16, 16), 10, "(16, 3, 3, 3) instead of (16, 1, 3, 3)"),
        ((1, 16, 16), 7, "(7, 256) instead of (10, 256)"),
    ],
)
def test_a_checkpoint_of_another_shape_or_of_other_classes(tmp_path, shape, classes, said):
    save_file(cnn_bn(shape, classes).state_dict(), tmp_path / "teacher.safetensors")
    message = refusal(tmp_path / "o", *checkpoint(tmp_path / "teacher.safetensors"))
    assert "do not fit the network" in message and said in message and str(tmp_path) in message


def test_a_checkpoint_of_another_network(tmp_path):
    save_file(cnn_bn((1, 16, 16), 10, norm="none").state_dict(), tmp_path / "teacher.safetensors")
    message = refusal(tmp_path / "o", *checkpoint(tmp_path / "teacher.safetensors"))
    assert "missing" in message and "Choose the network they were trained with" in message


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("head.weight", torch.nan, "head.weight has 1 NaN or infinite values"),
        ("body.1.running_var", -1.0, "body.1.running_var has the negative variance -1"),
    ],
)
def test_a_checkpoint_of_broken_weights(tmp_path, key, value, said):
    weights = cnn_bn((1, 16, 16), 10).state_dict()
    weights[key].view(-1)[0] = value
    save_file(weights, tmp_path / "teacher.safetensors")
    message = refusal(tmp_path / "o", *checkpoint(tmp_path / "teacher.safetensors"))
    assert f"teacher: the weights in {tmp_path}" in message and said in message and len(message.splitlines()) == 1


@pytest.mark.parametrize(
    ("key", "value"),
    [("mean", "[0.1,0.2]"), ("std", "[0]"), ("mean", "[125.3]"), ("mean", "[nan]"), ("std", "[inf]"), ("std", "[-1]")],
)
def test_a_normalisation_that_does_not_fit(tmp_path, key, value):
    save_file(cnn_bn((1, 16, 16), 10).state_dict(), tmp_path / "teacher.safetensors")
    message = refusal(tmp_path / "o", *checkpoint(tmp_path / "teacher.safetensors"), f"teacher.{key}={value}")
    assert key in message


# Images of one's own.


def save_npz(file: Path, **changes: np.ndarray) -> tuple[str, ...]:
    rng = np.random.RandomState(0)
    arrays = {"x_train": rng.rand(60, 16, 16), "y_train": np.arange(60) % 3}
    arrays |= {"x_test": rng.rand(30, 16, 16), "y_test": np.arange(30) % 3} | changes
    np.savez(file, **arrays)
    return (*CAKE, "synthesizer.groups=2", "domain@ntl_scenario.id=npz", f"ntl_scenario.id.path={file}")


def test_images_of_ones_own_are_taken(tmp_path):
    components = prepare(make_cell(tmp_path / "o", *save_npz(tmp_path / "mine.npz")))
    assert components.scenario.id.classes == 3 and components.scenario.id.shape == (1, 16, 16)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"x_train": np.full((60, 16, 16), 200.0)}, "[0, 1]"),
        ({"x_train": np.zeros((60, 4))}, "shape"),
        ({"y_train": np.arange(5)}, "60 examples but 5 labels"),
        ({"y_test": np.full(30, -1)}, "labels -1"),
        ({"x_test": np.array([object()] * 30)}, "mine.npz"),
    ],
)
def test_images_of_ones_own_that_cannot_be(tmp_path, changes, said):
    message = refusal(tmp_path / "o", *save_npz(tmp_path / "mine.npz", **changes))
    assert "ntl_scenario.id" in message and said in message


def test_data_with_fewer_classes_than_the_checkpoint(tmp_path):
    save_file(cnn_bn((1, 16, 16), 10).state_dict(), tmp_path / "teacher.safetensors")
    data = save_npz(tmp_path / "mine.npz")
    message = refusal(tmp_path / "o", *data, *checkpoint(tmp_path / "teacher.safetensors")[len(DFQ) :])
    assert "(10, 256) instead of (3, 256)" in message


def test_points_are_refused_by_what_keeps_8_bit_images(tmp_path):
    points = ("domain@ntl_scenario.id=two_moons", "network@teacher.network=mlp", "network@student.network=mlp")
    mlp = "generator@synthesizer.generator=mlp"
    with pytest.raises(ConfigError, match=r"synthesizer=fast makes images, and 'two_moons' is a domain of points.*mlp"):
        prepare(make_cell(tmp_path, "synthesizer=fast", *points, mlp, "~prior.bn_ema", "student.augment=none"))
    prepare(make_cell(tmp_path, "synthesizer=dfq", *points, mlp, "~prior.bn"))
    prepare(make_cell(tmp_path, "synthesizer=cake_generator", *points, mlp))


# Embeddings of one's own: no pixels, no neighbours, no range.


def embeddings_of_ones_own(folder: Path) -> tuple[str, ...]:
    rng = np.random.RandomState(0)
    arrays = {"x_train": rng.randn(60, 6), "y_train": np.arange(60) % 3}
    np.savez(folder / "vectors.npz", **arrays, x_test=rng.randn(30, 6), y_test=np.arange(30) % 3)
    return ("domain@ntl_scenario.id=embeddings", f"ntl_scenario.id.path={folder / 'vectors.npz'}")


KIND = "'vectors' is a domain of embeddings"
MLP_GENERATOR = "generator@synthesizer.generator=mlp"
BOTH = (
    *("ntl_scenario=close_set", "domain@ntl_scenario.ood=embeddings"),
    "ntl_scenario.ood.path=${ntl_scenario.id.path}",
)
NO_PIXELS = ("synthesizer=dfq", *MLPS, MLP_GENERATOR, "prior=balance")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["+prior.tv={_target_: dfkd.priors.TotalVariation}"], [f"prior.tv compares neighbouring pixels, and {KIND}"]),
        (["+prior.d={_target_: dfkd.priors.DiagonalTotalVariation}"], ["prior.d compares", "~prior.d"]),
        (["+prior.l={_target_: dfkd.priors.TotalVariationL2}"], ["prior.l compares", "~prior.l"]),
        (["teacher.augment=shift"], [f"teacher.augment=shift moves pixels, and {KIND}", "set it to none"]),
        (["student.augment=cut_mix"], [f"student.augment=cut_mix moves pixels, and {KIND}", "set it to none"]),
        (["network@teacher.network=resnet4"], [f"teacher.network convolves neighbouring pixels, and {KIND}", "=mlp"]),
        (["network@student.network=wrn_16_1"], [f"student.network convolves neighbouring pixels, and {KIND}", "=mlp"]),
        (["network@student.network=cnn_bn"], ["student.network", "got 1x1", "points and embeddings need mlp"]),
        (["generator@synthesizer.generator=dcgan"], ["synthesizer.generator", "not 1x1", MLP_GENERATOR]),
        (["generator@synthesizer.generator=resnet_cbn"], ["synthesizer.generator", "not 1x1", MLP_GENERATOR]),
        (
            ["synthesizer=fast", "prior=none", "student.augment=none"],
            [f"synthesizer=fast makes images, and {KIND}", "cake_2d", MLP_GENERATOR],
        ),
        ([*BACKDOOR], ["a trigger is stamped on images", KIND, "ntl_scenario=none, close_set or open_set"]),
        (["ntl_scenario=open_set"], [KIND, "'textured_digits' one of images", "of the same kind"]),
        ([*BOTH, "teacher=hntl"], [f"teacher=hntl paints images in [0, 1], and {KIND}", "another teacher"]),
    ],
    ids=lambda value: value[0],
)
def test_what_makes_no_sense_of_embeddings_is_named_with_what_to_set_instead(tmp_path, overrides, said):
    chosen = {o.partition("=")[0]: o for o in (*NO_PIXELS, *overrides)}
    message = refusal(tmp_path / "o", *embeddings_of_ones_own(tmp_path), *chosen.values())
    for words in said:
        assert words in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize("synthesizer", ["dafl", "zskt", "dfad", "mad", "cake_generator"])
def test_what_makes_sense_of_embeddings_is_taken(tmp_path, synthesizer):
    chosen = (f"synthesizer={synthesizer}", *NO_PIXELS[1:])
    prepare(make_cell(tmp_path / "o", *embeddings_of_ones_own(tmp_path), *chosen))


def test_a_generator_of_ones_own_may_not_convolve_embeddings_either(tmp_path):
    components = prepare(make_cell(tmp_path / "o", *embeddings_of_ones_own(tmp_path), *NO_PIXELS))
    assert list(modality_problems(components, Prior({}), "dfq")) == []
    components.synthesizer.generator = nn.Sequential(
        nn.Linear(8, 6), nn.Unflatten(1, (1, 6)), nn.Conv1d(1, 1, 3, padding=1)
    )
    (problem,) = modality_problems(components, Prior({}), "dfq")
    assert problem == f"synthesizer.generator convolves neighbouring pixels, and {KIND}; choose {MLP_GENERATOR}"


def test_a_single_class_is_refused(tmp_path):
    one = {"y_train": np.zeros(60, int), "y_test": np.zeros(30, int)}
    for more in ((), ("defense=atesc",)):
        message = refusal(tmp_path / "o", *save_npz(tmp_path / "mine.npz", **one), *more)
        assert message.startswith("ntl_scenario.id: 'mine' has one class") and len(message.splitlines()) == 1


def test_what_looks_like_a_mistake_in_images_of_ones_own_is_told_before_any_work(tmp_path):
    odd = {"x_test": np.zeros((30, 16, 16)), "y_test": np.arange(30) % 2}
    warnings = prepare(make_cell(tmp_path / "o", *save_npz(tmp_path / "mine.npz", **odd))).warnings
    assert warnings[:2] == [
        "domain 'mine': 1 of 3 classes have no test image: what has none is not tested (2)",
        "domain 'mine': the test images are all black; were they scaled wrongly?",
    ]


def test_labels_of_an_ood_domain_that_mean_nothing_are_not_looked_at(tmp_path):
    data = save_npz(tmp_path / "mine.npz")
    save_npz(tmp_path / "ood.npz", y_train=np.zeros(60, int), y_test=np.zeros(30, int))
    ood = ("domain@ntl_scenario.ood=npz", f"ntl_scenario.ood.path={tmp_path / 'ood.npz'}")
    for scenario, said in (("open_set", 0), ("close_set", 2)):
        components = prepare(
            make_cell(tmp_path / "o", f"ntl_scenario={scenario}", *data, *ood, "ntl_scenario.ood.classes=3")
        )
        assert sum("domain 'ood'" in warning for warning in components.warnings) == said

"""`dfkd-audit FILE network@teacher.network=NAME`: is the classifier in this file trapped? Without any data.

The file is read as by teacher=checkpoint, and no code of it is run. The exit code is 0 if nothing unusual was found, 3
if the classifier is probably trapped, 4 if the audit cannot tell, and 1 after a mistake.
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dfkd.cli.fits import Fit, all_fits
from dfkd.cli.inspect import beside, quoted
from dfkd.config.build import Builder, not_finite
from dfkd.config.messages import explain
from dfkd.config.paths import path
from dfkd.errors import ConfigError
from dfkd.machine.environment import prepare_environment
from dfkd.sweeps.compose import composed
from dfkd.weights import read
from dfkd.weights.entries import entries

if TYPE_CHECKING:
    from dfkd.models import Teacher

EXIT = {"not trapped": 0, "trapped": 3, "cannot tell": 4}
SIDE = 32  # pixels, where the weights do not determine it
NETWORK, ENTRY = "network@teacher.network", "teacher.entry"


@dataclass(frozen=True)
class Given:
    """The command line.

    Attributes:
        words: overrides as on the command line of `dfkd`.
        size, channels, classes: of images and network; None for what the weights say.
        to: folder of the page; None for FILE.audit beside the file.
    """

    file: Path
    words: list[str]
    size: int | None = None
    channels: int | None = None
    classes: int | None = None
    to: Path | None = None

    @property
    def describes_teacher(self) -> bool:
        """Whether it says anything about the teacher, its images or its classes."""
        of_teacher = any(word.startswith(("teacher.", NETWORK)) for word in self.words)
        return of_teacher or any(value is not None for value in (self.size, self.channels, self.classes))

    def word(self, key: str) -> str | None:
        """Return the value of an override, or None."""
        return next((word.partition("=")[2] for word in self.words if word.startswith(f"{key}=")), None)


def cli(arguments: list[str] | None = None) -> None:
    """Run the command, and exit with the code of its verdict."""
    parser = argparse.ArgumentParser("dfkd-audit", description=__doc__.partition(": ")[2])
    parser.add_argument("file", type=path, metavar="FILE", help="a state dict of torch.save, safetensors, or npz")
    parser.add_argument("words", nargs="*", metavar="KEY=VALUE", help="options of teacher, stages.audit and runtime")
    parser.add_argument("--size", type=int, help=f"side of the images in pixels ({SIDE}, or as the weights say)")
    parser.add_argument("--channels", type=int, help="1 or 3 (as the weights say)")
    parser.add_argument("--classes", type=int, help="number of classes (as the weights say)")
    parser.add_argument("--to", type=path, metavar="DIR", help="where audit.html and audit.json go (FILE.audit)")
    try:
        prepare_environment()
        sys.exit(EXIT[run(Given(**vars(parser.parse_intermixed_args(arguments))))])
    except (ConfigError, HydraException, OmegaConfBaseException, OSError) as error:
        sys.exit(f"dfkd-audit: {explain(error)}")


def run(given: Given) -> str:
    """Audit the classifier in a file, write the page and the JSON, print the verdict, and return its answer.

    Raises:
        ConfigError: the file cannot be read, fits no network or several, or an option is wrong.
    """
    from dfkd.audit import Effort, headline, judge, look, page, why_not
    from dfkd.machine.precision import float32_arithmetic
    from dfkd.machine.runtime import make_runtime

    config, builder = configuration(given), Builder()
    options = {key: value for key, value in config["stages"]["audit"].items() if key not in ("_target_", "always")}
    runtime = builder.call(make_runtime, config["runtime"], "runtime")
    effort = builder.call(Effort, options, "stages.audit")
    builder.problems += not_finite(config)
    builder.raise_problems()
    teacher = runtime.to_device(described(given) or fitted(given))
    if why := why_not(teacher.classes):
        raise ConfigError(f"{given.file}: {why}")
    channels, height, width = teacher.shape
    print(
        f"a classifier of {teacher.classes} classes, {channels}x{height}x{width} images, on {runtime.device}",
        flush=True,
    )
    with float32_arithmetic("ieee"):
        looks = look(teacher, runtime, config["seeds"]["synthesis"], effort, _told)
    verdict = judge(looks)
    folder = given.to or given.file.with_name(f"{given.file.name}.audit")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "audit.html").write_text(page(given.file.name, looks, verdict), encoding="utf-8")
    told = {"file": str(given.file)} | verdict.to_json() | {"looks": looks.to_json()}
    (folder / "audit.json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    print(headline(verdict), verdict.advice, f"open {folder / 'audit.html'}", sep="\n")
    return verdict.answer


def _told(look: str, seconds: float) -> None:
    print(f"  {look.replace('_', ' ')} {seconds:.1f} s", flush=True)


def described(given: Given) -> "Teacher | None":
    """Return the teacher of weights that dfkd wrote, with the JSON file that it writes beside them; None if there is no
    such file, or if the user describes the teacher, whose words then count."""
    from dfkd.models import Teacher, load_classifier

    about = given.file.with_suffix(".json")
    if given.describes_teacher or not beside(given.file):
        return None
    model = load_classifier(about)
    return Teacher.of(model)


def fitted(given: Given) -> "Teacher":
    """Return the teacher of weights of any origin.

    Raises:
        ConfigError: see `run`.
    """
    from dfkd.models import Teacher

    own, channels, classes, size = [], given.channels, given.classes, given.size
    if given.word(NETWORK) is None or channels is None or classes is None:
        fit = chosen_fit(given)
        own = [f"{NETWORK}={fit.network}"]
        own += [word for word in fit.settings.overrides() if word.startswith("teacher.")]
        own += [] if fit.part.mean else beside(given.file)
        channels, classes, size = channels or fit.channels, classes or fit.classes, size or fit.settings.size
    shape = (channels, size or SIDE, size or SIDE)
    config = configuration(given, own)
    builder = Builder(shape=shape, classes=classes, box=(0.0, 1.0))
    source = builder.build(config["teacher"], "teacher")
    builder.raise_problems()
    try:
        return Teacher(source.network, shape, classes, source.mean, source.std)
    except ValueError as error:
        raise ConfigError(
            f"teacher.network: {error}; set --size, --channels and --classes to those of the network"
        ) from error


def chosen_fit(given: Given) -> Fit:
    """Return the network and the entry of the file that belong together.

    Raises:
        ConfigError: there is none, or the user has to choose among several.
    """
    file, named, entry = given.file, given.word(NETWORK), given.word(ENTRY)
    every = [fit for fit in all_fits(entries(read(file))) if entry in (None, fit.part.path)]
    fits = [fit for fit in every if named in (None, fit.network)]
    networks, paths = (dict.fromkeys(f.network for f in fits), dict.fromkeys(f.part.path for f in fits))
    if not fits:
        known = ", ".join(dict.fromkeys(fit.network for fit in every)) or "none of conf/network"
        raise ConfigError(
            f"{file} fits {known}{f', not {named}' if named else ''}; if it is a network with other options, name it "
            f"by {NETWORK}=NAME with its options, --channels and --classes"
        )
    if len(networks) > 1:
        raise ConfigError(f"{file} fits several networks: choose one of {', '.join(networks)} by {NETWORK}=NAME")
    if len(paths) > 1:
        raise ConfigError(f"{file} holds several sets of weights: choose one of {', '.join(paths)} by {ENTRY}=NAME")
    return fits[0]


def configuration(given: Given, own: list[str] = ()) -> dict:
    """Return the configuration of the file's teacher.

    Args:
        own: overrides that were found out; those of the user win.
    """
    words = ["teacher=checkpoint", f"teacher.path={quoted(str(given.file))}", *own]
    keys = {word.partition("=")[0] for word in given.words}
    words = [word for word in words if word.partition("=")[0] not in keys]
    return OmegaConf.to_container(composed(*words, *given.words), resolve=True)

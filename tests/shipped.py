"""The options that are shipped, built small: for the tests that hold for all of them."""

import copy
import functools

from omegaconf import OmegaConf
from runner import composed

from dfkd.config.build import Builder
from dfkd.config.cell import apply_limit
from dfkd.main import CONF
from dfkd.priors import Prior
from dfkd.synthesizers import Synthesizer

# Upper limits for every number of that name.
SMALL = {
    "rounds": 2,
    "warm_up": 0,
    "batch_size": 20,
    "images": 8,
    "bank": 40,
    "negatives": 20,
    "width": 8,
    "start": 16,
    "hidden": 8,
    "latent": 16,
    "embedding": 16,
    "noise": 8,
}


def options(group: str) -> list[str]:
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


@functools.cache
def _composed(overrides: tuple[str, ...]) -> dict:
    return OmegaConf.to_container(composed(*overrides), resolve=True)


def config(*overrides: str) -> dict:
    """A configuration as plain dicts; composed once."""
    return copy.deepcopy(_composed(overrides))


def build(node: dict, where: str, **context):
    """The object of a node, or a failure with all its problems."""
    builder = Builder(**context)
    made = builder.build(node, where)
    builder.raise_problems()
    return made


def synthesizer(name: str, batch_norm: bool = True, steps: int = 1, **context) -> Synthesizer:
    """A shipped synthesizer with the smallest numbers, not started.

    Args:
        batch_norm: False leaves out the priors that compare BatchNorm statistics.
        steps: on the images of a round, or of the generator.
        context: what components ask for: shape, classes, box, real, chunk.
    """
    chosen = config(f"synthesizer={name}")
    apply_limit(chosen, SMALL | {"snapshots": steps})
    chosen["synthesizer"] |= {key: steps for key in ("steps", "training_steps") if key in chosen["synthesizer"]}
    terms = build(chosen["prior"], "prior", **context)
    context["prior"] = Prior({key: term for key, term in terms.items() if batch_norm or not term.needs_batch_norm})
    context["noise"] = build(chosen["noise"], "noise", **context)
    return build(chosen["synthesizer"], "synthesizer", **context)

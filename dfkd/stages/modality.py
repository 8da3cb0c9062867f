"""Checks of components that make no sense for a domain's modality (images, points, embeddings, ...)."""

from collections.abc import Iterator

from torch import nn

from dfkd.domains import Domain
from dfkd.models import has_convolutions
from dfkd.priors import Prior
from dfkd.stages.components import Components

MLP = "generator@synthesizer.generator=mlp"


def modality_problems(components: Components, prior: Prior, name: str) -> Iterator[str]:
    """Yield a message about every component that does not fit the modality of the ID domain, with what to set instead.

    Args:
        components: the objects of the run.
        prior: the prior of the synthesizer.
        name: name of the synthesizer.
    """
    domain = components.scenario.id
    if components.synthesizer.needs_box and domain.modality.box is None:
        yield f"synthesizer={name} makes images, and {_kind(domain)}; choose cake_2d, or cake_generator with {MLP}"
    if not domain.modality.neighbours:
        yield from _neighbour_problems(components, prior)


def _neighbour_problems(components: Components, prior: Prior) -> Iterator[str]:
    """Yield a message about every component that treats adjacent values as neighbouring pixels."""
    domain = components.scenario.id
    for who, augment in (("teacher", components.teacher.augment), ("student", components.student.augment)):
        if augment != "none":
            yield f"{who}.augment={augment} moves pixels, and {_kind(domain)}; set it to none"
    networks = [
        ("teacher.network", components.teacher.network, "network@teacher.network=mlp"),
        ("student.network", components.student.network, "network@student.network=mlp"),
        ("synthesizer.generator", components.synthesizer.generator, MLP),
    ]
    for where, network, instead in networks:
        if isinstance(network, nn.Module) and has_convolutions(network):
            yield f"{where} convolves neighbouring pixels, and {_kind(domain)}; choose {instead}"
    for term in (term for term, made in prior.terms.items() if made.needs_neighbours):
        yield f"prior.{term} compares neighbouring pixels, and {_kind(domain)}; leave it out (~prior.{term})"


def _kind(domain: Domain) -> str:
    return f"'{domain.name}' is a domain of {domain.modality.name}"

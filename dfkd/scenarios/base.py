"""The class of scenarios."""

from dataclasses import dataclass

from dfkd.domains import Domain


@dataclass
class Scenario:
    """The domains on which a teacher is trained, and on which teacher and students are evaluated.

    Attributes:
        id: the ID domain, on which the teacher is right.
        ood: the OOD domain, on which the teacher is deliberately wrong, or None.
        ood_label: the single label taught on the OOD domain (open_set, backdoor), or None (close_set).
        shared_labels: whether OOD labels mean the same classes as ID labels, so that accuracy on OOD images is defined.
        backdoor: whether OOD images are ID images with a trigger, so that the attack success rate is defined.

    Raises:
        ValueError: the domains differ in modality or shape; labels are shared but the numbers of classes differ; or
            ood_label is not a class.
    """

    id: Domain
    ood: Domain | None = None
    ood_label: int | None = None
    shared_labels: bool = False
    backdoor: bool = False

    def __post_init__(self):
        if self.ood is not None and self.ood.modality != self.id.modality:
            raise ValueError(
                f"'{self.id.name}' is a domain of {self.id.modality.name}, and '{self.ood.name}' one of "
                f"{self.ood.modality.name}; choose an OOD domain of the same kind"
            )
        if self.ood is not None and self.ood.shape != self.id.shape:
            raise ValueError(
                f"ID images of '{self.id.name}' are {_size(self.id)}, OOD images of '{self.ood.name}' are "
                f"{_size(self.ood)}; set data.size and data.channels to bring them together"
            )
        if self.shared_labels and self.ood.classes != self.id.classes:
            raise ValueError(
                f"'{self.id.name}' has {self.id.classes} classes, '{self.ood.name}' has {self.ood.classes}: a close "
                f"set needs the same ones; use ntl_scenario=open_set"
            )
        if self.ood_label is not None and not 0 <= self.ood_label < self.id.classes:
            raise ValueError(f"the OOD label must lie in 0..{self.id.classes - 1}, got {self.ood_label}")


def _size(domain: Domain) -> str:
    return "x".join(map(str, domain.shape))

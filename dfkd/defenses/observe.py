"""No defense: a criterion looks at every synthetic image, and the student is distilled as without it."""

from torch import Generator, Tensor, nn

from dfkd.defenses.base import Defense
from dfkd.defenses.criteria import Criterion
from dfkd.models import Teacher
from dfkd.pool import Split
from dfkd.synthesizers.base import Synthesizer


class Observe(Defense):
    """Splits every synthetic image by a criterion, and changes nothing else: all images are distilled.

    The run then tells the share of images that the criterion calls fragile, by round (`fragile_share` in metrics.jsonl)
    and of all images (in result.json), and shows both groups in samples_fragile.png and samples_robust.png.

    Args:
        criterion: decides the split.
    """

    def __init__(self, criterion: Criterion):
        self.criterion = criterion

    @property
    def uses_real_data(self) -> bool:
        return self.criterion.uses_real_data

    def check(self, network: nn.Module, synthesizer: Synthesizer) -> None:
        self.criterion.check(network)

    def split(self, teacher: Teacher, images: Tensor, logits: Tensor, generator: Generator) -> Split:
        with teacher.counted_as("other"):
            return self.criterion.split(teacher, images, logits, generator)

    def warnings(self) -> list[str]:
        return self.criterion.warnings()

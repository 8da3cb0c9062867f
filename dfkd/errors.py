"""Exceptions that several modules of the package use."""


class ConfigError(ValueError):
    """The user's configuration or command cannot be run. Raised before anything is computed, and printed as a plain
    message without a traceback."""


class Damaged(ValueError):
    """A file is missing, cut short or changed. Its content is made again."""


class Missing(Damaged):
    """A file does not exist."""


class Inaccessible(ConfigError):
    """The operating system refuses to read or write a file: permissions, or a failing disk. The file does not count as
    damaged, so nothing is deleted or made again."""


class NonFiniteLoss(ArithmeticError):
    """A loss term became NaN or infinite.

    Attributes:
        term: name of the loss term, as in the metrics.
        step: number of the optimisation step at which the term was first not finite.
        state: state dict of the model when its weights were last checked to be finite, or None.
    """

    def __init__(self, term: str, step: int, state: dict | None = None):
        super().__init__(f"loss term '{term}' is not finite at step {step}; lower its weight or the learning rate")
        self.term, self.step, self.state = term, step, state


class DivergedTeacher(ArithmeticError):
    """The losses or weights of a teacher became NaN or infinite in training."""

    def __init__(self, what: object):
        super().__init__(f"the teacher's training has diverged: {what} (teacher.recipe.lr)")


class CannotTrainTogether(RuntimeError):
    """Several students cannot be trained side by side: the memory is too small, torch reports another error, or the
    loss of one student became NaN, which does not affect the others if they are trained one after the other."""


def refuse_old_names(kind: type, new_names: dict[str, str]) -> None:
    """Raise ConfigError if a class defines an attribute by a name that is no longer called, so that a class written for
    an earlier version is not silently ignored in part.

    Args:
        new_names: {old name: new name}.
    """
    for old, new in new_names.items():
        if old in vars(kind):
            raise ConfigError(f"{kind.__module__}.{kind.__qualname__}.{old} is now called {new}: rename it")

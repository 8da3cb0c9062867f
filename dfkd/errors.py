"""The errors that have a name of their own."""


class ConfigError(ValueError):
    """What the user asked for cannot run. Printed as a plain message, without a traceback, before any work."""


class Damaged(ValueError):
    """A file is missing, cut short or changed. What it held is made again."""


class Missing(Damaged):
    """A file is not there."""


class Inaccessible(ConfigError):
    """The system does not let us read or write a file: permissions, or a disk that fails. That is no damage: nothing
    is deleted or made again for it."""


class NonFiniteLoss(ArithmeticError):
    """A loss term became NaN or infinite.

    Attributes:
        term: the name of the term, as it appears in the metrics.
        step: the optimisation step at which the check saw it.
        state: the last state known to be good (a state dict), or None.
    """

    def __init__(self, term: str, step: int, state: dict | None = None):
        super().__init__(f"loss term '{term}' is not finite at step {step}; lower its weight or the learning rate")
        self.term, self.step, self.state = term, step, state


class DivergedTeacher(ArithmeticError):
    """The training of a teacher came to NaN or infinite losses or weights."""

    def __init__(self, what: object):
        super().__init__(f"the teacher's training has diverged: {what} (teacher.recipe.lr)")


class NotTogether(RuntimeError):
    """Several students cannot be trained in one program: torch cannot make one of them, their memory does not suffice,
    or a loss of one became NaN, from which the others do not suffer when they are trained in turn."""

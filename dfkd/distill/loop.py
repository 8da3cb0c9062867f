"""The loop that every method shares: synthesize, split, add to the pool, train the student; again and again."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from dfkd.defenses import Defense
from dfkd.distill.student import Student, Trainer, steps_per_epoch
from dfkd.domains import to_float
from dfkd.errors import NonFiniteLoss
from dfkd.evaluate import Examiner
from dfkd.machine.clock import Clock
from dfkd.machine.data_parallel import on_whole_batches
from dfkd.machine.runtime import Runtime
from dfkd.models import Classifier, Teacher
from dfkd.pool import Pool, Split
from dfkd.resume.loop import Loop, plain
from dfkd.synthesizers import Synthesizer
from dfkd.training.meter import Meter

LOGGED_ROUNDS = 1000  # a run writes at most about so many rows of metrics


class Distillation:
    """Trains one student.

    Online methods synthesize in every round, and train the student in all but the first `synthesizer.warm_up`. For
    offline ones the pool is there already, with its labels and split, and a round is one pass over it.

    Args:
        student, synthesizer, defense: the parts.
        teacher: frozen.
        examiner: for the validations (validation images train nothing).
        pool: a finished pool, or None to synthesize as we go.
        seeds: {'student': ..., 'synthesis': ...}.
        checks: number of validations on the way.
        log: called with (round, metrics).
        loop: hands out the numbers of the student's steps, between which a run can be stopped.

    Attributes:
        model: the student.
        validation: the last validation's numbers.
        best: {'round', 'iacc', 'state'} of the validation with the highest ID accuracy (the first such).
        fragile_share: of all images split on the way, in [0, 1].
    """

    def __init__(
        self,
        student: Student,
        synthesizer: Synthesizer,
        defense: Defense,
        teacher: Teacher,
        examiner: Examiner,
        runtime: Runtime,
        pool: Pool | None,
        seeds: dict[str, int],
        checks: int,
        log: Callable[[int, dict[str, float]], None],
        loop: Loop = plain,
    ):
        self.synthesizer, self.defense, self.teacher, self.examiner = synthesizer, defense, teacher, examiner
        self.runtime, self.log, self.loop = runtime, log, loop
        self.online = pool is None
        if self.online:
            self.pool, self.rounds, self.steps = Pool(student.capacity), synthesizer.rounds, student.steps
            self.warm_up = synthesizer.warm_up
            synthesizer.start(runtime, seeds["synthesis"])
        else:
            self.pool, self.rounds, self.steps = pool, student.epochs, steps_per_epoch(pool, student.recipe)
            self.warm_up = 0
        mean, std = teacher.mean.flatten().tolist(), teacher.std.flatten().tolist()
        network = on_whole_batches(student.network)
        self.model = runtime.place(Classifier(network, teacher.shape, teacher.classes, mean, std))
        total = (self.rounds - self.warm_up) * self.steps
        self.trainer = Trainer(self.model, student, defense, runtime, seeds["student"], total, teacher, loop)
        self.generator = runtime.generator(seeds["synthesis"], "split")
        self.steer = defense.steer(teacher, self.generator)
        if synthesizer.takes_term:
            synthesizer.term = defense.synthesis_term(teacher, runtime.generator(seeds["synthesis"], "defense"))
        self.finishing = runtime.generator(seeds["student"], "finish")
        self.check_every = max(1, self.rounds // checks)
        self.log_every = max(1, self.rounds // LOGGED_ROUNDS)
        self.clock, self.meter = Clock(runtime.device, runtime.profile), Meter()
        self.evals_before = teacher.evals.copy()
        self.best: dict = {"round": -1, "iacc": -1.0, "state": None}
        self.validation: dict[str, float] = {}
        self.students = 1  # that are trained beside each other: the clock and the teacher serve all
        self.grown = 0  # rounds whose images are in the pool
        self.split_images, self.fragile_images = 0, torch.zeros((), device=runtime.device)
        if not self.online:
            self._count(self.pool.split)

    def checkpoint_state(self) -> dict:
        """For a checkpoint: everything but a finished pool, which does not change, and who made it."""
        finished = () if self.online else ("pool", "synthesizer")
        return {name: value for name, value in vars(self).items() if name not in finished}

    def run(
        self, after_round: Callable[[dict], None] = lambda shown: None, rounds: Iterable[int] | None = None
    ) -> None:
        """Do all rounds.

        Args:
            rounds: the numbers of those that are still to be done (`Checkpoints.loop`); all if None.
            after_round: called after every round with the numbers to show (empty except after a validation).

        Raises:
            NonFiniteLoss: with the student's last good state.
        """
        for number in range(self.rounds) if rounds is None else rounds:
            self.model.train()  # synthesis, in which a checkpoint may have been saved, looks at it in evaluation mode
            if self.online and number == self.grown:  # else a checkpoint among this round's steps has the images
                self.grow(number)
            if number >= self.warm_up:
                with self.clock("distill"):
                    self.trainer.train(self.pool, self.steps)
            after_round(self.review(number))
        self.finish()

    def finish(self) -> None:
        """Let the defense finish the student; if it does, validate once more."""
        loss = self.trainer.student.loss
        try:
            with self.clock("distill"), self.teacher.counted_as("distill"):
                metrics = self.defense.finish(self.model, self.teacher, self.pool, loss, self.finishing, self.loop)
        except NonFiniteLoss as error:
            error.state = self.trainer.last_good
            raise
        if metrics:
            found = self._validate(self.rounds)
            self.log(self.rounds, metrics | {f"val/{name}": value for name, value in found.items()})

    def grow(self, number: int) -> None:
        """Synthesize a round's images, label and split them, and add them to the pool."""
        with self.clock("synthesis"), self.teacher.counted_as("synthesis"):
            steer = self._steered if self.steer is not None else None
            batch = self.synthesizer.synthesize(range(number, number + 1), self.teacher, self.model, steer)
        self.meter.add(batch.metrics)
        images = to_float(batch.images)
        with self.clock("distill"), self.teacher.counted_as("distill"), self.runtime.autocast():
            logits = self.teacher.predict(images, self.runtime.chunk).float()
        with self.clock("split"):
            split = self.defense.split(self.teacher, images, logits, self.generator)
        self._count(split)
        self.meter.add({"fragile_share": split.fragile.float().mean()})
        self.pool.add(batch.images, logits, split, batch.columns)
        self.grown = number + 1

    def review(self, number: int) -> dict[str, float]:
        """Log the round; on some rounds and the last one validate. Returns the validation, or nothing."""
        check = number % self.check_every == 0 or number == self.rounds - 1
        if not check and number % self.log_every:
            return {}
        synthesis = self._read_synthesis()  # first: a synthesis that failed spoils the student's terms too
        metrics = {f"loss/{name}": value for name, value in self.trainer.read().items()} | synthesis
        metrics |= {f"evals/{purpose}": count for purpose, count in self.evals().items()}
        found = self._validate(number) if check else {}
        self.log(number, metrics | {f"val/{name}": value for name, value in found.items()})
        return found

    def evals(self) -> dict[str, int]:
        """Teacher evaluations so far, in images: synthesis, split, distill."""
        spent = self.teacher.evals - self.evals_before
        return {purpose: spent[purpose] // self.students for purpose in ("synthesis", "split", "distill")}

    def seconds(self) -> dict[str, float]:
        """Return the seconds that were spent so far, by phase."""
        return {phase: round(spent / self.students, 3) for phase, spent in self.clock.settle().items()}

    @property
    def fragile_share(self) -> float:
        return self.fragile_images.item() / max(1, self.split_images)

    def _read_synthesis(self) -> dict[str, float]:
        try:
            return self.meter.read()
        except NonFiniteLoss as error:
            error.state = self.trainer.last_good
            raise

    def _validate(self, number: int) -> dict[str, float]:
        with self.clock("evaluate"), self.teacher.counted_as("evaluate"):
            found = self.examiner(self.model, "val")
        if found["iacc"] > self.best["iacc"]:
            self.best = {"round": number, "iacc": found["iacc"], "state": self.trainer.weights()}
        self.validation = {name: value for name, value in found.items() if value is not None}
        return self.validation

    def _steered(self, images: Tensor, logits: Tensor) -> Tensor:
        with self.clock("split"):
            return self.steer(images, logits)

    def _count(self, split: Split) -> None:
        self.split_images += len(split.fragile)
        self.fragile_images = self.fragile_images + split.fragile.sum()

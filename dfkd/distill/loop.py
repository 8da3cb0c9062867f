"""The loop that all methods share. Every round: synthesize, split, add to the pool, train the student."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from dfkd.defenses import Defense
from dfkd.distill.student import Student
from dfkd.distill.trainer import Trainer, steps_per_epoch
from dfkd.domains import to_float
from dfkd.errors import NonFiniteLoss
from dfkd.evaluate import Examiner
from dfkd.machine.data_parallel import on_whole_batches
from dfkd.machine.profiling import phase_clock
from dfkd.machine.runtime import Runtime
from dfkd.models import Classifier, Teacher
from dfkd.pool import Pool, Split
from dfkd.resume.loop import Loop, plain_loop
from dfkd.synthesizers import Synthesizer
from dfkd.training.meter import Meter

LOGGED_ROUNDS = 1000  # approximate limit of the rows of metrics that a run writes


class Distillation:
    """Trains one student.

    Online methods synthesize images in every round, and train the student in every round after the first
    `synthesizer.warm_up`. For offline methods the pool is finished beforehand, with its labels and its split, and a
    round is one pass over it.

    Args:
        student, synthesizer, defense: the components of the method.
        teacher: the frozen teacher.
        examiner: evaluates the student in validations. Validation images are never used for training.
        pool: a finished pool (offline), or None to synthesize images during training (online).
        seeds: {'student': ..., 'synthesis': ...}.
        checks: approximate number of validations during training.
        log: called with (round, metrics).
        loop: yields the step numbers of the student's training; the run can be stopped between two of them.

    Attributes:
        model: the student.
        validation: metrics of the last validation.
        best: {'round', 'iacc', 'state'} of the validation with the highest ID accuracy (the earliest if several tie).
        fragile_share: share of fragile images among all images split so far, in [0, 1].
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
        loop: Loop = plain_loop,
    ):
        self.synthesizer, self.defense, self.examiner = synthesizer, defense, examiner
        self.teacher = teacher = defense.stand_in(teacher, synthesizer.rounds if pool is None else None)
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
        self.model = runtime.to_device(Classifier(network, teacher.shape, teacher.classes, mean, std))
        total = (self.rounds - self.warm_up) * self.steps
        self.trainer = Trainer(self.model, student, defense, runtime, seeds["student"], total, teacher, loop)
        self.generator = runtime.generator(seeds["synthesis"], "split")
        defense.start(runtime)
        self.steer = defense.steer(teacher, self.generator)
        if synthesizer.takes_term:
            synthesizer.term = defense.synthesis_term(teacher, runtime.generator(seeds["synthesis"], "defense"))
        self.finish_generator = runtime.generator(seeds["student"], "finish")
        self.check_every = max(1, self.rounds // checks)
        self.log_every = max(1, self.rounds // LOGGED_ROUNDS)
        self.clock, self.meter = phase_clock(runtime.device, runtime.profile), Meter()
        self.evals_before = teacher.evals.copy()
        self.best: dict = {"round": -1, "iacc": -1.0, "state": None}
        self.validation: dict[str, float] = {}
        self.students = 1  # students trained side by side; they share one clock and the teacher's counts
        self.synthesized_rounds = 0  # number of rounds whose images are in the pool
        self.explored_rounds = self.warm_up
        self.split_images, self.fragile_images = 0, torch.zeros((), device=runtime.device)
        if not self.online:
            self._count(self.pool.split)

    def checkpoint_state(self) -> dict:
        """Return what a checkpoint saves: all attributes. A finished pool, which never changes, and its synthesizer are
        left out."""
        finished = () if self.online else ("pool", "synthesizer")
        return {name: value for name, value in vars(self).items() if name not in finished}

    def run(
        self, after_round: Callable[[dict], None] = lambda shown: None, rounds: Iterable[int] | None = None
    ) -> None:
        """Run all rounds, then the defense's `finish`.

        Args:
            rounds: numbers of the rounds still to run (`Checkpoints.loop`); None means all.
            after_round: called after every round with the metrics to display (empty except after a validation).

        Raises:
            NonFiniteLoss: a loss became NaN or infinite; carries the student's last finite weights.
        """
        for number in range(self.rounds) if rounds is None else rounds:
            self.model.train()  # a checkpoint saved during synthesis restores the student in evaluation mode
            # A checkpoint from this round's steps has the round's images already.
            if self.online and number == self.synthesized_rounds:
                self.synthesize_round(number)
            if number >= self.warm_up:
                self.explore(number)
                with self.clock("distill"):
                    self.trainer.train(self.pool, self.steps)
            after_round(self.log_round(number))
        self.finish()

    def finish(self) -> None:
        """Let the defense train the student further (`Defense.finish`); if it did, validate once more."""
        loss, generator = self.trainer.student.loss, self.finish_generator
        try:
            with self.clock("distill"), self.teacher.counted_as("distill"):
                metrics = self.defense.finish(self.model, self.teacher, self.pool, loss, generator, self.loop)
        except NonFiniteLoss as error:
            error.state = self.trainer.last_good
            raise
        if metrics:
            validation = self._validate(self.rounds)
            self.log(self.rounds, metrics | {f"val/{name}": value for name, value in validation.items()})

    def synthesize_round(self, number: int) -> None:
        """Synthesize the images of one round, label and split them, and add them to the pool."""
        with self.clock("synthesis"), self.teacher.counted_as("synthesis"):
            steer = self._steered if self.steer is not None else None
            batch = self.synthesizer.synthesize(range(number, number + 1), self.teacher, self.model, steer)
        self.meter.add(batch.metrics)
        images = to_float(batch.images)
        with self.clock("distill"), self.teacher.counted_as("distill"), self.runtime.autocast():
            logits = self.defense.answer(self.teacher, images, self.runtime.chunk)
        with self.clock("split"):
            split = self.defense.split(self.teacher, images, logits, self.generator)
        self._count(split)
        self.meter.add({"fragile_share": split.fragile.float().mean()})
        self.pool.add(batch.images, logits, split, batch.columns)
        self.synthesized_rounds = number + 1

    def explore(self, number: int) -> None:
        """Let the defense look for what the student should be warned of, once a round."""
        if number == self.explored_rounds:  # a checkpoint from this round's steps has explored already
            with self.clock("split"):
                found = self.defense.explore(number, self.teacher, self.model, self.pool, self.generator)
            if found:
                self.meter.add({name: torch.tensor(value, device=self.runtime.device) for name, value in found.items()})
        self.explored_rounds = number + 1

    def log_round(self, number: int) -> dict[str, float]:
        """Log the round. On every `check_every`-th round and the last one, validate.

        Returns:
            metrics of the validation; empty if there was none in this round.
        """
        check = number % self.check_every == 0 or number == self.rounds - 1
        if not check and number % self.log_every:
            return {}
        synthesis = self._read_synthesis()  # first: NaN images make the student's loss NaN too, so report the cause
        metrics = {f"loss/{name}": value for name, value in self.trainer.read().items()} | synthesis
        metrics |= {f"evals/{purpose}": count for purpose, count in self.evals().items()}
        validation = self._validate(number) if check else {}
        self.log(number, metrics | {f"val/{name}": value for name, value in validation.items()})
        return validation

    def evals(self) -> dict[str, int]:
        """Teacher evaluations per student so far, in images, for 'synthesis', 'split' and 'distill'."""
        spent = self.teacher.evals - self.evals_before
        return {purpose: spent[purpose] // self.students for purpose in ("synthesis", "split", "distill")}

    def seconds(self) -> dict[str, float]:
        """Return the seconds per student spent so far, by phase."""
        return {phase: round(spent / self.students, 3) for phase, spent in self.clock.read().items()}

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
            metrics = self.examiner(self.model, "val")
        if metrics["iacc"] > self.best["iacc"]:
            self.best = {"round": number, "iacc": metrics["iacc"], "state": self.trainer.weights()}
        self.validation = {name: value for name, value in metrics.items() if value is not None}
        return self.validation

    def _steered(self, images: Tensor, logits: Tensor) -> Tensor:
        with self.clock("split"):
            return self.steer(images, logits)

    def _count(self, split: Split) -> None:
        self.split_images += len(split.fragile)
        self.fragile_images = self.fragile_images + split.fragile.sum()

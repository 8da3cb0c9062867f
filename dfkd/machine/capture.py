"""CUDA graphs: the GPU work of a training step is recorded once and then started as a whole.

Starting an operation takes the CPU some microseconds. With a small network the GPU needs less than that to compute it,
and waits for the CPU. A recorded step starts all its operations at once, and computes the same.
"""

import functools
import inspect
import logging
import time
from collections.abc import Callable
from typing import Any

from torch import Tensor

from dfkd.machine.graphs import Graphs, copied, copy_all

log = logging.getLogger("dfkd")
MODES = ("auto", "none", "graph")  # of runtime.capture
WARM_UP, TRIALS = 3, 5  # calls before anything is timed or recorded; calls that are timed, before and after it
PATIENCE = 30  # replays after which one that was never faster is dropped: other processes on the GPU delay single calls


def answered(function: Callable[..., Any], arguments: tuple, answers: list | None = None) -> Any:
    """Call a function, and answer its questions if it is a generator function.

    Such a function yields (question, *what it asks about), and is sent `question(*what it asks about)`.

    Args:
        answers: gets the answers.

    Returns:
        what the function returns.
    """
    if not inspect.isgeneratorfunction(function):
        return function(*arguments)
    steps, answer = function(*arguments), None
    while True:
        try:
            question, *asked = steps.send(answer)
        except StopIteration as end:
            return end.value
        answer = question(*asked)
        if answers is not None:
            answers.append(answer)


def asking(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function whose questions are answered: the same one if it asks none (`answered`)."""
    if not inspect.isgeneratorfunction(function):
        return function
    return lambda *arguments: answered(function, arguments)


class Recording:
    """A function that was recorded with arguments of one form (`form_of`), with a graph for each of its parts: there is
    one more part than it asks questions.

    Args:
        graphs: records it.
        function, arguments: what is recorded.
        answers: of an earlier call with such arguments (`answered`).
        plain_seconds: time of a call that is not recorded; None if that does not matter, or no longer.

    Raises:
        RuntimeError: torch cannot record it.
    """

    def __init__(
        self,
        graphs: Graphs,
        function: Callable[..., Any],
        arguments: tuple,
        answers: list,
        plain_seconds: float | None,
    ):
        self.form, self.plain_seconds, self.seconds = form_of(arguments), plain_seconds, []
        self.inputs, self.answers = own_inputs(arguments), own_inputs(tuple(answers))
        counts = [(a.evals, a.evals.copy()) for a in arguments if hasattr(a, "evals")]
        try:
            self.parts = [graphs.record(part) for part in self._parts(function)]
            self.shown = [(evals, evals - before) for evals, before in counts]
        finally:  # nothing was computed yet
            for evals, before in counts:
                evals.clear()
                evals.update(before)

    def _parts(self, function: Callable[..., Any]) -> list[Callable[[], Any]]:
        """Return functions that compute the parts, in order. Each returns a question, the last one the result."""
        if not inspect.isgeneratorfunction(function):
            return [lambda: function(*self.inputs)]
        steps = None

        def part(number: int) -> Any:
            nonlocal steps
            if number == 0:
                steps = function(*self.inputs)
            try:
                return steps.send(self.answers[number - 1] if number else None)
            except StopIteration as end:
                return end.value

        return [functools.partial(part, number) for number in range(len(self.answers) + 1)]

    def __call__(self, *arguments: Any) -> Any:
        _fill(self.inputs, arguments)
        *questions, (result, last) = self.parts
        for ((question, *asked), replay), answer in zip(questions, self.answers, strict=True):
            replay()
            _fill(answer, question(*asked))
        last()
        for evals, shown in self.shown:
            evals.update(shown)
        return copied(result)  # the next replay overwrites its own


def _fill(own: Any, given: Any) -> None:
    """Copy the tensors in `given` into those in `own`."""
    copy_all(tensors_in(own), tensors_in(given))


class CapturedStep:
    """A function that is recorded after a few calls with arguments of the same form, and then replayed.

    A call with arguments of another form, such as a smaller batch, is computed as usual; if there are several in a row,
    the function is recorded for them. With `auto`, calls before and after the first recording are timed, and it is
    dropped if it is not faster; this takes no additional work. Where the function cannot be recorded, a line in the log
    says so, and it is computed as usual.

    Args:
        name: what is computed, for the log.
        function: takes tensors, tuples of tensors, and other arguments; returns tensors, or tuples and dictionaries of
            tensors and None. They may depend only on the values of its tensors, on its other arguments, and on tensors
            that keep their place in memory (parameters, buffers). It must draw from no `torch.Generator`, not wait for
            the GPU, and change nothing but tensors. An argument that counts the images that it sees in `evals`, as a
            `Teacher` does, goes on counting. Tensors in a list or in another object that it returns are valid only
            until the next call, which overwrites them: gradients, of which copies would take as many launches as a
            small network's whole step. Nothing that it returns may have a graph (`detached`): a graph that is still
            there at the recording belongs to the stream of an earlier call, for which a recorded backward pass would
            wait, and torch refuses that.
            It may be a generator function that asks questions (`answered`), whose answers, always of the same form,
            may depend on anything: then what comes before a question and what comes after it are graphs of their own.
        mode: 'auto', or 'graph': not timed.
        graphs: records it.
        plain: does the same in another way where it is not recorded; the default is `function`.
    """

    def __init__(
        self,
        name: str,
        function: Callable[..., Any],
        mode: str,
        graphs: Graphs,
        plain: Callable[..., Any] | None = None,
    ):
        self.name, self.function, self.mode, self.graphs = name, function, mode, graphs
        self.plain = function if plain is None else plain
        self.gave_up = False
        self.recording: Recording | None = None
        self.answers: list = []  # to the questions of the latest call that was no replay
        # of the latest calls, which have arguments of the same form: the form, how many, and how long they took
        self.form, self.calls, self.seconds = None, 0, []

    def checkpoint_state(self) -> dict:
        """Return the state for a checkpoint: empty, because a resumed run records anew."""
        return {}

    def __call__(self, *arguments: Any) -> Any:
        """Return what the function returns, in new tensors except where it returns a list or another object."""
        if self.gave_up:
            return answered(self.plain, arguments)
        form = form_of(arguments)
        if self.recording is not None and form == self.recording.form:
            return self._replay(self.recording, arguments)
        if form != self.form:
            self.form, self.calls, self.seconds = form, 0, []
        self.calls += 1
        if self.calls <= WARM_UP:
            self.answers = []
            return self.graphs.warm_up(lambda: answered(self.function, arguments, self.answers))
        if self.mode == "auto" and len(self.seconds) < TRIALS:
            return self._timed(lambda *given: answered(self.plain, given), arguments, self.seconds)
        return self._record(arguments)

    def _record(self, arguments: tuple) -> Any:
        try:
            least = min(self.seconds, default=None)
            recording = Recording(self.graphs, self.function, arguments, self.answers, least)
        except RuntimeError as error:
            self._give_up(f"torch cannot record it: {(str(error) or type(error).__name__).splitlines()[0]}")
            return answered(self.plain, arguments)
        self.recording, self.answers = recording, []
        return recording(*arguments)

    def _replay(self, recording: Recording, arguments: tuple) -> Any:
        if recording.plain_seconds is None:
            return recording(*arguments)
        outputs = self._timed(recording, arguments, recording.seconds)
        gain = recording.plain_seconds / min(recording.seconds)
        if gain > 1 and len(recording.seconds) >= TRIALS:
            log.info("  %s: as a CUDA graph, %.2f times as fast here", self.name, gain)
            self.mode, recording.plain_seconds = "graph", None  # for arguments of other forms, too
        elif len(recording.seconds) == PATIENCE:
            self._give_up(f"with one it is {gain:.2f} times as fast here")
        return outputs

    def _timed(self, function: Callable[..., Any], arguments: tuple, seconds: list[float]) -> Any:
        """Call a function, and append the seconds until the device has finished it."""
        self.graphs.wait()
        began = time.perf_counter()
        outputs = function(*arguments)
        self.graphs.wait()
        seconds.append(time.perf_counter() - began)
        return outputs

    def _give_up(self, reason: str) -> None:
        self.gave_up, self.recording = True, None
        log.info("  %s: without a CUDA graph (%s)", self.name, reason)


def is_ours(code: Callable | type) -> bool:
    """Return whether a function or class is this package's own, so that it is known to depend on tensors alone where it
    says so; a user's may depend on anything."""
    return code.__module__.startswith("dfkd.")


def form_of(argument: Any) -> Any:
    """Return what has to be the same for a replay: of tensors, also in tuples, shape, type and whether they get
    gradients; all other arguments themselves, and the version of one that has it, as a `Teacher` does."""
    if isinstance(argument, tuple):
        return tuple(map(form_of, argument))
    if hasattr(argument, "version"):
        return argument, argument.version
    return (argument.shape, argument.dtype, argument.requires_grad) if isinstance(argument, Tensor) else argument


def own_inputs(argument: Any) -> Any:
    """Return copies of tensors in tuples; those that get gradients are leaves of their own."""
    if isinstance(argument, tuple):
        return tuple(map(own_inputs, argument))
    if isinstance(argument, Tensor):
        return argument.detach().clone().requires_grad_(argument.requires_grad)
    return argument


def tensors_in(argument: Any) -> list[Tensor]:
    """Return the tensors in tuples, in order."""
    if isinstance(argument, tuple):
        return [tensor for part in argument for tensor in tensors_in(part)]
    return [argument] if isinstance(argument, Tensor) else []


def detached(terms: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the terms of a loss without their graph."""
    return {name: value.detach() for name, value in terms.items()}

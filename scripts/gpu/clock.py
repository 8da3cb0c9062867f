"""A deadline that also ends what runs, and commands that end with it."""

import contextlib
import signal
import subprocess
import time
from collections.abc import Iterator

GRACE = 15.0  # seconds before a deadline at which commands are asked to stop; they save their state


class TimeUp(Exception):
    """The deadline has passed."""


class Deadline:
    """A point in time.

    Args:
        seconds: from now.
    """

    def __init__(self, seconds: float):
        self.end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds until it, not below 0."""
        return max(0.0, self.end - time.monotonic())

    @contextlib.contextmanager
    def enforced(self) -> Iterator[None]:
        """Context manager: raises TimeUp inside the block at the deadline. Works in the main thread of a Unix."""

        def up(_number: int, _frame: object) -> None:
            raise TimeUp

        before = signal.signal(signal.SIGALRM, up)
        signal.setitimer(signal.ITIMER_REAL, max(self.left, 1e-3))
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


class Command:
    """A process of its own session, so that Ctrl-C in a terminal reaches it only through `stop`.

    Args:
        words: the command.
        options: of subprocess.Popen.
    """

    def __init__(self, words: list[str], **options: object):
        self.process = subprocess.Popen(words, start_new_session=True, **options)

    def alive(self, wait: float = 0.0) -> bool:
        """Return whether it still runs, after at most `wait` seconds."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(wait)
        return self.process.poll() is None


def stop(commands: list[Command], deadline: Deadline) -> None:
    """Ask commands to stop, and end those that still run at the deadline, or after GRACE if that comes earlier."""
    alive = [command for command in commands if command.alive()]
    for command in alive:
        command.process.terminate()
    end = Deadline(min(GRACE, max(1.0, deadline.left)))
    for command in alive:
        if command.alive(wait=end.left):
            command.process.kill()
            command.process.wait()


def run(words: list[str], deadline: Deadline, **options: object) -> int:
    """Run a command, and return its exit code.

    Raises:
        TimeUp: it had not ended GRACE before the deadline, and was stopped.
    """
    command = Command(words, **options)
    try:
        if command.alive(wait=max(0.1, deadline.left - GRACE)):
            raise TimeUp
        return command.process.returncode
    finally:
        stop([command], deadline)

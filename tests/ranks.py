"""Shared by the tests of several ranks: processes as torchrun starts them, but with all imports done."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from typing import Any

from torch.distributed import TCPStore

# Torch does not survive a fork after it has computed anything: children of a server that never has.
context = multiprocessing.get_context("forkserver")
# torch._dynamo is imported by DistributedDataParallel: three seconds of every rank.
context.set_forkserver_preload(["runner", "dfkd.run.run_cell", "sklearn.datasets", "torch._dynamo"])


def on_ranks(count: int, work: Callable, *arguments: Any) -> list[Any]:
    """What `work(*arguments)` returns on each of so many ranks; None where one has died."""
    store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)  # outlives them, as torchrun's does
    pipes, processes = [context.Pipe(duplex=False) for _ in range(count)], []
    for number, (_, end) in enumerate(pipes):
        environment = {
            **{"TORCHELASTIC_RUN_ID": "test", "TORCHELASTIC_USE_AGENT_STORE": "True"},
            **{"MASTER_ADDR": "localhost", "MASTER_PORT": str(store.port)},
            **{"RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": str(count)},
        }
        processes.append(context.Process(target=_child, args=(end, environment, work, arguments)))
        processes[-1].start()
        end.close()
    try:
        return [_received(begin) for begin, _ in pipes]
    finally:
        for process in processes:
            process.join(10)
            process.kill()


def _received(pipe: Any) -> Any:
    try:
        return pipe.recv() if pipe.poll(100) else None
    except EOFError:  # it has died
        return None


def _child(end: Any, environment: dict[str, str], work: Callable, arguments: tuple) -> None:
    os.environ.update(environment)
    end.send(work(*arguments))


def cell(*arguments: str, strike: tuple[int, int] | None = None, blind: int | None = None) -> Any:
    """`dfkd ARGUMENTS` on this rank.

    Args:
        strike: (rank, passes): SIGTERM comes to that one after so many steps of its loops.
        blind: a rank that cannot read checkpoints.
    """
    from runner import command_line, without_pictures

    from dfkd.machine import distributed
    from dfkd.resume.checkpoints import Checkpoints

    number_of_this = int(os.environ["RANK"])
    passed, left = Checkpoints.passed, [strike[1] if strike and strike[0] == number_of_this else -1]

    def count(self: Checkpoints, loop: Any, number: int) -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        passed(self, loop, number)

    Checkpoints.passed = count
    if blind == number_of_this:
        Checkpoints._read = lambda self: None
    distributed.EXCHANGE_EVERY = 0  # seconds: all look at each other after every step
    with without_pictures():
        return command_line(*arguments)

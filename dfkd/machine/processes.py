"""Processes that are known by more than their number, which the system gives to another one later. Imports no torch."""

import contextlib
import os
import subprocess
from pathlib import Path

START = 19  # where /proc/PID/stat has the time of the start, counted from behind the process's name


def started(process: int) -> str | None:
    """When a process was started, in the words of the system: they tell it from another one that has its number later.

    Args:
        process: its number.

    Returns:
        clock ticks since the machine was switched on (Linux) or a date (elsewhere); None if there is no such process.
    """
    if Path("/proc/self/stat").exists():
        try:
            return Path(f"/proc/{process}/stat").read_text(errors="replace").rpartition(")")[2].split()[START]
        except (OSError, IndexError):
            return None
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        asked = ["ps", "-o", "lstart=", "-p", str(process)]
        return subprocess.run(asked, capture_output=True, text=True, timeout=10).stdout.strip() or None
    return None


def send_signal(process: int, start: str | None, number: int) -> bool:
    """Send a signal to a process if it still is the one that was started at that time; returns whether it was sent.

    Args:
        process, start: its number, and what `started` said of it.
        number: of the signal.
    """
    if start is None or started(process) != start:
        return False
    try:
        os.kill(process, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True

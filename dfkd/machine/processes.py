"""Identifies processes by process id and start time, since ids are reused. Imports no torch."""

import contextlib
import os
import subprocess
from pathlib import Path

START = 19  # index of the start time among the fields of /proc/PID/stat that follow the process's name


def start_time(process: int) -> str | None:
    """Return the start time of a process, as text of the operating system. It distinguishes the process from a later
    one with the same id.

    Args:
        process: its process id.

    Returns:
        clock ticks since the boot of the machine (Linux) or a date (elsewhere); None if there is no such process.
    """
    if Path("/proc/self/stat").exists():
        try:
            return Path(f"/proc/{process}/stat").read_text(errors="replace").rpartition(")")[2].split()[START]
        except (OSError, IndexError):
            return None
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        call = ["ps", "-o", "lstart=", "-p", str(process)]
        return subprocess.run(call, capture_output=True, text=True, timeout=10).stdout.strip() or None
    return None


def send_signal(process: int, start: str | None, number: int) -> bool:
    """Send a signal to a process, unless its id belongs to another process now.

    Args:
        process: its process id.
        start: what `start_time` returned for it; None sends no signal.
        number: number of the signal.

    Returns:
        whether the signal was sent.
    """
    if start is None or start_time(process) != start:
        return False
    try:
        os.kill(process, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True

"""The commands of SLURM that submitit calls, for one machine: `install` makes them, and they run this file.

sbatch runs all of an array at once; scontrol requeue begins a job again when it has ended; sacct knows nothing.
"""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

NAME = "7"  # of every job


def install(folder: Path) -> Path:
    """Make the commands; returns the folder they are in. The script that was submitted is put there too."""
    folder.mkdir()
    for name in ("sbatch", "srun", "sacct", "scontrol"):
        command = folder / name
        command.write_text(f'#!/bin/sh\nexec {sys.executable} {__file__} {name} {folder} "$@"\n')
        command.chmod(0o755)
    return folder


def begin(folder: Path, job: str, after: int = 0) -> None:
    """Start a job in the background, when the process `after` has ended."""
    number, _, index = job.partition("_")
    environment = os.environ | {"SLURM_JOB_ID": number, "SLURM_PROCID": "0"}
    if index:
        environment |= {"SLURM_ARRAY_JOB_ID": number, "SLURM_ARRAY_TASK_ID": index}
    command = [sys.executable, __file__, "job", str(folder), str(after)]
    with open(os.devnull, "w") as nowhere:
        subprocess.Popen(command, env=environment, stdout=nowhere, stderr=nowhere, start_new_session=True)


def sbatch(folder: Path, file: str) -> None:
    text = Path(file).read_text()
    (folder / "submitted.sh").write_text(text)
    array = re.search(r"--array=0-(\d+)", text)
    for job in [f"{NAME}_{index}" for index in range(int(array[1]) + 1)] if array else [NAME]:
        begin(folder, job)
    print(f"Submitted batch job {NAME}")


def job(folder: Path, after: str) -> None:
    while int(after) and Path(f"/proc/{after}").exists():
        time.sleep(0.05)
    os.execvp("bash", ["bash", str(folder / "submitted.sh")])


def srun(folder: Path, *words: str) -> None:
    at = words.index("--output") + 1
    names = {"%A": "SLURM_ARRAY_JOB_ID", "%a": "SLURM_ARRAY_TASK_ID", "%j": "SLURM_JOB_ID", "%t": "SLURM_PROCID"}
    output = re.sub("%[Aajt]", lambda found: os.environ.get(names[found[0]], ""), words[at])
    handle = os.open(output, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.execvp(words[at + 1], words[at + 1 :])


def scontrol(folder: Path, _: str, name: str) -> None:
    begin(folder, name, after=os.getppid())


def sacct(folder: Path, *_: str) -> None:
    print("JobID|State|NodeList")


if __name__ == "__main__":
    globals()[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])

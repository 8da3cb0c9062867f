"""The text that `dfkd --help` prints."""

import textwrap
from pathlib import Path

from dfkd.config.options import option_names

TEXT = """\
dfkd: data-free knowledge distillation, one experiment a command

  dfkd -m experiment=quickstart                the OOD trap and the way out of it, in minutes
  dfkd experiment=cake/mnist data.root=DIR     CAKE on MNIST: a table row of the paper
  dfkd -m ntl_scenario=backdoor teacher=backdoor defense=none,atesc seed=0,1,2      a sweep

GROUP=OPTION chooses; -m GROUP=OPTION,OPTION sweeps; GROUP.KEY=VALUE sets a number:

{groups}

Parts of the groups (domain@ntl_scenario.id=mnist network@student.network=lenet loss@student.loss=l1):

{parts}

  -m hydra/launcher=parallel hydra.launcher.n_jobs=2    a sweep's cells beside each other;  hydra/launcher=gpus: each
                     on a GPU of its own;  hydra/launcher=slurm: each a job (docs/slurm.md; hydra/launcher=slurm_local)
  -m hydra/sweeper=optuna 'synthesizer.lr=tag(log,interval(1e-4,1e-2))'    a search for the best validation accuracy
  dry_run=true       check all cells and print which stages they would make, instead of running them
  fail_fast=true     a sweep starts no further cell once one has failed
  --cfg job          print the configuration instead of running it
  --config-dir DIR   add options of your own: DIR/GROUP/OPTION.yaml
  until=premise      train and judge the teacher, distil nothing
  data.root=DIR      where torchvision's data sets are; data.download=true fetches a missing one
  runtime.device=auto|cpu|cuda:N     seed=N     outputs=DIR     debug=smoke (a run of seconds)
  -m ablation=cake/components           a paper's ablation or table; with debug=small in the size of a CPU

  dfkd-inspect FILE  what a checkpoint holds, which network it fits, and the command that distils it
  dfkd-report        tables and a page of what has finished, also while a sweep still runs: dfkd-report --help
  python -m dfkd.store ls | show KEY | verify | gc      what runs share: what is there, whether it is whole, what may go
"""

GROUPS = {
    "teacher": "how the teacher was trained, or whose checkpoint it is",
    "student": "how the student is trained",
    "synthesizer": "how images are made from the teacher alone",
    "prior": "what images should look like; several: prior=[tv,bn]",
    "noise": "step size and noise of pixel-space synthesis",
    "ntl_scenario": "what the teacher is good on, and deliberately wrong on",
    "defense": "how the student escapes the trap",
}
PARTS = (
    "domain",
    "network",
    "loss",
    "generator",
    "trigger",
    "criterion",
    "scouts",
    "recipe",
    "tracker",
    "metrics",
    "experiment",
    "ablation",
    "networks",
)


def wrapped(options: str, lead: str) -> str:
    """Wrap a list of options after the text `lead`, with further lines indented to the end of `lead`."""
    return textwrap.fill(options, 118, initial_indent=lead, subsequent_indent=" " * len(lead), break_on_hyphens=False)


def help_text(conf: Path, arguments: list[str]) -> str:
    """Return the help text, with the options in `conf` and in the folders given by `--config-dir` in the arguments."""
    folders = [conf]
    for i, argument in enumerate(arguments):
        name, _, value = argument.partition("=")
        if name in ("--config-dir", "-cd"):
            folders += [Path(value or "".join(arguments[i + 1 : i + 2]))]

    options = {group: ", ".join(option_names(group, folders)) for group in (*GROUPS, *PARTS)}
    groups = [f"  {group:<13} {about}\n{wrapped(options[group], ' ' * 18)}" for group, about in GROUPS.items()]
    parts = [wrapped(options[group], f"  {group:<13} ") for group in PARTS if options[group]]
    return TEXT.format(groups="\n".join(groups), parts="\n".join(parts))

"""Corrects the environment of a command before it imports the libraries that depend on it. Imports no torch."""

import os
import re
import sys
import warnings

from dfkd.errors import ConfigError

PAIRS = (re.compile(r".*\w\s*:.+"), "KEY:VALUE,KEY:VALUE")
NUMBER = (re.compile(r"\s*-?\d+(\.\d*)?\s*"), "a number")
# {variable: (pattern of its valid values, their form in words)}. With another value the import of a library fails, with
# a message that does not name the variable.
READ = {name: PAIRS for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF")} | {
    f"TQDM_{name}": NUMBER
    for name in ("NCOLS", "NROWS", "MININTERVAL", "MAXINTERVAL", "MINITERS", "SMOOTHING", "POSITION", "DELAY")
}


def prepare_environment() -> None:
    """Prevent failures because of the environment that would stop a run late, or without a clear message.

    - matplotlib draws into files by `agg`. In a notebook, MPLBACKEND (module://matplotlib_inline...) may name a package
      that is not installed here, and then the first import of matplotlib fails.
    - A character that the encoding of the terminal lacks is printed as a question mark (LANG=C,
      PYTHONIOENCODING=ascii).
    - With PYTHONWARNINGS=error only this package's warnings are errors: some libraries warn while they are imported.

    Raises:
        ConfigError: an environment variable has a value that a library cannot read.
    """
    os.environ["MPLBACKEND"] = "agg"
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # streams that a test or a notebook has put there lack it
            stream.reconfigure(errors="replace")
    if any(action == "error" for action, *_ in warnings.filters):
        warnings.filterwarnings("default", module=r"(?!dfkd\b)")
        os.environ.pop("PYTHONWARNINGS", None)  # the workers of a sweep read it anew
    for name, (pattern, form) in READ.items():
        value = os.environ.get(name)
        if value and not pattern.fullmatch(value):
            raise ConfigError(f"the environment variable {name} must be {form}, got {value!r}: correct or unset it")


def ignore_matplotlibrc() -> None:
    """Give matplotlib its own defaults. A user's matplotlibrc may ask for what fails on this machine (`text.usetex`
    without LaTeX), and figures are drawn after the training."""
    import matplotlib

    matplotlib.rcdefaults()

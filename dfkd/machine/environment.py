"""What a command finds around it, put right before it imports what depends on it. Imports no torch."""

import os
import re
import sys

from dfkd.errors import ConfigError

PAIRS = (re.compile(r".*\w\s*:.+"), "KEY:VALUE,KEY:VALUE")
NUMBER = (re.compile(r"\s*-?\d+(\.\d*)?\s*"), "a number")
# Variables whose odd values end the import of a library, in words that do not name them: a pattern of what it reads.
READ = {name: PAIRS for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF")} | {
    f"TQDM_{name}": NUMBER
    for name in ("NCOLS", "NROWS", "MININTERVAL", "MAXINTERVAL", "MINITERS", "SMOOTHING", "POSITION", "DELAY")
}


def settle() -> None:
    """Let nothing of the environment stop what this process does only at its end, or without a word:

    - figures are drawn into files, by `agg`; MPLBACKEND of a notebook (module://matplotlib_inline...) may name a
      package that is not installed here, which ends the first import of matplotlib;
    - a sign that the terminal's encoding lacks is printed as a question mark (LANG=C, PYTHONIOENCODING=ascii).

    Raises:
        ConfigError: a variable holds what a library cannot read.
    """
    os.environ["MPLBACKEND"] = "agg"
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # not what a test or a notebook has put there
            stream.reconfigure(errors="replace")
    for name, (pattern, form) in READ.items():
        value = os.environ.get(name)
        if value and not pattern.fullmatch(value):
            raise ConfigError(f"the environment variable {name} must be {form}, got {value!r}: correct or unset it")

"""What a command finds around it, put right before it imports what depends on it. Imports no torch."""

import os
import sys


def settle() -> None:
    """Let nothing of the environment stop what this process does only at its end:

    - figures are drawn into files, by `agg`; MPLBACKEND of a notebook (module://matplotlib_inline...) may name a
      package that is not installed here, which ends the first import of matplotlib;
    - a sign that the terminal's encoding lacks is printed as a question mark (LANG=C, PYTHONIOENCODING=ascii).
    """
    os.environ["MPLBACKEND"] = "agg"
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # not what a test or a notebook has put there
            stream.reconfigure(errors="replace")

"""The scripts of the studies, as modules."""

import sys

from runner import ROOT

sys.path.insert(0, str(ROOT / "scripts"))

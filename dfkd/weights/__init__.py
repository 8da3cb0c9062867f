"""Files of weights that somebody else made: read without running code, unwrapped, and renamed to our layers."""

from dfkd.weights.choose import choose
from dfkd.weights.read import read

__all__ = ["choose", "read"]

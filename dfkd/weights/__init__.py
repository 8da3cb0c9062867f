"""Weight files from other code bases: read without executing code, unwrapped, and renamed to our layers."""

from dfkd.weights.choose import choose
from dfkd.weights.read import read

__all__ = ["choose", "read"]

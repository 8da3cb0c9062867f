"""Weight files from other code bases: read without executing code, unwrapped, and renamed to our layers.

May be imported by dfkd.teachers and later rooms.
"""

from dfkd.weights.choose import choose
from dfkd.weights.read import read

__all__ = ["choose", "read"]

"""The rows of `make bench`: the project's fast paths against bare loops, in one process on the same tensors."""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as `dfkd` does, before torch is there

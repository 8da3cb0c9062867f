"""The help text of `dfkd`, and the commands `dfkd-inspect` and `python -m dfkd.store`; for entry points only."""

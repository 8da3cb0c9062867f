"""What the commands beside `dfkd` itself print: help, `dfkd-inspect`, `python -m dfkd.store`. For entry points only."""

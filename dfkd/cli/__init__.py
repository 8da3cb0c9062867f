"""What the commands beside `dfkd` itself print: the help, and `python -m dfkd.store`. Imported by entry points only."""

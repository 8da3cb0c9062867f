"""The help text of `dfkd`, and the commands `dfkd-inspect` and `python -m dfkd.store`.

May be imported by dfkd.main and later rooms.
"""

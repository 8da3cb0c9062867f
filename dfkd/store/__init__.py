"""Files under outputs/: artifacts addressed by content, run folders, locks, keys.

Imports no torch, and of dfkd only errors. May be imported by dfkd.config and later rooms.
"""

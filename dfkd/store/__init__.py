"""What lies under outputs/: artifacts by content, run folders, locks, keys.

Imports no torch, and of dfkd only errors.
"""

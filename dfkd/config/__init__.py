"""From YAML to objects: a cell with its name and hash, the builder, the messages about mistakes.

Imports no torch, and of dfkd only errors and store.
"""

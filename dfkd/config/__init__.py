"""From YAML to objects: a cell, its name and hash; the builder; what mistakes are called.

Imports no torch, and of dfkd only errors and store.
"""

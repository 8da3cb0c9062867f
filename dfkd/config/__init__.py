"""From YAML to objects: a cell with its name and hash, the builder, the messages about mistakes.

Imports no torch. May be imported by dfkd.stages and later rooms.
"""

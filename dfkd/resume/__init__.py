"""Checkpoints: a stopped or killed run is resumed inside a stage, in the loops of the methods.

Imported by dfkd.synthesizers and later rooms.
"""

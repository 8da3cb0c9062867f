"""Checkpoints: a stopped or killed run is resumed inside a stage, in the loops of the methods.

May be imported by dfkd.synthesizers and later rooms.
"""

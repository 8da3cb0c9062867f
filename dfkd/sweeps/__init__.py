"""Sweeps, which run many cells: the list of their cells, relaunching, progress, and the plan of a dry run.

May be imported by dfkd.cli and later rooms.
"""

"""The machine that a run uses: devices, ranks, precision, signals, time, memory.

Imported by dfkd.resume and later rooms.
"""

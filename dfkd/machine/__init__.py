"""The machine that a run uses: devices, ranks, precision, signals, time, memory.

May be imported by dfkd.resume and later rooms.
"""

"""One cell, from its configuration to result.json.

May be imported by dfkd.report and later rooms.
"""

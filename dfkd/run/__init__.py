"""One cell, from its configuration to result.json.

Imported by dfkd.report and later rooms.
"""

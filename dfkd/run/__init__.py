"""One cell from configuration to result.json. Imported by dfkd.sweeps and above."""

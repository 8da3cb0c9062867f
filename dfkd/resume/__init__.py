"""Checkpoints: a stopped or killed run is resumed inside a stage. Imported by methods, and by dfkd.stages and above."""

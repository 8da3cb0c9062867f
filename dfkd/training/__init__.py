"""Shared by all trainings (of teachers, students and generators): optimizers, running means, augmentations.

Imports of dfkd only errors. May be imported by dfkd.recipe and later rooms.
"""

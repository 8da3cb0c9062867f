"""Shared by all trainings (of teachers, students and generators): optimizers, running means, augmentations.

Imports of dfkd only errors. Imported by dfkd.recipe and later rooms.
"""

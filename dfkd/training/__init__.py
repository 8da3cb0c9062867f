"""What all trainings share, of teachers, students and generators: optimizers, running means, augmented views.

Imports of dfkd only errors.
"""

"""dfkd: data-free knowledge distillation as one Hydra-configured experiment runner."""

__version__ = "0.1.0"

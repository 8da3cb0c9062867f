"""The two halves of `make gpu` (scripts/make_gpu.py)."""

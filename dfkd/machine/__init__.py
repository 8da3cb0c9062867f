"""Where a run computes: devices, ranks, precision, and what it costs."""

"""Many cells as one sweep: their list, what is launched again, progress, and the plan."""

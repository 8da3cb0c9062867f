"""A run that is stopped, or killed, goes on where it was."""

"""Reports: what was wrong, what was done, and whether to trust it."""

"""Search: many candidates trained at once."""

"""Commands with modules of their own."""

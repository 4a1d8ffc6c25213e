"""Data: how a table becomes inputs, labels and groups, and the tables that come with the package."""

"""Data: how a table becomes inputs, labels and groups; the tables of the package."""

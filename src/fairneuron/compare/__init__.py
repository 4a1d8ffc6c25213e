"""Comparison of mitigators on the same splits and base models, by one protocol.

``fairneuron.compare`` is the function; ``fairneuron compare`` is its command.
"""

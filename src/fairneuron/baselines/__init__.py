"""Mitigators: everything that makes a network treat groups more equally behind one protocol.

``fit(model, train, valid, seed=...)`` leaves the given model untouched, sees no test data, gives
the same result for the same seed, and returns a predictor. ``fairneuron.FairNeuron`` is one of
them.
"""

from fairneuron.baselines.dropout import Naive, Ordinary, PureDropout, RandomDropout
from fairneuron.baselines.protocol import Mitigator

__all__ = ["Mitigator", "Naive", "Ordinary", "PureDropout", "RandomDropout"]

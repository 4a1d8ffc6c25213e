"""Mitigators: everything that makes a network treat groups more equally behind one protocol.

``fit(model, train, valid, seed=...)`` leaves the given model untouched, sees no test data, gives
the same result for the same seed, and returns a predictor. ``fairneuron.FairNeuron`` is one of
them.
"""

from fairneuron.baselines.ablations import ContinuedTraining, RandomSamples
from fairneuron.baselines.adversaries import FAD, EthicalAdversaries
from fairneuron.baselines.dropout import Naive, Ordinary, PureDropout, RandomDropout
from fairneuron.baselines.fairret import Fairret
from fairneuron.baselines.gradient import DiffDP, FineTuning, LastLayer
from fairneuron.baselines.hardt import EqualizedOdds
from fairneuron.baselines.hsic import HSIC
from fairneuron.baselines.linear_post import LinearPost
from fairneuron.baselines.neuron_search import NeuronDropping
from fairneuron.baselines.oxonfair import OxonFair
from fairneuron.baselines.protocol import Mitigator, Tuned
from fairneuron.baselines.reductions import ExponentiatedGradient
from fairneuron.baselines.reject_option import RejectOption
from fairneuron.baselines.reweighing import Reweighing
from fairneuron.baselines.threshold import ThresholdOptimizer

__all__ = [
    "FAD",
    "HSIC",
    "ContinuedTraining",
    "DiffDP",
    "EqualizedOdds",
    "EthicalAdversaries",
    "ExponentiatedGradient",
    "Fairret",
    "FineTuning",
    "LastLayer",
    "LinearPost",
    "Mitigator",
    "Naive",
    "NeuronDropping",
    "Ordinary",
    "OxonFair",
    "PureDropout",
    "RandomDropout",
    "RandomSamples",
    "RejectOption",
    "Reweighing",
    "ThresholdOptimizer",
    "Tuned",
]

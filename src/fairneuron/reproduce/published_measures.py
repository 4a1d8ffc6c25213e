"""What is measured in the published COMPAS pipeline, whose models regress the decile score."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from torch import nn

from fairneuron.baselines.dropout import random_samples
from fairneuron.clustering import rare_paths
from fairneuron.data.dataset import Dataset
from fairneuron.loading import Parts
from fairneuron.reproduce.measures import Measure, MeasuresJob, retrained, sweep
from fairneuron.reproduce.methods import Configuration
from fairneuron.reproduce.paper import OURS
from fairneuron.reproduce.published import evaluate, regressed, squared_error
from fairneuron.reproduce.setting import Scale
from fairneuron.slicing import activation_paths
from fairneuron.terms import Terms

REGRESSION = Terms(squared_error)


@dataclass(frozen=True, eq=False)
class PublishedJob(MeasuresJob):
    """Measures whose base model regresses the decile score."""

    def _base(self, model: nn.Module, parts: Parts) -> dict[str, Any]:
        return {"test": evaluate(regressed(model, parts[2]), parts[2]).figures()}


def published_tested(model: nn.Module, test: Dataset) -> Configuration:
    """Test counts of a regression."""
    return evaluate(regressed(model, test), test).to_dict()


def published_naive(model: nn.Module, parts: Parts, _: int, __: Scale) -> list[Configuration]:
    """The regression as it is."""
    return [{"settings": {}, **published_tested(model, parts[2])}]


def published_fairneuron(
    model: nn.Module, parts: Parts, seed: int, scale: Scale, *, random: bool = False
) -> list[Configuration]:
    """Algorithm 1 over the release's grid; first what its objective chooses on validation data.

    Args:
        model: The regression.
        parts: Training, validation and test part.
        seed: Of everything random.
        scale: Of the experiment.
        random: Whether as many random samples take the place of the biased ones.
    """
    gammas, thetas = scale.published
    tried, masks = [], []
    for gamma in gammas:
        paths = activation_paths(model, parts[0].x, gamma=gamma)
        for theta in thetas:
            rare = rare_paths(paths, theta)
            share = max(float(rare.mean()), 1e-9)
            tried.append({"gamma": gamma, "theta": theta, "biased": float(rare.mean())})
            masks.append(random_samples(len(rare), share, seed) if random else rare)
    models = retrained(model, parts, masks, scale=scale, seed=seed, terms=REGRESSION)
    judged = [
        (evaluate(regressed(one, parts[1]), parts[1]).objective(), settings, one)
        for settings, one in zip(tried, models, strict=True)
        if one is not None
    ]
    ordered = sorted(judged, key=lambda each: each[0])  # of equals the first one
    return [
        {
            "settings": settings,
            "objective": objective if np.isfinite(objective) else None,
            **published_tested(one, parts[2]),
        }
        for objective, settings, one in ordered
    ]


PUBLISHED_METHODS: dict[str, Measure] = {
    "naive": published_naive,
    "random-dropout": partial(published_fairneuron, random=True),
    OURS: published_fairneuron,
}
PUBLISHED_MEASURES = PUBLISHED_METHODS | {
    over: partial(sweep, over=over, terms=REGRESSION, judged=published_tested)
    for over in ("theta", "gamma")
}

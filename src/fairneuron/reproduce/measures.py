"""Recipe "paper" taken apart: what tables 2, 3 and 6 and figures 4 and 5 measure of a base model.

A ``Measure`` maps a base model, the parts of the data, a seed and the scale to configurations.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import numpy as np
from torch import nn

from fairneuron.baselines.dropout import random_samples
from fairneuron.clustering import rare_paths, summarise_paths
from fairneuron.compare.methods import MakeMitigator
from fairneuron.compare.protocol import Clock, plain
from fairneuron.data.dataset import Dataset, Mask
from fairneuron.errors import FairNeuronError
from fairneuron.loading import Parts
from fairneuron.models import predict
from fairneuron.reproduce.methods import Configuration, MethodsJob, methods_of, tested
from fairneuron.reproduce.paper import OURS
from fairneuron.reproduce.setting import DROPOUT, GAMMA, THETA, Scale
from fairneuron.search.together import Job as Training
from fairneuron.search.together import train_together
from fairneuron.slicing import activation_paths
from fairneuron.terms import Terms
from fairneuron.tracing import trace
from fairneuron.training import PLAIN, train

Measure = Callable[[nn.Module, Parts, int, Scale], list[Configuration]]

FIGURE4 = {"gamma": 0.6, "theta": 0.03}
FIGURE5 = {"gamma": 0.95, "theta": 0.01}
"""Held fixed while the other one varies. Both as in the release's FN/plot_figures.py."""


@dataclass(frozen=True, eq=False)
class MeasuresJob(MethodsJob):
    """What else is measured of the base model of one split; ``methods`` are ``Measure``."""

    scale: Scale = field(default_factory=Scale)

    def _tried(
        self, method: MakeMitigator, criterion: str, model: nn.Module, parts: Parts
    ) -> dict[str, Any]:
        """The configurations that a measure gives, or why it failed."""
        clock, error = Clock(), None
        found: list[Configuration] = []
        try:
            with clock:
                found = cast("Measure", method)(model, parts, self.seed, self.scale)
        except FairNeuronError as problem:
            error = f"{type(problem).__name__}: {problem}"[:300]
        return {**clock.to_dict(), "error": error, "configurations": found}


def retrained(
    model: nn.Module,
    parts: Parts,
    masks: Sequence[Mask],
    *,
    scale: Scale,
    seed: int,
    terms: Terms = PLAIN,
) -> list[nn.Module | None]:
    """Algorithm 1, lines 7 to 11, for several sets of biased samples, all at once.

    Args:
        model: Where training starts; it is copied.
        parts: Training, validation and test part.
        masks: For each training ``(n,)``, the rows that are trained with dropout.
        scale: Of the experiment.
        seed: Of the order of rows and of dropout.
        terms: With the loss.

    Returns:
        A network for each mask, the same one for the same mask; None where it diverged.
    """
    jobs: dict[bytes, Training] = {}
    for mask in masks:
        own = Training(copy.deepcopy(model), dropped=mask, dropout=DROPOUT)
        jobs.setdefault(mask.tobytes(), own)
    finite = train_together(
        list(jobs.values()), parts[0], parts[1], scale.schedule, seed=seed, terms=terms
    )
    models = {
        key: job.model.eval() if ok else None
        for (key, job), ok in zip(jobs.items(), finite, strict=True)
    }
    return [models[mask.tobytes()] for mask in masks]


def clusters(model: nn.Module, parts: Parts, _seed: int, _scale: Scale) -> list[Configuration]:
    """How many training samples have a rare path, by group, and how well they are predicted."""
    paths = activation_paths(model, parts[0].x, gamma=GAMMA)
    rare = rare_paths(paths, THETA)
    right = predict(model, parts[0]).argmax(1) == parts[0].y
    summary = summarise_paths(paths, parts[0], THETA).to_dict()
    accuracy = {
        name: float(right[rows].mean()) if rows.any() else None
        for name, rows in (("biased", rare), ("benign", ~rare))
    }
    return [{"settings": {"gamma": GAMMA, "theta": THETA}, "clusters": summary, "right": accuracy}]


def ablations(model: nn.Module, parts: Parts, seed: int, scale: Scale) -> list[Configuration]:
    """The training loop with another mask: who is trained with dropout."""
    rare = rare_paths(activation_paths(model, parts[0].x, gamma=GAMMA), THETA)
    masks = {
        "ordinary": np.zeros_like(rare),
        "pure-dropout": np.ones_like(rare),
        "random-dropout": random_samples(len(rare), max(float(rare.mean()), 1e-9), seed),
        OURS: rare,
    }
    models = retrained(model, parts, list(masks.values()), scale=scale, seed=seed)
    found = [("naive", model), *zip(masks, models, strict=True)]
    return [
        {"settings": {"trained": name, "biased": float(rare.mean())}, **tested(one, parts[2])}
        for name, one in found
        if one is not None
    ]


def steps(model: nn.Module, parts: Parts, seed: int, scale: Scale) -> list[Configuration]:
    """Seconds of each step of recipe "paper" for one γ and θ, and of the whole search."""
    clocks = {name: Clock() for name in ("slicing", "clustering", "training", "search")}
    with clocks["slicing"]:
        paths = activation_paths(model, parts[0].x, gamma=GAMMA)
    with clocks["clustering"]:
        rare = rare_paths(paths, THETA)
    network = copy.deepcopy(model)
    twin = trace(network).with_dropout(DROPOUT)
    with clocks["training"]:
        train(network, *parts[:2], scale.schedule, seed=seed, dropped=rare, run=twin)
    with clocks["search"]:
        search = cast("Any", methods_of(scale)[OURS]({"dp": 0.05}))
        for _ in search.candidates(model, parts[0], parts[1], seed=seed):
            pass
    return [{"settings": {"step": name}, **clock.to_dict()} for name, clock in clocks.items()]


def path_counts(model: nn.Module, parts: Parts, _seed: int, _scale: Scale) -> list[Configuration]:
    """How many activation paths have how many training samples: pairs of samples and paths."""
    paths = activation_paths(model, parts[0].x, gamma=FIGURE4["gamma"])
    samples, of = np.unique(paths.counts, return_counts=True)
    return [{"settings": FIGURE4, "counts_of_paths": np.stack([samples, of], axis=1).tolist()}]


def sweep(
    model: nn.Module,
    parts: Parts,
    seed: int,
    scale: Scale,
    *,
    over: str,
    terms: Terms = PLAIN,
    judged: Callable[[nn.Module, Dataset], Configuration] = tested,
) -> list[Configuration]:
    """FairNeuron for each value of γ or θ, the other one fixed; and the naive model.

    Args:
        model: The naive model.
        parts: Training, validation and test part.
        seed: Of everything random.
        scale: Of the experiment.
        over: "gamma" or "theta".
        terms: With the loss.
        judged: Maps a model and the test part to its figures.
    """
    values = scale.sweep(over)
    tried = [FIGURE5 | {over: value} for value in values]
    sliced = {
        gamma: activation_paths(model, parts[0].x, gamma=gamma)
        for gamma in dict.fromkeys(each["gamma"] for each in tried)
    }
    masks = [rare_paths(sliced[each["gamma"]], each["theta"]) for each in tried]
    models = retrained(model, parts, masks, scale=scale, seed=seed, terms=terms)
    found = [({"naive": True}, model), *zip(tried, models, strict=True)]
    return [
        {"settings": plain(cast("Mapping[str, Any]", settings)), **judged(one, parts[2])}
        for settings, one in found
        if one is not None
    ]


MEASURES: dict[str, Measure] = {
    "clusters": clusters,
    "ablations": ablations,
    "steps": steps,
    "paths": path_counts,
    "theta": partial(sweep, over="theta"),
    "gamma": partial(sweep, over="gamma"),
}

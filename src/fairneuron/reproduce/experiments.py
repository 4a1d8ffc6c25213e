"""What each of the paper's tables and figures computes, for one seed at a time.

An experiment reads records of some *parts* (a data set in a protocol). The records are those of
``fairneuron.compare``: a line per seed and method, with the same splits, base models, clocks and
resumption. Three kinds of jobs write them: ``MethodsJob`` runs mitigators, ``MeasuresJob`` takes
recipe "paper" apart, ``PublishedJob`` does so in the published COMPAS pipeline.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, cast

import numpy as np
from torch import nn

from fairneuron.audit import audit_scores, predict
from fairneuron.baselines.dropout import random_samples
from fairneuron.clustering import rare_paths, summarise_paths
from fairneuron.compare.methods import METHODS, MakeMitigator, Named
from fairneuron.compare.protocol import Clock, Job, plain
from fairneuron.compare.records import Record
from fairneuron.compare.setting import OneDataset, PaperNetwork, Setting
from fairneuron.counterfactual import counterfactual_flip_rate
from fairneuron.data.builtin import SOURCES, load_dataset
from fairneuron.data.dataset import Dataset, Mask
from fairneuron.errors import DataError, FairNeuronError, ModelError
from fairneuron.loading import Parts
from fairneuron.reproduce.figures import figures_of
from fairneuron.reproduce.paper import EA, OURS
from fairneuron.reproduce.published import (
    compas_table,
    evaluate,
    published_data,
    regressed,
    squared_error,
)
from fairneuron.search.together import Job as Training
from fairneuron.search.together import train_together
from fairneuron.settings import Schedule
from fairneuron.slicing import activation_paths
from fairneuron.terms import Loss, Terms
from fairneuron.tracing import trace
from fairneuron.training import PLAIN, train
from fairneuron.trials import Trial

Configuration = dict[str, Any]
Measure = Callable[[nn.Module, Parts, int, "Scale"], list[Configuration]]

CENSUS, CREDIT, COMPAS, PUBLISHED = PARTS = ("census", "credit", "compas", "compas-published")
SENSITIVE = {CENSUS: "sex", CREDIT: "age", COMPAS: "race"}
OUTPUTS = {CENSUS: 2, CREDIT: 2, COMPAS: 1}
"""Softmax over two logits for Census and Credit, a linear output for COMPAS (section 4.1)."""
GAMMA, THETA, DROPOUT = 0.9, 1e-3, 0.1
"""Of single runs: the release's defaults."""
FIGURE4 = {"gamma": 0.6, "theta": 0.03}
FIGURE5 = {"gamma": 0.95, "theta": 0.01}
"""Held fixed while the other one varies. Both as in the release's FN/plot_figures.py."""


@dataclass(frozen=True)
class Scale:
    """How large an experiment is.

    Attributes:
        quick: Whether it only shows that everything runs: few rows, epochs and values.
        sample: A file with a part of CIFAR-10, to take in the place of all of it.
    """

    quick: bool = False
    sample: str | None = None

    @property
    def rows(self) -> int | None:
        """Of each data set; all of them if None."""
        return 400 if self.quick else None

    @property
    def schedule(self) -> Schedule:
        """Of every training: Adam, learning rate .01, × .1 on a plateau (section 4.1)."""
        return Schedule(epochs=2 if self.quick else 50)

    @property
    def gammas(self) -> tuple[float, ...]:
        """γ that are searched, from the paper's [.5, 1]."""
        return (0.5, 0.9) if self.quick else (0.5, 0.75, 0.95)

    @property
    def thetas(self) -> tuple[float, ...]:
        """θ that are searched, evenly on the logarithmic scale of the paper's [1e-4, 1]."""
        return (1e-3, 0.1) if self.quick else (1e-4, 2e-3, 5e-2, 1.0)

    @property
    def published(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """γ and θ of the release's search (FN/FairNeuron.py)."""
        if self.quick:
            return self.gammas, self.thetas
        return (0.95, 0.9, 0.85, 0.8, 0.7, 0.6), (0.1, 0.01, 3e-3, 1e-3, 3e-4, 1e-4)

    def sweep(self, over: str) -> tuple[float, ...]:
        """γ or θ of figure 5, ascending."""
        if over == "gamma":
            return tuple(np.round(np.linspace(0.5, 1, 3 if self.quick else 11), 3).tolist())
        return tuple(np.logspace(-4, 0, 3 if self.quick else 13).round(6).tolist())


@dataclass(frozen=True, eq=False)
class PaperSetting(Setting):
    """Splits, and base models that are trained as the paper says, for all epochs.

    Attributes:
        scale: Of the experiment.
        loss: Of the base model; cross entropy unless given.
    """

    scale: Scale = Scale()
    loss: Loss | None = None

    @property
    def schedule(self) -> Schedule:
        """Of the naive model's training."""
        return self.scale.schedule

    def base(self, parts: Parts, seed: int) -> nn.Module:
        """The naive model.

        Raises:
            ModelError: If it diverges.
        """
        model = self._start(parts, seed)
        if not self._train(model, parts, seed):
            raise ModelError(
                "model-diverged",
                "Training must keep the loss finite",
                got=f"a learning rate of {self.schedule.learning_rate}",
                cure="Scale the inputs.",
            )
        return model.eval()

    def _train(self, model: nn.Module, parts: Parts, seed: int) -> bool:
        """Trains it in place; whether every loss was finite."""
        return train(model, *parts[:2], self.schedule, seed=seed, terms=Terms(self.loss))

    def describe(self) -> dict[str, Any]:
        """See ``Setting``."""
        return super().describe() | {
            "schedule": asdict(self.schedule),
            "quick": self.scale.quick,
        }


def setting_of(part: str, scale: Scale) -> PaperSetting:
    """The setting of a part; the sensitive column is an input in all of them."""
    if part == PUBLISHED:
        data, network = published_data(compas_table()), PaperNetwork(SOURCES[COMPAS].hidden)
    else:
        data = load_dataset(part, sensitive=SENSITIVE[part], include_sensitive=True)
        network = PaperNetwork(SOURCES[part].hidden, OUTPUTS[part])
    if scale.rows is not None:
        data = data.subset(np.random.default_rng(0).permutation(len(data))[: scale.rows])
    loss = squared_error if part == PUBLISHED else None
    return PaperSetting(OneDataset(data), network, scale=scale, loss=loss)


# Mitigators: tables 4 and 5


def methods_of(scale: Scale) -> dict[str, MakeMitigator]:
    """The methods of table 4, in its order; ours and two more rows come last."""
    schedule = ("schedule", scale.schedule)
    paper = (("recipe", "paper"), schedule, ("gamma", scale.gammas), ("theta", scale.thetas))
    own: dict[str, MakeMitigator] = {
        OURS: Named("repair:FairNeuron", options=(*paper, ("dropout", DROPOUT))),
        "fairneuron": METHODS["fairneuron"],
        "unawareness": Named(
            "reproduce.unawareness:Unawareness", takes_limit=False, options=(schedule,)
        ),
    }
    known = {name: METHODS[name] for name in ("naive", "reweighing", "reject-option", "fad")}
    known[THRESHOLDS] = replace(known["fad"], options=(("thresholds", True),))
    known[EA] = METHODS[EA]
    if scale.quick:
        known |= {name: replace(known[name], options=few) for name, few in _FEW.items()}
    return known | own


THRESHOLDS = "fad-thresholds"
"""FAD with thresholds per group on top, which read the group to predict."""
_STRENGTHS = ("strengths", (0.5, 1.0))
_FEW: dict[str, tuple[tuple[str, Any], ...]] = {
    "reweighing": (_STRENGTHS,),
    "fad": (_STRENGTHS,),
    THRESHOLDS: (_STRENGTHS, ("thresholds", True)),
    EA: (_STRENGTHS, ("iterations", 1)),
}
"""What methods that take long try in a quick run."""


@dataclass(frozen=True, eq=False)
class MethodsJob(Job):
    """Mitigators on one split; records have the test counts and flip rates too."""

    source: str = ""

    def _records(self, parts: Parts) -> Iterator[Record]:
        for record in super()._records(parts):
            yield record | {"source": self.source}

    def _configuration(self, trial: Trial, parts: Parts) -> Configuration:
        found = super()._configuration(trial, parts)
        if found["test"] is None or trial.model is None:
            return found
        return found | tested(trial.model, parts[2])


def tested(model: Any, test: Dataset) -> Configuration:
    """Test counts of a model, and its flip rate or why there is none."""
    counts = audit_scores(predict(model, test), test).counts
    try:
        flips: dict[str, Any] = {"flip_rate": counterfactual_flip_rate(model, test)}
    except DataError as error:
        flips = {"flip_rate": None, "no_flip_rate": error.rule}
    return {"counts": counts.tolist(), **flips}


# Recipe "paper" taken apart


@dataclass(frozen=True, eq=False)
class MeasuresJob(MethodsJob):
    """What else is measured of the base model of one split; ``methods`` are ``Measure``."""

    scale: Scale = Scale()

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
    published: bool = False,
) -> list[Configuration]:
    """FairNeuron for each value of γ or θ, the other one fixed; and the naive model.

    Args:
        model: The naive model.
        parts: Training, validation and test part.
        seed: Of everything random.
        scale: Of the experiment.
        over: "gamma" or "theta".
        published: Whether the model regresses the decile score.
    """
    terms, judged = (Terms(squared_error), published_tested) if published else (PLAIN, tested)
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


# The published COMPAS pipeline


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
    models = retrained(model, parts, masks, scale=scale, seed=seed, terms=Terms(loss=squared_error))
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
    over: partial(sweep, over=over, published=True) for over in ("theta", "gamma")
}


def figures_of_configuration(configuration: Configuration) -> dict[str, float | None]:
    """Those of its test counts, and its flip rate."""
    found = figures_of(configuration["counts"], configuration.get("eo_counts"))
    return found | {"flip_rate": configuration.get("flip_rate")}

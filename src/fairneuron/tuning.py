"""The search for the settings of recipe ``paper``, on a share of the training data.

Gao et al., sections 3.4 and 4: θ and γ are searched on a tenth of the data, and the candidates are
compared by a weighted sum of accuracy and fairness.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from torch import nn

from fairneuron.checks import copied
from fairneuron.data.dataset import Dataset
from fairneuron.errors import OptionError, require_range, require_whole
from fairneuron.forward import one_thread
from fairneuron.paths import Paths
from fairneuron.progress import Progress, quiet
from fairneuron.recipes import Paper, Split, Task, make_recipe
from fairneuron.repair import FairNeuron
from fairneuron.search.cluster import check_place, check_resources, run_on_ray
from fairneuron.search.space import (
    GAMMA,
    SAMPLES,
    SCORED,
    SHARE,
    THETA,
    Point,
    combined,
    drawn,
    full_weights,
    score,
)
from fairneuron.settings import Numbers
from fairneuron.trials import Retrained, run_trial


def search(
    model: nn.Module,
    train: Dataset,
    valid: Dataset,
    *,
    samples: int = SAMPLES,
    grid: Mapping[str, Sequence[float]] | None = None,
    theta: tuple[float, float] = THETA,
    gamma: tuple[float, float] = GAMMA,
    dropout: Numbers = 0.1,
    share: float = SHARE,
    weights: Mapping[str, float] | None = None,
    on: str = "process",
    resources: Mapping[str, float] | None = None,
    threshold: float = 0.5,
    seed: int = 0,
    progress: Progress = quiet,
    **options: Any,
) -> Search:
    """Searches settings of recipe ``paper``: for ``repair(..., recipe="paper", **found.best)``.

    Every candidate is retrained on the same share of the training data and audited on validation
    data. Its figures are the same to the bit in this process and on Ray, where a trial holds some
    of the candidates and trains them on one CPU thread, unless the model is on a GPU here.

    Args:
        model: A trained, traceable classifier; it is not changed.
        train: The data it was trained on.
        valid: Other data, to score the candidates.
        samples: How many candidates are drawn, 1 to 10,000; plays no part with a grid.
        grid: "theta", "gamma" and "dropout" to lists of values, of which all combinations are
            tried; what is left out has six values of its range, evenly spaced (θ: on the
            logarithmic scale). None to draw.
        theta: Lowest and highest value in (0, 1]; drawn log-uniformly.
        gamma: Lowest and highest value in (0, 1]; drawn uniformly.
        dropout: In (0, 1), one or several; drawn too. It plays no part in networks with dropout
            layers of their own.
        share: In (0, 1]: of the training rows, drawn for each label and group, at least one each.
        weights: Of "accuracy", "dp", "dpr" and "eo" in the score, at least 0; 1 unless given. See
            ``fairneuron.search.space.score``.
        on: "process"; "ray" for the Ray that runs, or one that is started on this machine alone;
            or the "ray://HOST:PORT" of a cluster.
        resources: What a trial on Ray takes, such as {"CPU": 2}; one CPU unless given.
        threshold: On the probability of class 1, where candidates are audited.
        seed: Of candidates, rows and training. Same seed, same result.
        progress: Told of each step.
        **options: Other settings of the recipe by name, for example ``epochs=10``.

    Returns:
        The candidates with their figures and scores, and which one wins.

    Raises:
        OptionError: For values out of range, a Ray that is missing or does not answer, or
            resources that no machine of it has.
        ModelError: For networks that cannot be traced.
        DataError: For fewer than two groups or classes, and labels that the model has no output
            for.
    """
    require_whole("seed", seed)
    require_range("seed", seed, 0, 2**63 - 1)
    require_range("threshold", threshold, 0, 1)
    require_range("share", share, 0, 1, open_low=True)
    ranges: dict[str, Any] = {"theta": theta, "gamma": gamma, "dropout": dropout}
    points = drawn(samples, **ranges, seed=seed) if grid is None else combined(grid, **ranges)
    counts = full_weights(weights or {})
    check_place(on)
    takes = check_resources(resources)
    recipe = make_recipe("paper", options)
    assert isinstance(recipe, Paper)  # noqa: S101  # by its name

    part = share_of(train, share, seed)
    original = _candidate(0, ({}, model, True), valid, threshold)
    trial = _Trial(model, part, valid, recipe, tuple(points), threshold, seed, progress)
    if on == "process":
        candidates = trial(range(len(points)))
    else:
        away = replace(trial, model=copied(model).cpu(), progress=quiet)
        same_gamma: dict[float, list[int]] = {}
        for number, point in enumerate(points):
            same_gamma.setdefault(point.gamma, []).append(number)
        found = run_on_ray(away, list(same_gamma.values()), on, takes, progress)
        candidates = [found[number] for number in range(len(points))]
    return Search(tuple(candidates), original, counts, len(part), threshold, seed, options)


@dataclass(frozen=True)
class Candidate:
    """What came of some settings.

    Attributes:
        number: From 1; 0 is the original model.
        settings: θ, γ and dropout; none of the original.
        biased: Share of the training rows in use that had rare paths.
        metrics: On validation data, by name; None if it diverged.
        rejected: Why it cannot win whatever the weights, or None.
    """

    number: int
    settings: dict[str, float]
    biased: float
    metrics: dict[str, float | None] | None
    rejected: str | None

    def __repr__(self) -> str:
        tried = ", ".join(f"{name} {value:g}" for name, value in self.settings.items())
        metrics = {name: (self.metrics or {}).get(name) for name in ("accuracy", "dp", "eo")}
        found = ", ".join(f"{name} {v:.3f}" for name, v in metrics.items() if v is not None)
        title = f"{self.number}: {tried}" if self.number else "0, the original"
        return f"Candidate({'; '.join(filter(None, (title, found, self.rejected)))})"


@dataclass(frozen=True, eq=False)
class Search:
    """The result of a search.

    ``dataclasses.replace(found, weights=...)`` is the same search under other weights.

    Attributes:
        candidates: In the order in which they were drawn.
        original: The model as it was, for comparison.
        weights: Of the metrics in the score; 1 where none is given.
        rows: Training rows that were used.
        threshold: On the probability of class 1.
        seed: Of everything random.
        options: Other settings of the recipe, as given.
    """

    candidates: tuple[Candidate, ...]
    original: Candidate
    weights: Mapping[str, float]
    rows: int
    threshold: float = 0.5
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        full_weights(self.weights)

    def __repr__(self) -> str:
        best = "none can win" if self.winner is None else f"the best is {self.winner}"
        return f"Search({len(self.candidates)} candidates, {self.rows} rows; {best})"

    def score(self, candidate: Candidate) -> float | None:
        """Its weighted sum, larger is better; None if it cannot win."""
        if candidate.rejected is not None or candidate.metrics is None:
            return None
        return score(candidate.metrics, full_weights(self.weights))

    @property
    def ranked(self) -> tuple[Candidate, ...]:
        """The candidates that can win, the best first; of equal ones the first that was drawn."""
        scored = [(self.score(candidate), candidate) for candidate in self.candidates]
        able = [(value, candidate) for value, candidate in scored if value is not None]
        return tuple(c for _, c in sorted(able, key=lambda pair: -pair[0]))

    @property
    def winner(self) -> Candidate | None:
        """The candidate with the highest score; None if none can win."""
        return next(iter(self.ranked), None)

    @property
    def best(self) -> dict[str, Any]:
        """The winner's settings, for ``repair(..., recipe="paper", **found.best)``.

        Raises:
            OptionError: If no candidate can win.
        """
        if self.winner is None:
            raise OptionError(
                "option-search",
                "A search needs a candidate that can win",
                got="none: each diverged, predicts one class alone or has an undefined metric",
                cure="Try more samples, a larger share, or other ranges.",
            )
        return {**self.options, **self.winner.settings}

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return {
            "recipe": "paper",
            "rows": self.rows,
            "seed": self.seed,
            "threshold": self.threshold,
            "weights": full_weights(self.weights),
            "options": {name: _plain(value) for name, value in self.options.items()},
            "original": self._figures(self.original),
            "candidates": [self._figures(candidate) for candidate in self.candidates],
            "winner": None if self.winner is None else self.winner.number,
        }

    def _figures(self, candidate: Candidate) -> dict[str, Any]:
        metrics = candidate.metrics or {}
        undefined = [n for n in SCORED if self.weights.get(n, 1) and metrics.get(n) is None]
        why = f"{undefined[0]} is undefined" if undefined else None
        return {
            **dataclasses.asdict(candidate),
            "rejected": candidate.rejected or why,
            "score": self.score(candidate),
        }


def share_of(data: Dataset, share: float, seed: int) -> Dataset:
    """A share of the rows, drawn for each label and group: at least one row each, in their order.

    Args:
        data: n rows.
        share: In (0, 1].
        seed: Another seed, other rows.
    """
    rng = np.random.default_rng(seed)
    cell = data.y * len(data.group_names) + data.group  # (n,)
    rows = [rng.permutation(np.flatnonzero(cell == each)) for each in np.unique(cell)]
    taken = [own[: max(1, round(share * len(own)))] for own in rows]
    return data.subset(np.sort(np.concatenate(taken)))


@dataclass(frozen=True, eq=False)
class _Trial:
    """Retrains and audits some of the candidates; see ``search``."""

    model: nn.Module
    train: Dataset
    valid: Dataset
    recipe: Paper
    points: tuple[Point, ...]
    threshold: float
    seed: int
    progress: Progress

    def __call__(self, numbers: Sequence[int]) -> list[Candidate]:
        """What comes of the candidates with these positions, in this order."""
        points = tuple(self.points[number] for number in numbers)
        listed = _Listed.of(self.recipe, points, self.progress)
        tried = FairNeuron(listed, threshold=self.threshold).candidates(
            self.model, self.train, self.valid, seed=self.seed
        )
        return [
            _candidate(number + 1, retrained, self.valid, self.threshold)
            for number, retrained in zip(numbers, tried, strict=True)
        ]


def _candidate(number: int, retrained: Retrained, valid: Dataset, threshold: float) -> Candidate:
    """Audits what was retrained."""
    with one_thread():
        trial = run_trial(number, retrained, valid, {}, threshold)
    settings = dict(trial.settings)
    biased = settings.pop("biased", 0.0)
    return Candidate(number, settings, biased, trial.metrics, trial.rejected)


@dataclass(frozen=True)
class _Listed(Paper):
    """Recipe ``paper`` for a list of settings, in the place of all their combinations.

    Attributes:
        points: The list.
        progress: Told of each step.
    """

    points: tuple[Point, ...] = ()
    progress: Progress = quiet

    @classmethod
    def of(cls, recipe: Paper, points: tuple[Point, ...], progress: Progress) -> _Listed:
        """The recipe, for these points."""
        own = {setting.name: getattr(recipe, setting.name) for setting in fields(Paper)}
        own["gamma"] = tuple(point.gamma for point in points)
        return cls(**own, points=points, progress=progress)

    def slice(self, task: Task) -> dict[float, Paths]:
        """Once for each γ."""
        return super().slice(replace(task, progress=self.progress))

    def cluster(self, sliced: dict[float, Paths]) -> list[Split]:
        """A split for each point, in their order."""
        return [
            split
            for point in self.points
            for split in Paper(theta=point.theta).cluster({point.gamma: sliced[point.gamma]})
        ]

    def retrain(self, task: Task, splits: list[Split]) -> Iterator[Retrained]:
        """A network for each point; those that would be trained alike are trained once."""
        task = replace(task, progress=self.progress)
        has_rate = self.has_rate(task.model)
        keys = [
            (self._sameness(split), point.dropout if has_rate else None)
            for split, point in zip(splits, self.points, strict=True)
        ]
        tried = {
            key: (split, point.dropout)
            for key, split, point in zip(keys, splits, self.points, strict=True)
        }
        trained = dict(zip(tried, self.train_all(task, [*tried.values()]), strict=True))
        for key, split, point in zip(keys, splits, self.points, strict=True):
            _, network, finite = trained[key]
            yield {**point._asdict(), "biased": float(split.biased.mean())}, network, finite

    def _sameness(self, split: Split) -> tuple[Any, ...]:
        """What is the same in splits that train alike."""
        return split.biased.tobytes(), split.gamma if self.drop == "outside_path" else None


def _plain(value: Any) -> Any:
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value  # type: ignore[arg-type]

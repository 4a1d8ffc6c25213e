"""Repair: what may change, what is chosen, and what is said of it."""

import copy
import dataclasses
from itertools import combinations, product

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parameters_to_vector

import fairneuron as fn
from fairneuron.audit import Audit
from fairneuron.errors import DataError, ModelError, OptionError
from fairneuron.models import mlp
from fairneuron.recipes import Conflict, Paper
from fairneuron.search.together import Job, train_together
from fairneuron.trials import Trial, choose, front, run_trial
from tests.test_slicing import Residual

QUICK = {"stops": (0.5, 0.0)}
LONG = fn.Schedule(epochs=10, batch_size=512, learning_rate=0.002, plateau=None, min_steps=200)


def same(one: nn.Module, other: nn.Module) -> bool:
    """Whether the weights of two networks are the same to the bit."""
    return all(torch.equal(v, other.state_dict()[k]) for k, v in one.state_dict().items())


def watched(monkeypatch: pytest.MonkeyPatch) -> tuple[list[Job], list[fn.Schedule]]:
    """Lists that get what recipes train, as it is before, and how."""
    jobs: list[Job] = []
    schedules: list[fn.Schedule] = []

    def spy(given, data, valid, schedule, **options) -> list[bool]:
        jobs.extend(dataclasses.replace(job, model=copy.deepcopy(job.model)) for job in given)
        schedules.append(schedule)
        return train_together(given, data, valid, schedule, **options)

    monkeypatch.setattr("fairneuron.recipes.train_together", spy)
    return jobs, schedules


@pytest.fixture(scope="module")
def repaired(parts, trained):
    """A repair with the default recipe; the data are few."""
    options = {"neuron_share": 0.25, "schedule": LONG}
    return fn.repair(trained, parts[0], parts[1], limit={"dp": 0.2}, **options)


def test_the_gap_shrinks_on_test_data(parts, trained, repaired) -> None:
    """By more than a third, on data that no step saw."""
    before, after = (fn.audit(m, parts[2]).metrics["dp"] for m in (trained, repaired.model))
    assert before > 0.4
    assert after < before * 2 / 3


def test_only_incoming_weights_of_the_share_change(trained, repaired) -> None:
    """At most the share of the hidden neurons differ in a bit; the rest of the network does not."""
    changed = set()
    for name, value in repaired.model.state_dict().items():
        rows = (
            (value != trained.state_dict()[name])
            .reshape(len(value), -1)
            .any(1)
            .nonzero()[:, 0]
            .tolist()
        )
        layer = name.split(".")[0]
        assert layer != "4" or not rows
        changed |= {(layer, row) for row in rows}
    assert 0 < len(changed) <= 0.25 * 24
    assert changed == {(n.layer, n.unit) for n in repaired.explanation.neurons}


def test_same_class_forward_and_keys_and_mode(trained, repaired) -> None:
    """A repaired model takes the original's place."""
    assert type(repaired.model) is type(trained)
    assert list(repaired.model.state_dict()) == list(trained.state_dict())
    assert repaired.model.training == trained.training
    assert [p.requires_grad for p in repaired.model.parameters()] == [True] * 6
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in repaired.model.modules())


def test_the_given_model_is_untouched(parts, trained, weights_before) -> None:
    """By both recipes."""
    for recipe in ("conflict", "paper"):
        fn.repair(trained, parts[0], parts[1], recipe=recipe, epochs=1)
        assert all(torch.equal(v, weights_before[k]) for k, v in trained.state_dict().items())
        assert all(p.grad is None for p in trained.parameters())


def test_same_seed_same_result(parts, trained) -> None:
    """Bit for bit."""
    results = [fn.repair(trained, parts[0], parts[1], seed=3, **QUICK) for _ in range(2)]
    one, other = (r.model.state_dict() for r in results)
    assert all(torch.equal(one[k], other[k]) for k in one)
    assert results[0].verdict.to_dict() == results[1].verdict.to_dict()
    assert results[0].explanation == results[1].explanation


def test_front_is_sorted_and_undominated(repaired) -> None:
    """Smaller gaps cost accuracy along the front; the chosen one is a trial."""
    gaps = [t.gap(repaired.limit) for t in repaired.front]
    accuracies = [t.accuracy for t in repaired.front]
    assert gaps == sorted(gaps)
    assert accuracies == sorted(accuracies)
    assert repaired.chosen in repaired.trials
    for trial in repaired.trials:
        assert any(
            f.gap(repaired.limit) <= trial.gap(repaired.limit) and f.accuracy >= trial.accuracy
            for f in repaired.front
        )


def test_the_most_accurate_within_the_limit_is_chosen(repaired) -> None:
    """By validation figures."""
    within = [t for t in repaired.trials if t.violation(repaired.limit) == 0]
    assert within
    assert repaired.chosen.accuracy == max(t.accuracy for t in within)
    assert repaired.chosen in within


def made_trial(number: int, accuracy: float, gap: float, rejected: str | None = None) -> Trial:
    """A trial of 2 × 1000 samples, half of them positive, with this accuracy and DP."""
    counts = np.empty((2, 2, 2), dtype=np.int64)
    for g, selected in enumerate((500 + round(500 * gap), 500 - round(500 * gap))):
        false_positive = (round(1000 * (1 - accuracy)) + selected - 500) // 2
        true_positive = selected - false_positive
        counts[g] = [[500 - false_positive, false_positive], [500 - true_positive, true_positive]]
    audited = Audit(counts, None, ("A", "B"), (("A",), ("B",)), ("s",))
    return Trial(number, {}, audited.metrics, rejected, audit=audited)


@pytest.mark.parametrize(
    ("figures", "chosen"),
    [
        ([(0.8, 0.3), (0.7, 0.04), (0.75, 0.05), (0.78, 0.06)], 2),  # most accurate within .05
        ([(0.8, 0.3), (0.8, 0.2), (0.7, 0.1)], 2),  # none within: the nearest
        ([(0.8, 0.04), (0.7, 0.01)], 0),  # the original stays unless one is better
        ([(0.8, 0.3), (0.8, 0.3)], 0),
        ([(0.8, 0.02), (0.85, 0.04), (0.82, 0.01)], 2),  # never one with a larger gap than it
    ],
)
def test_choice(figures: list[tuple[float, float]], chosen: int) -> None:
    """Most accurate within the limit, else the smallest gap; ties stay with the original."""
    trials = [made_trial(i, *f) for i, f in enumerate(figures)]
    assert choose(trials, {"dp": 0.05}).number == chosen


def test_the_choice_needs_figures_alone(repaired) -> None:
    """Trials restored from plain values are chosen among as those with models."""
    plain = [dataclasses.replace(t, model=None, audit=None) for t in repaired.trials]
    assert choose(plain, repaired.limit).number == repaired.chosen.number
    assert [t.number for t in front(plain, repaired.limit)] == [t.number for t in repaired.front]
    for limit in ({"dp": 0.3}, {"dp": 0.1}, {"dp": 0.0}):
        assert choose(plain, limit).number == choose(list(repaired.trials), limit).number


def test_a_trial_without_the_limited_metric_is_not_chosen() -> None:
    """Also where it was tried under another limit, which it met."""
    trials = [made_trial(0, 0.8, 0.3), made_trial(1, 0.8, 0.1)]
    trials[1] = dataclasses.replace(trials[1], metrics=trials[1].metrics | {"eo": None})
    assert choose(trials, {"dp": 0.2}).number == 1
    assert choose(trials, {"eo": 0.2}).number == 0
    assert [t.number for t in front(trials, {"eo": 0.2})] == [0]


def test_rejected_trials_are_never_chosen_nor_on_the_front() -> None:
    """Constant, undefined or diverged candidates do not win with their gap of 0."""
    trials = [made_trial(0, 0.8, 0.3), made_trial(1, 0.8, 0.0, "predicts one class alone")]
    assert choose(trials, {"dp": 0.05}).number == 0
    assert [t.number for t in front(trials, {"dp": 0.05})] == [0]


def test_diverged_and_constant_candidates_are_rejected(parts, trained) -> None:
    """A rate that explodes and a strength that flattens.

    The original is kept, and the verdict says so.
    """
    wild = Conflict(
        neuron_share=1.0,
        schedule=fn.Schedule(epochs=2, learning_rate=1e30, plateau=None),
    )
    result = fn.repair(trained, parts[0], parts[1], recipe=wild)
    assert [t.rejected for t in result.trials[1:]] == ["diverged"]  # there is no way to it
    assert result.trials[1].settings == {"neuron_share": 1.0, "strength": 0.7}
    assert result.chosen.number == 0
    assert result.model is not trained
    assert all(
        torch.equal(v, trained.state_dict()[k]) for k, v in result.model.state_dict().items()
    )
    assert result.verdict.outcome == "no reliable improvement"

    flat = Conflict(
        neuron_share=1.0,
        strengths=1e5,
        stops=0.0,
        schedule=fn.Schedule(epochs=30, learning_rate=0.5, plateau=None),
    )
    result = fn.repair(trained, parts[0], parts[1], recipe=flat)
    assert result.trials[1].rejected in ("predicts one class alone", "diverged")
    assert result.chosen.number == 0


def saying(decisions: list[int]) -> nn.Module:
    """A network that decides so of the rows of a unit matrix."""
    net = nn.Linear(len(decisions), 1, bias=False)
    with torch.no_grad():
        net.weight.copy_(9.0 * torch.tensor(decisions) - 4.5)
    return net


@pytest.mark.parametrize(
    ("original", "candidate", "rejected"),
    [
        ([1, 1, 1, 1, 0, 0], [1, 1, 1, 0, 1, 0], True),  # as many right as four times 1
        ([1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 0, 1], False),
        ([1, 1, 0, 0, 0, 0], [1, 0, 1, 0, 0, 0], False),  # the original is no better itself
    ],
)
def test_what_no_longer_tells_labels_apart_is_rejected(original, candidate, rejected) -> None:
    """It closes any gap, and a constant answer would be as good."""
    data = fn.Dataset.from_arrays(np.eye(6), [1, 1, 1, 1, 0, 0], [0, 0, 1, 1, 0, 1])
    first = run_trial(0, ({}, saying(original), True), data, {"dp": 0.1})
    trial = run_trial(1, ({}, saying(candidate), True), data, {"dp": 0.1}, original=first)
    reason = "no more accurate than always predicting the most frequent class"
    assert trial.rejected == (reason if rejected else None)
    assert first.rejected is None


def test_what_hardly_tells_classes_apart_is_rejected() -> None:
    """Where one is rare, by chance it is right in most cases."""
    y = np.arange(100) % 20 == 0
    data = fn.Dataset.from_arrays(np.eye(100), y, np.arange(100) % 2)
    found = []
    for hits, alarms in ((5, 20), (4, 3), (1, 12), (1, 0)):
        decisions = np.zeros(100, dtype=int)
        decisions[np.flatnonzero(y)[:hits]] = decisions[np.flatnonzero(~y)[:alarms]] = 1
        trial = (len(found), ({}, saying(decisions.tolist()), True), data, {"dp": 0.1})
        found.append(run_trial(*trial, original=found[0] if found else None))
    reasons = [None, None, "hardly tells the classes apart", None]
    assert [trial.rejected for trial in found] == reasons


def test_a_larger_gap_is_never_chosen_also_where_the_original_is_constant() -> None:
    """Its gap is 0."""
    constant = made_trial(0, 0.8, 0.0, "predicts one class alone")
    assert choose([constant, made_trial(1, 0.79, 0.02)], {"dp": 0.1}).number == 0


def test_an_unmet_limit_still_gives_the_nearest_candidate(parts, trained) -> None:
    """The model is the selected candidate, and the verdict names what it missed."""
    result = fn.repair(trained, parts[0], parts[1], limit={"dp": 0.0}, strengths=0.2)
    assert len(result.trials) > 2
    gaps = [t.gap(result.limit) for t in result.trials]
    assert 0 < result.chosen.gap(result.limit) == min(gaps) < gaps[0]
    assert result.verdict.outcome == "limit not met"
    assert "limit ≤ 0 not met" in result.verdict.sentence()


@pytest.mark.parametrize("metric", ["dp", "dpr", "eo", "eodds"])
def test_each_limit_is_worked_on(parts, trained, metric: str) -> None:
    """The limited metric gets better on validation data."""
    limit = {metric: 0.9 if metric == "dpr" else 0.05}
    result = fn.repair(trained, parts[0], parts[1], limit=limit, neuron_share=0.3, schedule=LONG)
    (change,) = result.verdict.limits
    assert change.metric == metric
    assert change.gain > 0.05


def test_several_limits_at_once(parts, trained) -> None:
    """Violations are summed, each on the part of the data where it is larger."""
    result = fn.repair(trained, parts[0], parts[1], limit={"dp": 0.1, "eo": 0.1}, **QUICK)
    assert {c.metric for c in result.verdict.limits} == {"dp", "eo"}
    for trial in result.trials:
        audits = [fn.audit(trial.model, part).metrics for part in parts[:2]]
        assert trial.violation(result.limit) == pytest.approx(
            sum(max(0, *(a[metric] - 0.1 for a in audits)) for metric in ("dp", "eo"))
        )


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
@pytest.mark.parametrize("limit", [{"dp": 0.15}, {"dp": 0.2, "eo": 0.3, "dpr": 0.5}])
def test_threshold(parts, trained, threshold: float, limit: dict[str, float]) -> None:
    """Candidates are audited, chosen and judged at it, under one limit or several."""
    result = fn.repair(
        trained, *parts[:2], threshold=threshold, limit=limit, neuron_share=0.3, **QUICK
    )
    assert result.threshold == threshold
    for trial in result.trials:
        found = fn.audit(trial.model, parts[1], threshold=threshold)
        assert trial.metrics == trial.audit.metrics == found.metrics
    assert choose(result.trials, limit) is result.chosen
    judged = fn.judge(trained, result.model, parts[1], limit, on="validation", threshold=threshold)
    assert result.verdict == judged
    assert {c.metric for c in result.verdict.limits} == set(limit)


def test_the_threshold_changes_where_to_stop_and_not_the_way(parts, trained) -> None:
    """Training knows nothing of it: every candidate lies in the direction of the same network."""
    start = parameters_to_vector(trained.parameters()).detach()
    amounts, ways = [], []
    for threshold in (0.2, 0.8):
        result = fn.repair(
            trained,
            *parts[:2],
            threshold=threshold,
            neuron_share=0.1,
            stops=(0.9, 0.7),
            strengths=0.7,
        )
        amounts.append([t.settings["amount"] for t in result.trials[1:]])
        ways += [
            (parameters_to_vector(t.model.parameters()).detach() - start) / t.settings["amount"]
            for t in result.trials[1:]
        ]
    assert amounts[0] != amounts[1]
    for way in ways:
        torch.testing.assert_close(way, ways[0], rtol=1e-3, atol=1e-5)
    assert ways[0].abs().max() > 1e-3


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan"), "0.5", None])
def test_thresholds_out_of_range_are_refused(parts, trained, threshold: object) -> None:
    """Before any work, and when the mitigator is made."""
    told = []
    for attempt in (
        lambda: fn.repair(
            trained, *parts[:2], threshold=threshold, progress=lambda *t: told.append(t)
        ),
        lambda: fn.FairNeuron(threshold=threshold),
    ):
        with pytest.raises(OptionError) as caught:
            attempt()
        assert caught.value.code == "option-range"
    assert told == []


def test_three_groups_and_residual_networks(parts) -> None:
    """K groups, odd names, functional activations."""
    from tests.conftest import made_up

    train, valid, _ = made_up(900, groups=3).split(0, fractions=(0.5, 0.25, 0.25))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Residual()
    from fairneuron.training import train as train_model

    train_model(net, train, valid, fn.Schedule(epochs=10, batch_size=32), seed=0)
    net.eval()
    result = fn.repair(net, train, valid, limit={"dp": 0.1}, neuron_share=0.3)
    assert type(result.model) is Residual
    assert result.verdict.limits[0].gain > 0.1


def test_two_logits(parts) -> None:
    """A softmax head is repaired too."""
    train, valid, _ = parts
    net = fn.train_classifier(
        train,
        valid,
        hidden=(12, 12),
        outputs=2,
        schedule=fn.Schedule(epochs=20, batch_size=32, patience=5),
    )
    result = fn.repair(net, train, valid, limit={"dp": 0.1})
    assert result.verdict.limits[0].gain > 0.1


def test_paper_recipe_is_slice_cluster_and_selective_dropout(
    parts, trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows trained with dropout are those with rare paths.

    From the biased model, in one candidate.
    """
    jobs, schedules = watched(monkeypatch)
    result = fn.repair(
        trained, parts[0], parts[1], recipe="paper", gamma=0.5, theta=0.2, dropout=0.3, epochs=2
    )
    (job,), (schedule,) = jobs, schedules
    paths = fn.activation_paths(trained, parts[0].x, gamma=0.5)
    np.testing.assert_array_equal(job.dropped, fn.rare_paths(paths, 0.2))
    assert 0 < job.dropped.sum() < len(job.dropped)
    assert same(job.model, trained)
    assert (job.only, job.dropout) == (None, 0.3)
    assert (schedule.epochs, schedule.learning_rate) == (2, 0.01)
    assert [t.settings for t in result.trials[1:]] == [{"gamma": 0.5, "theta": 0.2, "dropout": 0.3}]
    assert not same(result.trials[1].model, trained)
    assert result.explanation.biased == job.dropped.sum()


# Settings with several values


def test_a_strength_that_does_not_close_the_gap_is_raised(parts, trained, monkeypatch) -> None:
    """Once, for the shares that need it; a given one is kept."""
    jobs, _ = watched(monkeypatch)
    result = fn.repair(trained, *parts[:2], neuron_share=(0.05, 1.0), schedule=LONG)
    tried = [job.strength for job in jobs]
    assert tried[:2] == [0.7, 0.7]
    assert set(tried[2:]) <= {2.8}
    for share in (0.05, 1.0):
        ways = [t for t in result.trials[1:] if t.settings["neuron_share"] == share]
        closed = min(t.training["dp"] for t in ways) <= 0.2 * result.trials[0].training["dp"]
        assert closed or ways[0].settings["strength"] == 2.8
    jobs.clear()
    fn.repair(trained, *parts[:2], neuron_share=0.05, strengths=0.1, schedule=LONG)
    assert [job.strength for job in jobs] == [0.1]


def test_shares_that_pick_the_same_neurons_are_one(
    parts, trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are trained once, under the smallest of these shares; of 24 neurons .09 is two."""
    jobs, _ = watched(monkeypatch)
    shares = (0.1, 0.05, 0.09, 0.01, 0.1)
    result = fn.repair(trained, *parts[:2], neuron_share=shares, strengths=0.7, **QUICK)
    assert len(jobs) == 2
    freed = [sum(int(m.reshape(len(m), -1).any(1).sum()) for n, m in job.only.items()
                 if n.endswith("weight")) for job in jobs]  # fmt: skip
    assert freed == [1, 2]
    assert {t.settings["neuron_share"] for t in result.trials[1:]} == {0.01, 0.09}
    assert len(result.explanation.neurons) == (
        2 if result.chosen.settings.get("neuron_share") == 0.09 else 1
    )


def test_every_share_is_tried_with_every_strength(parts, trained) -> None:
    """Each pair has its candidates, no two of which are the same."""
    options = {"neuron_share": (0.1, 0.5), "strengths": (0.3, 0.7, 0.3), "stops": 0.8}
    result = fn.repair(trained, *parts[:2], **options)
    found = [(t.settings["neuron_share"], t.settings["strength"]) for t in result.trials[1:]]
    assert found == [(0.1, 0.3), (0.1, 0.7), (0.5, 0.3), (0.5, 0.7)]
    for a, b in combinations(result.trials, 2):
        assert not same(a.model, b.model)


def test_stops_are_on_the_way_to_one_network(parts, trained) -> None:
    """The gap on training data falls from stop to stop, to about the share that is asked for."""
    stops = (0.8, 0.6, 0.4)
    result = fn.repair(trained, *parts[:2], neuron_share=0.5, stops=stops, schedule=LONG)
    gaps = [fn.audit(t.model, parts[0]).metrics["dp"] for t in result.trials]
    amounts = [t.settings["amount"] for t in result.trials[1:]]
    assert amounts == sorted(amounts)
    np.testing.assert_allclose(np.array(gaps[1:]) / gaps[0], stops, atol=0.06)


def test_each_gamma_is_sliced_once(parts, trained, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many thresholds and rates are tried with it."""
    sliced = []

    def spy(*arguments: object, gamma: float, **options: object) -> fn.Paths:
        sliced.append(gamma)
        return fn.activation_paths(*arguments, gamma=gamma, **options)

    monkeypatch.setattr("fairneuron.recipes.activation_paths", spy)
    result = fn.repair(
        trained, *parts[:2], recipe="paper", gamma=(0.2, 0.3, 0.2), theta=(0.0, 0.2),
        dropout=(0.1, 0.3), epochs=1,
    )  # fmt: skip
    assert sliced == [0.2, 0.3]
    found = [tuple(t.settings.values()) for t in result.trials[1:]]
    assert found == [*product((0.2, 0.3), (0.0, 0.2), (0.1, 0.3))]


def test_thresholds_that_mark_the_same_samples_are_trained_once(
    parts, trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under the first of them; others that mark other samples are candidates of their own."""
    paths = fn.activation_paths(trained, parts[0].x, gamma=0.2)
    few, many = (fn.rare_paths(paths, theta) for theta in (1e-6, 0.2))
    np.testing.assert_array_equal(fn.rare_paths(paths, 2e-6), few)
    assert 0 < few.sum() < many.sum()
    jobs, _ = watched(monkeypatch)
    result = fn.repair(
        trained, *parts[:2], recipe="paper", gamma=0.2, theta=(1e-6, 2e-6, 0.2), epochs=1
    )
    assert [t.settings["theta"] for t in result.trials[1:]] == [1e-6, 0.2]
    for job, marked in zip(jobs, (few, many), strict=True):
        np.testing.assert_array_equal(job.dropped, marked)
    number = result.chosen.number
    assert result.explanation.biased == (many if number == 2 else few).sum()


COMPANY: dict[str, tuple[dict, list[dict]]] = {
    "conflict": (
        {"neuron_share": (0.05, 0.1, 0.5, 1.0), "strengths": (0.2, 0.7, 3.0)},
        [
            {"neuron_share": 0.05, "strengths": 0.7},
            {"neuron_share": 0.1, "strengths": 3.0},
            {"neuron_share": 1.0, "strengths": 0.2},
        ],
    ),
    "paper": (
        {"gamma": (0.2, 0.3), "theta": (0.0, 0.3, 1.0), "dropout": (0.1, 0.5)},
        [
            {"gamma": 0.2, "theta": 0.0, "dropout": 0.5},
            {"gamma": 0.3, "theta": 0.3, "dropout": 0.1},
            {"gamma": 0.2, "theta": 1.0, "dropout": 0.1},
        ],
    ),
}


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("recipe", COMPANY)
def test_a_setting_gives_the_same_in_any_company(parts, recipe: str, outputs: int) -> None:
    """To the bit, whichever other values are tried with it, also for networks of odd widths."""
    net = fn.train_classifier(
        *parts[:2], hidden=(13, 7), outputs=outputs, schedule=fn.Schedule(epochs=5, batch_size=32)
    )
    several, alone = COMPANY[recipe]
    more = QUICK if recipe == "conflict" else {}

    def found(options: dict) -> dict[tuple, nn.Module]:
        plan = fn.Schedule(epochs=4, batch_size=70, learning_rate=0.01)
        result = fn.repair(net, *parts[:2], recipe=recipe, schedule=plan, **options, **more)
        return {tuple(t.settings.items()): t.model for t in result.trials[1:]}

    together = found(several)
    for options in alone:
        for settings, model in found(options).items():
            assert same(model, together[settings]), settings
            assert not same(model, net)


def test_candidates_are_the_trials_of_a_repair(parts, trained) -> None:
    """With their settings, in the same order, without being judged."""
    ours = fn.FairNeuron(neuron_share=(0.1, 0.5), **QUICK)
    trials = ours.repair(trained, *parts[:2], seed=1).trials[1:]
    found = [*ours.candidates(trained, *parts[:2], seed=1)]
    assert [settings for settings, _, _ in found] == [t.settings for t in trials]
    for (_, model, finite), trial in zip(found, trials, strict=True):
        assert finite
        assert same(model, trial.model)


def test_paper_recipe_with_nobody_or_everybody_biased(parts, trained) -> None:
    """Theta 1 makes everybody biased; a network of one path makes nobody so. Neither crashes."""
    assert (
        fn.repair(trained, parts[0], parts[1], recipe="paper", theta=1, epochs=1).explanation.biased
        == 300
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        constant = mlp(5, (2,))
    with torch.no_grad():
        constant[0].weight.zero_()  # no neuron depends on the sample: one path
    result = fn.repair(constant, parts[0], parts[1], recipe="paper", theta=0.5, epochs=1)
    assert (result.explanation.paths, result.explanation.biased) == (1, 0)


def test_nobody_biased_and_nobody_benign_are_said(parts, trained) -> None:
    """In words, beside the counts."""
    result = fn.repair(trained, *parts[:2], recipe="paper", theta=1, epochs=1)
    assert result.explanation.sentence().endswith(" Nobody is benign.")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        constant = mlp(5, (2,))
    with torch.no_grad():
        constant[0].weight.zero_()
    result = fn.repair(constant, *parts[:2], recipe="paper", theta=0, epochs=1)
    assert result.explanation.sentence().endswith(" Nobody is biased.")


def test_parts_that_nothing_can_be_trained_on_are_refused(parts, trained) -> None:
    """No rows, or one class: by everything that trains, with a code and before any work."""
    train, valid, _ = parts
    told = []
    for bad, title in ((train, "training"), (valid, "validation")):
        for rows in (bad.y < 0, bad.y == 1, bad.y == 0, np.arange(len(bad)) == 3):
            part = bad.subset(rows)
            pair = (part, valid) if bad is train else (train, part)
            for attempt in (
                lambda pair=pair: fn.repair(trained, *pair, progress=lambda *t: told.append(t)),
                lambda pair=pair: fn.train_classifier(*pair, progress=lambda *t: told.append(t)),
                lambda pair=pair: fn.baselines.Ordinary().fit(trained, *pair, seed=0),
            ):
                with pytest.raises(DataError) as caught:
                    attempt()
                assert caught.value.code == "data-too-few"
                assert f"{len(part)} {title} rows" in str(caught.value)
    assert told == []


@pytest.mark.parametrize("outputs", [1, 2])
def test_labels_out_of_range_are_refused_before_torch_reads_them(parts, outputs: int) -> None:
    """By everything that trains or audits; torch would stop with an index, or train nonsense."""
    train, valid, _ = parts
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = mlp(5, (4,), outputs=outputs)
    for wrong in (2, -1):
        beyond = [dataclasses.replace(p, y=np.where(p.y == 1, wrong, p.y)) for p in (train, valid)]
        for pair in ((beyond[0], valid), (train, beyond[1])):
            for attempt in (
                lambda pair=pair: fn.repair(net, *pair),
                lambda pair=pair: fn.train_classifier(*pair, outputs=outputs),
                lambda pair=pair: fn.baselines.RandomDropout().fit(net, *pair, seed=0),
            ):
                with pytest.raises(DataError) as caught:
                    attempt()
                assert caught.value.code == "data-labels"
        with pytest.raises(DataError) as caught:
            fn.audit(net, beyond[0])
        assert caught.value.code == "data-labels"


@pytest.mark.parametrize("recipe", ["conflict", "paper"])
def test_a_last_batch_of_one(parts, trained, recipe: str) -> None:
    """Also with batch norm and with a fairness term: every loss is finite."""
    rows = parts[0].subset(np.r_[np.arange(300), 0])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 1)).eval()
    plan = fn.Schedule(epochs=2, batch_size=100)
    options = {"strengths": 0.5} if recipe == "conflict" else {}
    for model in (net, trained):
        result = fn.repair(model, rows, parts[1], recipe=recipe, schedule=plan, **options)
        assert result.trials[1].metrics is not None


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"recipe": "conflit"}, "option-recipe"),
        ({"neuron_shares": 0.1}, "option-unknown"),
        ({"theta": 0.1}, "option-unknown"),  # of the other recipe
        ({"neuron_share": 0}, "option-range"),
        ({"neuron_share": (0.1, 1.5)}, "option-range"),
        ({"neuron_share": ()}, "option-range"),
        ({"strengths": (0.0,)}, "option-range"),
        ({"strengths": [0.5, -1]}, "option-range"),
        ({"stops": (0.5, 1.1)}, "option-range"),
        ({"stops": ()}, "option-range"),
        ({"stops": "0.5"}, "option-range"),
        ({"recipe": "paper", "gamma": 2}, "option-range"),
        ({"recipe": "paper", "gamma": (0.5, 0)}, "option-range"),
        ({"recipe": "paper", "dropout": 1}, "option-range"),
        ({"recipe": "paper", "dropout": [0.1, 1]}, "option-range"),
        ({"recipe": "paper", "theta": -1}, "option-range"),
        ({"recipe": "paper", "theta": ()}, "option-range"),
        ({"recipe": "paper", "contribution": "sign"}, "option-contribution"),
        ({"limit": {}}, "option-limit"),
        ({"limit": {"accuracy": 0.8}}, "option-limit"),
        ({"limit": {"dp": 2}}, "option-limit"),
        ({"epochs": 0}, "option-range"),
    ],
)
def test_bad_options_are_refused(parts, trained, options: dict, code: str) -> None:
    """With a code, before any training."""
    with pytest.raises(OptionError) as caught:
        fn.repair(trained, parts[0], parts[1], **options)
    assert caught.value.code == code


def test_unknown_options_get_a_suggestion(parts, trained) -> None:
    """Did you mean."""
    with pytest.raises(OptionError, match="Did you mean 'neuron_share'"):
        fn.repair(trained, parts[0], parts[1], neuron_shar=0.1)


def test_a_model_of_another_width_is_refused(parts) -> None:
    """Before any training, with both numbers."""
    with pytest.raises(ModelError) as caught:
        fn.repair(mlp(7, (3,)), parts[0], parts[1])
    assert caught.value.code == "model-width"


def test_settings_objects_are_recipes(parts, trained) -> None:
    """Options change a copy of them."""
    plan = Paper(theta=0.5, schedule=fn.Schedule(epochs=1))
    result = fn.repair(trained, parts[0], parts[1], recipe=plan, gamma=0.6)
    assert result.recipe == dataclasses.replace(plan, gamma=0.6)


def test_a_limit_that_holds_is_not_broken_for_another() -> None:
    """Equal opportunity within its limit must stay there while parity is worked on."""
    trials = [made_trial(0, 0.8, 0.3), made_trial(1, 0.75, 0.1), made_trial(2, 0.75, 0.2)]
    kept = trials[0].metrics["dpr"]
    assert choose(trials, {"dp": 0.05, "dpr": kept}).number == 1
    worse = made_trial(3, 0.8, 0.05)
    counts = worse.audit.counts.copy()
    counts[0, 1] = [0, 500]  # group A: nobody with y = 1 is missed; group B: some are
    metrics = dataclasses.replace(worse.audit, counts=counts).metrics
    unequal = dataclasses.replace(worse, metrics=metrics)
    eo = [t.metrics["eo"] for t in (trials[0], unequal)]
    assert eo[0] != eo[1]
    bound = min(eo) + abs(eo[0] - eo[1]) / 2
    chosen = choose([trials[0], unequal], {"dp": 0.05, "eo": bound})
    assert chosen.number == (3 if eo[1] < eo[0] else 0)


def double(model: nn.Module) -> nn.Module:
    """A float64 copy."""
    return copy.deepcopy(model).double()


@pytest.mark.parametrize("recipe", ["conflict", "paper"])
def test_float64_models_are_repaired_in_float64(parts, trained, recipe: str) -> None:
    """The data follow the model's precision."""
    result = fn.repair(double(trained), parts[0], parts[1], recipe=recipe, epochs=2)
    assert {p.dtype for p in result.model.parameters()} == {torch.float64}
    assert fn.audit(result.model, parts[2]).metrics["accuracy"] > 0.6


def test_gradients_may_be_off_around_a_repair(parts, trained) -> None:
    """Under no_grad the result is the same."""
    with torch.no_grad():
        one = fn.repair(trained, parts[0], parts[1], strengths=0.5, epochs=3)
    other = fn.repair(trained, parts[0], parts[1], strengths=0.5, epochs=3)
    for name, value in one.model.state_dict().items():
        assert torch.equal(value, other.model.state_dict()[name])


class Squeezed(nn.Module):
    """Its output loses every dimension of length one."""

    def __init__(self, stack: nn.Sequential) -> None:
        super().__init__()
        self.stack = stack

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.stack(x).squeeze()


def test_a_batch_of_one_may_be_squeezed(parts, trained) -> None:
    """301 rows in batches of 100 end with one row; audit, slicing and training take it."""
    model = Squeezed(copy.deepcopy(trained))
    data = parts[0].subset(np.r_[np.arange(300), 0])
    plain = fn.activation_paths(trained, data.x, gamma=0.5, batch_size=100)
    found = fn.activation_paths(model, data.x, gamma=0.5, batch_size=100)
    np.testing.assert_array_equal(found.counts, plain.counts)
    one = parts[0].subset([0])
    assert fn.repair(model, data, parts[1], schedule=fn.Schedule(3, 100), strengths=0.5)
    from fairneuron.models import probabilities

    np.testing.assert_allclose(probabilities(model, one.x), probabilities(trained, one.x))


def test_functional_dropout_rests_while_conflict_neurons_are_retrained(parts) -> None:
    """As dropout layers do: the rate makes no difference."""

    class Functional(nn.Module):
        def __init__(self, rate: float) -> None:
            super().__init__()
            with torch.random.fork_rng():
                torch.manual_seed(0)
                self.a, self.c, self.rate = nn.Linear(5, 8), nn.Linear(8, 1), rate

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            hidden = nn.functional.dropout(self.a(x).relu(), self.rate, self.training)
            return self.c(hidden)

    one, other = (
        fn.repair(Functional(rate), parts[0], parts[1], strengths=0.5, epochs=5).trials[1].model
        for rate in (0.0, 0.5)
    )
    assert all(torch.equal(v, other.state_dict()[k]) for k, v in one.state_dict().items())


def test_shared_weights_stay_within_the_share(parts) -> None:
    """Rows of a weight that two layers share change in both, and count in both... once."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = mlp(5, (8, 8, 8))
    net[4].weight = net[2].weight
    result = fn.repair(net, parts[0], parts[1], strengths=0.5, epochs=5, neuron_share=0.2)
    model = result.trials[1].model
    assert model[4].weight is model[2].weight
    changed = sum(int((model[i].weight != net[i].weight).any(1).sum()) for i in (0, 2))
    assert 0 < changed <= int(0.2 * 16)

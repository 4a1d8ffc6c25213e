"""What the paper compares with: adversaries, the feeder, equalised odds by a linear program."""

import copy
import sys
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.svm import SVC
from torch import nn
from torch.nn.functional import cross_entropy, relu

import fairneuron as fn
from fairneuron.baselines.adversaries import (
    FAD,
    LEAD,
    Adversary,
    EthicalAdversaries,
    reversed_gradient,
    with_hidden,
)
from fairneuron.baselines.feeder import Feeder, Surrogate, evade
from fairneuron.baselines.hardt import EqualizedOdds, Redrawn, cells, mixing
from fairneuron.baselines.postprocess import CONDITIONS, measured_gap, positive_scores
from fairneuron.baselines.protocol import CONFIGURATIONS
from fairneuron.baselines.reweighing import reweighing_weights
from fairneuron.compare.methods import PAPER, methods_named
from fairneuron.data.dataset import Dataset
from fairneuron.errors import FairNeuronError, ModelError, OptionError
from fairneuron.forward import one_thread
from fairneuron.models import task_loss
from fairneuron.terms import Terms
from fairneuron.tracing import trace
from tests.conftest import made_up

CALM = settings(max_examples=60, deadline=None, derandomize=True)
QUICK = fn.Schedule(epochs=2, batch_size=64, learning_rate=0.005, plateau=None)
STEP = fn.Schedule(epochs=1, batch_size=10_000, learning_rate=1.0, plateau=None)


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    """Small products are slower on several threads."""
    with one_thread():
        yield


def literal_gradients(
    model: nn.Sequential, heads: nn.ModuleList, data: Dataset, labels: list, strength: float
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Of the network and of the heads, from two losses, one after the other."""
    y, group = torch.from_numpy(data.y), torch.from_numpy(data.group)
    weight = None if data.relative_weight is None else torch.from_numpy(data.relative_weight)
    counted = torch.ones(len(data)) if data.gap_weight is None else torch.tensor(data.gap_weight)
    task = task_loss(model(data.x)[:, 0], y, None if weight is None else weight.to(torch.float32))
    own = torch.autograd.grad(task, list(model.parameters()))
    total = torch.zeros(())
    hidden = model[:-1](data.x)
    for label, head in zip(labels, heads, strict=True):
        terms, weights = [], []
        for i in range(len(data)):
            if label is None or (y[i] == 1) == bool(label):
                terms.append(counted[i] * cross_entropy(LEAD * head(hidden[i]), group[i]))
                weights.append(counted[i])
        total = total + torch.stack(terms).sum() / torch.stack(weights).sum()
    below = list(model[:-1].parameters())
    against = torch.autograd.grad(total, below, retain_graph=True)
    learned = torch.autograd.grad(total, list(heads.parameters()))
    network = [g - strength * a for g, a in zip(own, against, strict=False)]
    return [*network, *own[len(below) :]], list(learned)


@pytest.mark.parametrize("kind", ["plain", "weights", "unknown group"])
@pytest.mark.parametrize("criterion", ["dp", "eo", "eodds"])
def test_a_step_is_the_tasks_gradient_less_the_adversarys(criterion, kind, trained) -> None:
    """Of plain gradient descent on all rows, against both gradients from losses of their own."""
    data = made_up(40, groups=3)
    if kind == "weights":
        data = replace(data, weight=np.random.default_rng(0).uniform(0, 2, len(data)))
    if kind == "unknown group":
        data = replace(data, sensitive_levels=(("A", "B", "unknown"),))
    model = copy.deepcopy(trained)
    game = Adversary.beside(model, data, [criterion], 0.7)
    for parameter in game.heads.parameters():
        nn.init.normal_(parameter, generator=torch.Generator().manual_seed(1))
    before = copy.deepcopy(model), copy.deepcopy(game.heads)
    wanted = literal_gradients(*before, data, list(CONDITIONS[criterion]), 0.7)
    terms = Terms(optimiser=lambda parameters: torch.optim.SGD(parameters, lr=0.1))
    assert game.play(data, data, STEP, seed=0, terms=terms)
    for old, new, gradients in zip(before, (model, game.heads), wanted, strict=True):
        for a, b, gradient in zip(old.parameters(), new.parameters(), gradients, strict=True):
            torch.testing.assert_close(b, a - 0.1 * gradient, rtol=1e-4, atol=1e-6)


def test_reversal_keeps_values_to_the_bit() -> None:
    """And turns gradients round."""
    hidden = torch.tensor([0.1, -3.0, 1e-7], requires_grad=True)
    out = reversed_gradient(hidden, 50.0)
    assert torch.equal(out, hidden)
    (gradient,) = torch.autograd.grad((out * torch.tensor([1.0, 2.0, 3.0])).sum(), hidden)
    torch.testing.assert_close(gradient, torch.tensor([-50.0, -100.0, -150.0]))


class Skips(nn.Module):
    """A residual network with functional steps, whose head reads two layers and the inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(5, 6), nn.Linear(6, 6)
        self.head, self.side, self.direct = nn.Linear(6, 2), nn.Linear(6, 2), nn.Linear(5, 2)

    def hidden(self, x: torch.Tensor) -> list[torch.Tensor]:
        low = relu(self.first(x))
        return [low + relu(self.second(low)), low]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        high, low = self.hidden(x)
        return self.head(high) + self.side(low) + self.direct(x)


def test_the_adversary_reads_what_the_head_reads(parts) -> None:
    """All hidden layers, not the inputs; on the network's own parameters."""
    model, x = Skips().eval(), parts[0].x
    twin = with_hidden(trace(model))
    out, hidden = twin(x)
    torch.testing.assert_close(out, model(x))
    assert hidden.shape == (len(x), 12)
    wanted = torch.cat(model.hidden(x), 1)
    torch.testing.assert_close(hidden.sum(1), wanted.sum(1))
    ours = {id(p) for p in model.parameters()}
    assert {id(p) for p in twin.parameters()} == ours
    found = FAD(strengths=(1.0,), schedule=QUICK).fit(model, *parts[:2], seed=0).model
    assert type(found) is Skips


def test_frozen_weights_stay(parts, trained) -> None:
    """The others are trained against the adversary."""
    model = copy.deepcopy(trained)
    model[0].weight.requires_grad_(False)
    ((_, network, _),) = FAD(strengths=(1.0,), schedule=QUICK).candidates(model, *parts[:2], seed=0)
    assert torch.equal(network[0].weight, model[0].weight)
    assert not torch.equal(network[2].weight, model[2].weight)


def group_auc(model: nn.Sequential, train: Dataset, test: Dataset) -> float:
    """How well a logistic regression tells the group from the last hidden activations."""
    with torch.no_grad():
        seen, new = (model[:-1](data.x).numpy() for data in (train, test))
    found = LogisticRegression(max_iter=2000).fit(seen, train.group)
    return float(roc_auc_score(test.group, found.predict_proba(new)[:, 1]))


@pytest.mark.parametrize(
    "make",
    [
        lambda: FAD(strengths=(0.0, 2.0)),
        lambda: EthicalAdversaries(strengths=(0.0, 2.0)),
    ],
)
def test_an_adversary_hides_the_group(make) -> None:
    """From a regression on the activations of new people, without undoing the task."""
    train, valid, test = made_up(1500).split(0, fractions=(0.6, 0.1, 0.3))
    model = fn.train_classifier(train, valid, hidden=(16, 8), schedule=fn.Schedule(epochs=5))
    (_, free, _), (_, hiding, _) = make().candidates(model, train, valid, seed=0)
    before = group_auc(free, train, test)
    assert before > 0.85
    assert group_auc(hiding, train, test) < before - 0.1
    figures = fn.audit(hiding, test).metrics
    assert figures["dp"] < 0.6 * fn.audit(free, test).metrics["dp"]
    assert figures["accuracy"] > max(test.y.mean(), 1 - test.y.mean()) + 0.1


def test_fad_tries_as_many_configurations_as_the_others() -> None:
    """But for Ethical Adversaries, which say how many they try."""
    assert len(set(FAD().strengths)) == len(set(EqualizedOdds().shares)) == CONFIGURATIONS
    few = EthicalAdversaries()
    assert (len(set(few.strengths)), few.iterations) == (6, 10)
    assert "six λ in ten iterations" in " ".join(str(EthicalAdversaries.__doc__).split())


def test_thresholds_follow_each_network(parts, trained) -> None:
    """Decisions read the group, and have next to no gap on the training rows."""
    train, valid, _ = parts
    made = FAD({"eo": 0.05}, strengths=(0.1, 0.5), thresholds=True, schedule=QUICK)
    assert made.needs_sensitive
    assert not FAD().needs_sensitive
    plain = FAD({"eo": 0.05}, strengths=(0.1, 0.5), schedule=QUICK)
    networks = [net for _, net, _ in plain.candidates(trained, train, valid, seed=0)]
    found = list(made.candidates(trained, train, valid, seed=0))
    assert [s["strength"] for s, _, _ in found] == [0.1, 0.5]
    for (_, rule, _), network in zip(found, networks, strict=True):
        assert rule.needs_sensitive
        pairs = zip(rule.model.parameters(), network.parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
        decisions = rule.predict(train)[:, 1] >= 0.5
        assert measured_gap(decisions, train, "eo") < 0.08  # of what is drawn
    with pytest.raises(OptionError, match="lowers one gap"):
        FAD({"dp": 0.1, "eo": 0.1}, thresholds=True)


def test_thresholds_say_what_to_install(parts, trained, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of our own, with the cure."""
    monkeypatch.setitem(sys.modules, "fairlearn.postprocessing", None)
    made = FAD(strengths=(0.1,), thresholds=True, schedule=QUICK)
    with pytest.raises(OptionError, match=r"pip install 'fairneuron\[peers\]'"):
        list(made.candidates(trained, *parts[:2], seed=0))


def test_a_diverged_network_is_told(parts, trained) -> None:
    """It has no thresholds, and the others go on."""
    fast = replace(QUICK, learning_rate=1e30)
    for made in (
        FAD(strengths=(1.0,), thresholds=True, schedule=fast),
        EthicalAdversaries(strengths=(1.0,), iterations=2, schedule=fast),
    ):
        ((_, _, finite),) = made.candidates(trained, *parts[:2], seed=0)
        assert not finite


# The feeder


@pytest.fixture(params=["rbf", "linear"])
def surrogate(request: pytest.FixtureRequest, parts) -> Surrogate:
    """One of each kernel."""
    return Surrogate.fit(parts[0].x.double(), parts[0].y == 1, None, request.param)


def test_the_surrogate_is_scikit_learns(surrogate, parts) -> None:
    """The same decision function, gamma="scale" included."""
    train, _, test = parts
    kernel = "linear" if surrogate.gamma is None else "rbf"
    machine = SVC(kernel=kernel, gamma="scale").fit(train.x.double().numpy(), train.y)
    x = test.x.double()
    np.testing.assert_allclose(surrogate.decide(x), machine.decision_function(x), atol=1e-10)


def test_the_gradient_is_that_of_finite_differences(surrogate, parts) -> None:
    """At points of the data, in every direction."""
    x = parts[2].x[:20].double()
    found = surrogate.gradient(x)
    for column in range(x.shape[1]):
        step = torch.zeros(x.shape[1], dtype=torch.float64)
        step[column] = 1e-6
        slope = (surrogate.decide(x + step) - surrogate.decide(x - step)) / 2e-6
        torch.testing.assert_close(found[:, column], slope, rtol=1e-5, atol=1e-7)


def test_an_attack_brings_points_across(surrogate, parts) -> None:
    """Step by step nearer; those across rest; all stay in the box, and most arrive."""
    x = parts[0].x[:80].double()
    low, high = x.amin(0), x.amax(0)
    start = surrogate.decide(x)
    side = torch.where(start > 0, 1.0, -1.0)
    depth = side * start
    for steps in (1, 2, 3, 5, 9, 30, 100):
        moved, across = evade(surrogate, x, low, high, steps=steps)
        now = side * surrogate.decide(moved)
        assert (now <= depth + 1e-12).all()
        assert torch.equal(across, now < 0)
        assert ((moved >= low) & (moved <= high)).all()
        depth = now
    assert across.double().mean() > 0.9
    again, _ = evade(surrogate, moved[across], low, high, steps=0)
    assert torch.equal(again, moved[across])


def test_who_cannot_move_does_not_arrive(surrogate, parts) -> None:
    """In a box without room."""
    x = parts[0].x[:1].double()
    moved, across = evade(surrogate, x, x[0], x[0])
    assert torch.equal(moved, x)
    assert not across.any()


def each_alone(data: Dataset) -> Dataset:
    """The same people, each a group of their own."""
    names = tuple(map(str, range(len(data))))
    return replace(data, sensitive=np.arange(len(data))[:, None], sensitive_levels=(names,))


@pytest.mark.parametrize("weighted", [False, True])
def test_the_feeder_adds_copies_that_keep_who_they_are(weighted, parts) -> None:
    """Below the rows of before; x alone is new, within the columns' ranges, and across."""
    train = each_alone(parts[0])
    if weighted:
        train = replace(train, weight=1 + np.arange(len(train)) / 7)
    fed, same = (Feeder(60).feed(train, np.random.default_rng(3)) for _ in range(2))
    assert torch.equal(fed.x, same.x)
    n = len(train)
    assert 20 < len(fed) - n <= 60
    assert torch.equal(fed.x[:n], train.x)
    np.testing.assert_array_equal(fed.y[:n], train.y)
    assert not (fed.x[n:, None] == train.x).all(2).any()
    assert ((fed.x[n:] >= train.x.amin(0)) & (fed.x[n:] <= train.x.amax(0))).all()
    order = np.random.default_rng(3)
    seen, tried = order.permutation(n), order.permutation(n)[:60]
    source = fed.sensitive[n:, 0]
    assert [row for row in tried if row in source] == source.tolist()
    np.testing.assert_array_equal(fed.y[n:], train.y[source])
    if weighted:
        np.testing.assert_array_equal(fed.weight[n:], train.weight[source])
    weight = None if train.relative_weight is None else train.relative_weight[seen]
    surrogate = Surrogate.fit(train.x[seen].double(), train.y[seen] == 1, weight, "rbf")
    found = surrogate.decide(fed.x[n:].double()).numpy() > 0
    np.testing.assert_array_equal(found, fed.y[n:] == 0)  # what the labels are not


@pytest.mark.parametrize("dmax", [0.05, 0.3])
def test_bounded_copies_stay_near_and_all_arrive(dmax, parts) -> None:
    """As in the authors' code: whether they are across or not; most get to the bound."""
    train = each_alone(parts[0])
    fed = Feeder(60, dmax=dmax).feed(train, np.random.default_rng(3))
    free = Feeder(60).feed(train, np.random.default_rng(3))
    n = len(train)
    source = fed.sensitive[n:, 0]
    assert set(source) > set(free.sensitive[n:, 0])
    far = (fed.x[n:] - train.x[source]).double().norm(dim=1)
    assert far.max() <= dmax + 1e-6
    assert (far > 0.9 * dmax).double().mean() > 0.5
    assert ((fed.x[n:] >= train.x.amin(0)) & (fed.x[n:] <= train.x.amax(0))).all()
    np.testing.assert_array_equal(fed.y[n:], train.y[source])


def test_a_bound_that_nobody_meets_changes_nothing(surrogate, parts) -> None:
    """To the bit."""
    x = parts[0].x[:80].double()
    box = x.amin(0), x.amax(0)
    far, near = (evade(surrogate, x, *box, dmax=dmax) for dmax in (1e3, None))
    assert torch.equal(far[0], near[0])
    assert torch.equal(far[1], near[1])


def test_there_is_nothing_to_attack_where_labels_are_alike(parts) -> None:
    """Or where only one label has weight."""
    train = parts[0]
    alike = replace(train, y=np.ones_like(train.y))
    assert Feeder(5).feed(alike, np.random.default_rng(0)) is alike
    mute = replace(train, weight=train.y.astype(float))
    assert Feeder(5).feed(mute, np.random.default_rng(0)) is mute


def test_readers_share_the_added_rows_and_nothing_else(parts, trained) -> None:
    """A network is the same in any company, and on any number of threads."""
    train, valid, _ = parts

    def networks(strengths: tuple, threads: int = 1) -> list:
        made = EthicalAdversaries(strengths=strengths, iterations=3, points=30, schedule=QUICK)
        old = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            return list(made.candidates(trained, train, valid, seed=2))
        finally:
            torch.set_num_threads(old)

    (settings_, alone, _), (_, _, _), (_, other, _) = (
        *networks((1.0,)),
        *networks((0.3, 1.0), threads=2),
    )
    assert settings_["added"] > 30
    pairs = zip(alone.parameters(), other.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


# Equalised odds


def test_a_perfect_group_beside_a_guessing_one() -> None:
    """By hand: B's decisions say nothing, so its rates lie on the diagonal, and A's have to."""
    decisions = np.array([1, 1, 0, 0, 1, 0, 1, 0, 1, 0])
    y = np.array([1, 1, 0, 0, 1, 1, 0, 0, 0, 0])
    data = Dataset.from_arrays(np.zeros((10, 1), np.float32), y, np.array(list("AAAABBBBBB")))
    gain, rates = cells(decisions, data, "eodds")
    np.testing.assert_allclose(gain, [[-0.2, 0.2], [-0.1, -0.1]], atol=1e-15)
    np.testing.assert_allclose(rates, [[[0, 1], [0.5, 0.5]], [[1, 0], [0.5, 0.5]]])
    p = mixing(gain, rates, 0.0)
    np.testing.assert_allclose(p, 0, atol=1e-9)  # 6 of 10 are 0: nobody is the best that is equal
    gain, rates = cells(decisions, data, "eo")
    p = mixing(gain, rates, 0.0)  # true positives of A, for false ones of B: 2 of each
    assert (gain * p).sum() == pytest.approx(0)
    p = mixing(gain, rates, 0.25)
    np.testing.assert_allclose(p @ [0, 1], [0.25, 0], atol=1e-9)
    np.testing.assert_allclose(mixing(gain, rates, 1.0), [[0, 1], [0, 0]], atol=1e-9)


@CALM
@given(
    st.integers(0, 10_000),
    st.integers(2, 4),
    st.sampled_from(["dp", "eo", "eodds"]),
    st.sampled_from([0.0, 0.05, 0.3]),
    st.booleans(),
)
def test_what_mixing_promises(seed, groups, criterion, bound, weighted) -> None:
    """Rates within the bound; as accurate as both constants, and as tighter bounds at least."""
    rng = np.random.default_rng(seed)
    n = 40 * groups
    group, y = np.arange(n) % groups, rng.integers(0, 2, n)
    decisions = np.where(rng.random(n) < 0.3 + 0.1 * group, y, rng.integers(0, 2, n))
    data = Dataset.from_arrays(np.zeros((n, 1), np.float32), y, np.array(list("ABCD"))[group])
    if weighted:
        data = replace(data, weight=rng.uniform(0.1, 3, n))
    gain, rates = cells(decisions, data, criterion)
    p = mixing(gain, rates, bound)
    assert ((p >= 0) & (p <= 1)).all()
    expected = p[data.group, decisions]
    weight = np.ones(n) if data.weight is None else data.weight
    for label in CONDITIONS[criterion]:
        those = np.ones(n, bool) if label is None else y == label
        own = [
            np.average(expected[those & (group == g)], weights=weight[those & (group == g)])
            for g in range(groups)
        ]
        assert np.ptp(own) <= bound + 1e-6
    accuracy = np.average(np.where(y == 1, expected, 1 - expected), weights=weight)
    share = np.average(y, weights=weight)
    assert accuracy >= max(share, 1 - share) - 1e-6
    assert (gain * p).sum() == pytest.approx(accuracy - (1 - share), abs=1e-9)
    if bound:
        assert (gain * p).sum() >= (gain * mixing(gain, rates, 0.0)).sum() - 1e-9


def table(labels: np.ndarray, data: Dataset) -> object:
    """A BinaryLabelDataset of aif360."""
    from aif360.datasets import BinaryLabelDataset

    columns = {"label": labels, "group": data.group, "weight": np.ones(len(data))}
    if data.weight is not None:
        columns["weight"] = data.weight
    return BinaryLabelDataset(
        df=pd.DataFrame(columns, dtype=float),
        label_names=["label"],
        protected_attribute_names=["group"],
        instance_weights_name="weight",
    )


SIDES = {"unprivileged_groups": [{"group": 0.0}], "privileged_groups": [{"group": 1.0}]}


@pytest.mark.parametrize("seed", range(4))
def test_equalized_odds_are_aif360s(seed, trained) -> None:
    """It counts groups and labels alike: with such weights the probabilities are the same."""
    postprocessing = pytest.importorskip("aif360.algorithms.postprocessing")
    data = made_up(400, seed=seed)
    decisions = positive_scores(trained, data) >= 0.5
    theirs = postprocessing.EqOddsPostprocessing(**SIDES).fit(
        table(data.y, data), table(decisions, data)
    )
    cell = 2 * data.group + data.y
    alike = replace(data, weight=1 / np.bincount(cell)[cell])
    mitigator = EqualizedOdds({"eodds": 0.05}, shares=(0.0,))
    ((_, rule, _),) = mitigator.candidates(trained, alike, data, seed=0)
    wanted = theirs.model_params.x.reshape(2, 2)[::-1, ::-1]  # privileged first, decision 1 first
    np.testing.assert_allclose(rule.rule.probability, wanted, atol=1e-6)
    _, rates = cells(decisions, data, "eodds")
    for rate in rates:
        expected = (rate * rule.rule.probability).sum(1)
        np.testing.assert_allclose(expected, (rate * wanted).sum(1), atol=1e-6)
        assert np.ptp(expected) < 1e-6


def test_decisions_are_drawn_with_these_probabilities(parts, trained) -> None:
    """By the seed; over many of them the shares are the probabilities."""
    train, valid, _ = parts
    ((_, rule, _),) = EqualizedOdds({"eodds": 0.05}, shares=(0.0,)).candidates(
        trained, train, valid, seed=0
    )
    scores = positive_scores(trained, train)
    drawn = [Redrawn(rule.rule.probability, seed)(scores, train) for seed in range(300)]
    assert set(np.unique(drawn)) == {0.0, 1.0}
    wanted = rule.rule.probability[train.group, (scores >= 0.5).astype(int)]
    np.testing.assert_allclose(np.mean(drawn, 0), wanted, atol=0.15)  # 5 standard deviations
    np.testing.assert_array_equal(rule.predict(train)[:, 1], drawn[0])


def test_with_all_of_its_gap_the_network_decides(parts, trained) -> None:
    """There is nothing to draw, where decisions are right more often than not."""
    train, valid, test = parts
    ((_, rule, _),) = EqualizedOdds(shares=(1.0,)).candidates(trained, train, valid, seed=0)
    np.testing.assert_array_equal(
        rule.predict(test)[:, 1] >= 0.5, positive_scores(trained, test) >= 0.5
    )


def test_where_nobody_was_the_network_decides() -> None:
    """Nobody of B was decided 1 in training: whoever is so later stays so."""
    decisions, y = np.array([1, 0, 1, 0, 0, 0]), np.array([1, 0, 0, 0, 0, 1])
    data = Dataset.from_arrays(np.zeros((6, 1), np.float32), y, np.array(list("AAAABB")))
    for criterion in CONDITIONS:
        assert mixing(*cells(decisions, data, criterion), 1.0)[1, 1] == 1


def test_an_unsolved_program_is_told() -> None:
    """With the solver's words."""
    with pytest.raises(FairNeuronError) as caught:
        mixing(np.zeros((2, 2)), [np.eye(2)], -0.5)
    assert caught.value.code == "data-linear-program"


# Others


@pytest.mark.parametrize("weighted", [False, True])
def test_reweighing_weights_are_aif360s(weighted, parts) -> None:
    """To 1e-6; rows that have weights already get theirs times the factor."""
    preprocessing = pytest.importorskip("aif360.algorithms.preprocessing")
    train = parts[0]
    if weighted:
        rng = np.random.default_rng(0)
        train = replace(train, weight=rng.uniform(0.2, 3, len(train)))
    own = np.ones(len(train)) if train.weight is None else train.weight
    theirs = preprocessing.Reweighing(**SIDES).fit_transform(table(train.y, train))
    found = own * reweighing_weights(train)
    np.testing.assert_allclose(found, theirs.instance_weights, rtol=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        lambda: FAD(strengths=()),
        lambda: FAD(strengths=(-0.1,)),
        lambda: FAD({"eo": 2.0}),
        lambda: EthicalAdversaries(strengths=("strong",)),
        lambda: EthicalAdversaries(iterations=0),
        lambda: EthicalAdversaries(iterations=1.5),
        lambda: EthicalAdversaries(points=0),
        lambda: EthicalAdversaries(kernel="poly"),
        lambda: EthicalAdversaries(dmax=0),
        lambda: EthicalAdversaries(dmax=float("inf")),
        lambda: EqualizedOdds(shares=(-0.1,)),
    ],
)
def test_bad_settings_are_refused(make) -> None:
    """Before any work."""
    with pytest.raises(OptionError):
        make()


@pytest.mark.parametrize("cls", [FAD, EthicalAdversaries])
def test_networks_without_hidden_neurons_are_refused(cls, parts) -> None:
    """There is nothing that an adversary could read."""
    with pytest.raises(ModelError, match="hidden"):
        next(cls().candidates(nn.Linear(5, 1).eval(), *parts[:2], seed=0))


def test_the_papers_baselines_have_a_short_name() -> None:
    """And names of their own."""
    assert list(methods_named(["paper-baselines"])) == list(PAPER)
    assert list(PAPER) == ["fad", "ethical-adversaries", "equalized-odds"]
    assert [method.needs_sensitive for method in PAPER.values()] == [False, False, True]

"""Peers that post-process scores, mix retrained networks or drop neurons."""

import sys
from dataclasses import replace
from itertools import product
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import fairneuron as fn
from fairneuron.baselines import linear_post
from fairneuron.baselines.hardt import EqualizedOdds
from fairneuron.baselines.linear_post import LinearPost, _multipliers
from fairneuron.baselines.neuron_search import NeuronDropping, _Neurons
from fairneuron.baselines.oxonfair import OxonFair
from fairneuron.baselines.postprocess import measured_gap, positive_scores
from fairneuron.baselines.protocol import CONFIGURATIONS, Mitigator
from fairneuron.baselines.reductions import ORACLE, ExponentiatedGradient
from fairneuron.baselines.reject_option import RejectOption
from fairneuron.baselines.threshold import ThresholdOptimizer
from fairneuron.data.dataset import Dataset
from fairneuron.errors import DataError, FairNeuronError, ModelError, OptionError
from fairneuron.models import Network
from fairneuron.tracing import trace
from tests.conftest import made_up

QUICK = replace(ORACLE, epochs=1, min_steps=15, batch_size=128, learning_rate=0.01)
PEERS = {
    "LinearPost": lambda limit: LinearPost(limit, strengths=(0.5, 1.0), networks=1),
    "LinearPost aware": lambda limit: LinearPost(limit, aware=True, strengths=(0.5, 1.0)),
    "OxonFair": lambda limit: OxonFair(limit, shares=(0.5, 0.1), networks=1),
    "OxonFair aware": lambda limit: OxonFair(limit, aware=True, shares=(0.5, 0.1)),
    "ThresholdOptimizer": lambda limit: ThresholdOptimizer(limit, shares=(0.5, 0.1)),
    "EqualizedOdds": lambda limit: EqualizedOdds(limit, shares=(0.5, 0.1)),
    "RejectOption": lambda limit: RejectOption(limit, shares=(0.5, 0.2), margins=20),
    "ExponentiatedGradient": lambda limit: ExponentiatedGradient(
        limit, shares=(0.5, 0.1), iterations=3, schedule=QUICK
    ),
    "NeuronDropping": lambda limit: NeuronDropping(limit, penalties=(2.0, 1.2), steps=60),
}
DEFAULTS = (
    LinearPost,
    OxonFair,
    ThresholdOptimizer,
    EqualizedOdds,
    RejectOption,
    ExponentiatedGradient,
    NeuronDropping,
)


@pytest.fixture(params=PEERS)
def peer(request: pytest.FixtureRequest):
    """Each of them in turn, as a function of the limit."""
    return PEERS[request.param]


@pytest.fixture
def scored(parts, trained) -> tuple[Dataset, np.ndarray]:
    """Training rows and the network's scores."""
    return parts[0], positive_scores(trained, parts[0])


def chosen(predictor, data: Dataset) -> np.ndarray:
    """Decisions of a network or another predictor."""
    network = Network(predictor) if isinstance(predictor, nn.Module) else predictor
    return network.predict(data)[:, 1] >= 0.5


@pytest.mark.parametrize("criterion", ["dp", "eo", "eodds"])
def test_a_peer_lowers_the_gap_at_some_accuracy(peer, criterion, parts, trained) -> None:
    """One of two configurations has half the gap on the training rows and is far from constant."""
    train, valid, _ = parts
    before = measured_gap(chosen(trained, train), train, criterion)
    tried = list(peer({criterion: 0.05}).candidates(trained, train, valid, seed=0))
    assert len(tried) == 2
    assert all(finite for _, _, finite in tried)
    decisions = np.stack([chosen(found, train) for _, found, _ in tried])
    gaps = measured_gap(decisions, train, criterion)
    accuracy = (decisions == train.y).mean(1)
    best = np.argmin(gaps)
    assert gaps[best] < 0.7 * before
    assert accuracy[best] > max(train.y.mean(), 1 - train.y.mean()) + 0.03


def test_a_peer_is_a_mitigator_that_leaves_everything_as_it_was(
    peer, parts, trained, weights_before
) -> None:
    """Same seed, same result; the model and global generators stay; so do hidden groups."""
    train, valid, test = parts
    mitigator = peer({"dp": 0.05})
    assert isinstance(mitigator, Mitigator)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    one, other = (mitigator.fit(trained, train, valid, seed=3) for _ in range(2))
    np.testing.assert_array_equal(one.predict(test), other.predict(test))
    assert torch.equal(torch.get_rng_state(), torch_state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)
    assert all(torch.equal(v, weights_before[k]) for k, v in trained.state_dict().items())
    np.testing.assert_allclose(one.predict(test).sum(1), 1)
    swapped = Dataset.from_arrays(test.x, test.y, np.arange(len(test)) % 2)
    for _, found, _ in mitigator.candidates(trained, train, valid, seed=3):
        assert getattr(found, "needs_sensitive", False) == mitigator.needs_sensitive
        if not mitigator.needs_sensitive:
            np.testing.assert_array_equal(chosen(found, swapped), chosen(found, test))


def test_a_peer_takes_three_groups_and_two_logits(peer) -> None:
    """Groups with names of their own, of which one is unknown, and a head per class."""
    train, valid, test = made_up(900, groups=3).split(1, fractions=(0.5, 0.25, 0.25))
    model = fn.train_classifier(
        train, valid, hidden=(8,), outputs=2, schedule=fn.Schedule(epochs=4, batch_size=64)
    )
    found = peer({"dp": 0.1}).fit(model, train, valid, seed=0)
    assert found.predict(test).shape == (len(test), 2)
    assert fn.audit(found, valid).metrics["dp"] <= fn.audit(model, valid).metrics["dp"]


@pytest.mark.parametrize("mitigator", DEFAULTS, ids=lambda c: c.__name__)
def test_a_peer_tries_as_many_configurations_as_the_others(mitigator) -> None:
    """Whatever the setting is called."""
    made = mitigator()
    names = ("strengths", "shares", "penalties")
    settings = [getattr(made, n) for n in names if hasattr(made, n)]
    assert [len(set(values)) for values in settings] == [CONFIGURATIONS]


def test_all_places_of_linear_post_lie_up_to_the_least_gap() -> None:
    """Beyond it there is accuracy to lose alone."""
    assert min(LinearPost.STRENGTHS) > 0
    assert max(LinearPost.STRENGTHS) == 1


@pytest.mark.parametrize(
    ("library", "name"),
    [
        ("fairlearn.postprocessing", "ThresholdOptimizer"),
        ("fairlearn", "ExponentiatedGradient"),
        ("oxonfair", "OxonFair aware"),
        ("aif360.datasets", "RejectOption"),
    ],
)
def test_without_its_library_a_peer_says_what_to_install(
    library, name, parts, trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of our own, with the cure."""
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(OptionError, match=r"pip install 'fairneuron\[peers\]'"):
        list(PEERS[name]({"dp": 0.05}).candidates(trained, *parts[:2], seed=0))


@pytest.mark.parametrize(
    "mitigator", [ThresholdOptimizer, EqualizedOdds, RejectOption, ExponentiatedGradient]
)
def test_methods_for_one_gap_refuse_two(mitigator) -> None:
    """But equalised odds contain equal opportunity."""
    with pytest.raises(OptionError, match="lowers one gap"):
        mitigator({"dp": 0.1, "eo": 0.1})
    assert mitigator({"eo": 0.1, "eodds": 0.1}).criterion == "eodds"


def test_rules_by_group_refuse_data_with_other_groups(parts, trained) -> None:
    """Group 0 there is somebody else."""
    train, valid, test = parts
    (_, rule, _), *_ = LinearPost(aware=True).candidates(trained, train, valid, seed=0)
    other = replace(test, sensitive_levels=(("B", "A"),))
    with pytest.raises(DataError, match="groups that they were fitted on"):
        rule.predict(other)


def test_the_network_decides_on_people_of_unknown_groups(parts, trained) -> None:
    """A rule by group has nothing to say about them."""
    train, valid, test = (
        replace(part, sensitive_levels=(("A", "B", "unknown"),)) for part in parts
    )
    hidden = replace(test, sensitive=np.where(np.arange(len(test))[:, None] % 3, test.sensitive, 2))
    aware = ("LinearPost aware", "OxonFair aware")
    for name in (*aware, "ThresholdOptimizer", "EqualizedOdds", "RejectOption"):
        *_, (_, rule, _) = PEERS[name]({"dp": 0.05}).candidates(trained, train, valid, seed=0)
        changed = chosen(rule, hidden) != chosen(trained, hidden)
        assert changed.any()
        assert not changed[::3].any()


@pytest.mark.parametrize("bound", [0.0, 0.1, 0.3])
def test_multipliers_are_the_best_thresholds_per_group(bound, scored) -> None:
    """Against all pairs of numbers of people chosen per group, best scores first."""
    data, scores = scored[0], scored[1]
    few = np.arange(60)
    scores, group = scores[few], data.group[few]
    gain = (2 * scores - 1) / len(few)
    rates = np.stack([(group == g) / (group == g).sum() for g in (0, 1)])
    multipliers = _multipliers(gain, rates, np.array([0, 0]), np.array([bound]))
    ordered = [np.sort(gain[group == g])[::-1] for g in (0, 1)]
    sums = [np.concatenate([[0], np.cumsum(o)]) for o in ordered]
    best = max(
        a + b
        for (i, a), (j, b) in product(*(enumerate(s) for s in sums))
        if abs(i / len(ordered[0]) - j / len(ordered[1])) <= bound + 1e-12
    )
    decided = gain > multipliers @ rates + 1e-12  # without the one or two on the boundary
    assert gain @ decided == pytest.approx(best, abs=2 / len(few))
    assert np.ptp(rates @ decided) <= bound + 2 / min(map(len, ordered))
    assert multipliers.sum() == pytest.approx(0, abs=1e-9)


def test_linear_post_starts_at_the_network_and_its_path_leads_to_the_least_gap(
    parts, trained
) -> None:
    """Strength 0 gives the network's own scores; gaps on the training rows fall up to 1."""
    train, valid, _ = parts
    strengths = (0.0, 0.25, 0.5, 0.75, 1.0)
    for aware in (False, True):
        mitigator = LinearPost({"dp": 0.0}, aware=aware, strengths=strengths, networks=1)
        rules = [rule for _, rule, _ in mitigator.candidates(trained, train, valid, seed=0)]
        np.testing.assert_allclose(
            rules[0].predict(train)[:, 1], positive_scores(trained, train), atol=1e-12
        )
        gaps = measured_gap(np.stack([chosen(r, train) for r in rules]), train, "dp")
        assert (np.diff(gaps) < 0.02).all()
        assert gaps[-1] < 0.05 < gaps[0]


@pytest.mark.parametrize("name", ["LinearPost", "LinearPost aware", "OxonFair", "OxonFair aware"])
def test_several_gaps_are_lowered_at_once(name, parts, trained) -> None:
    """Limits on demographic parity and equal opportunity are both heard."""
    train, valid, _ = parts
    limit = {"dp": 0.1, "eo": 0.1}
    *_, (_, rule, _) = PEERS[name](limit).candidates(trained, train, valid, seed=0)
    for criterion in limit:
        before = measured_gap(chosen(trained, train), train, criterion)
        assert measured_gap(chosen(rule, train), train, criterion) < 0.8 * before


def test_threshold_optimizer_is_fairlearns(parts, trained, scored) -> None:
    """The same decisions, with its tolerance."""
    from fairlearn.postprocessing import ThresholdOptimizer as Theirs
    from sklearn.linear_model import LogisticRegression

    train, scores = scored
    gap = float(measured_gap(scores >= 0.5, train, "dp"))
    (_, rule, _), *_ = ThresholdOptimizer(shares=(0.3,)).candidates(
        trained, train, parts[1], seed=5
    )
    line = LogisticRegression().fit(np.array([[-1.0], [1.0]]), [0, 1])
    line.coef_[:], line.intercept_[:] = 1.0, 0.0  # its probabilities are the sigmoids of x
    theirs = Theirs(estimator=line, prefit=True, predict_method="predict_proba", tol=0.3 * gap)
    logit = np.log(scores / (1 - scores))[:, None]
    theirs.fit(logit, train.y, sensitive_features=train.group)
    seed = int(np.random.SeedSequence(5).generate_state(2)[0])
    wanted = theirs.predict(logit, sensitive_features=train.group, random_state=seed)
    assert (chosen(rule, train) == wanted).mean() > 0.99  # ties of rounded logits apart
    assert measured_gap(wanted, train, "dp") < gap


def test_reject_option_finds_the_margin_that_a_search_by_hand_finds(parts, trained, scored) -> None:
    """The best balanced accuracy within the bound, over the same margins, from all rows."""
    train, scores = scored
    gap = float(measured_gap(scores >= 0.5, train, "dp"))
    (_, rule, _), *_ = RejectOption(shares=(0.4,), margins=20).candidates(
        trained, train, parts[1], seed=0
    )
    above = train.group == np.argmax([scores[train.group == g].mean() for g in (0, 1)])

    def decided(margin: float) -> np.ndarray:
        inside = (scores <= 0.5 + margin) & (scores > 0.5 - margin)
        return np.where(inside, ~above, scores > 0.5)

    def balanced(decisions: np.ndarray) -> float:
        return np.mean([(decisions == y)[train.y == y].mean() for y in (0, 1)])

    tried = [decided(margin) for margin in np.linspace(0, 0.5, 20)]
    kept = [d for d in tried if measured_gap(d, train, "dp") <= 0.4 * gap]
    np.testing.assert_array_equal(chosen(rule, train), max(kept, key=balanced))


def test_reject_option_is_aif360s(parts, trained, scored) -> None:
    """The same margin and decisions as from its own tables, in which no rows are put together."""
    from aif360.algorithms.postprocessing import RejectOptionClassification
    from aif360.datasets import BinaryLabelDataset

    train, scores = scored
    gap = float(measured_gap(scores >= 0.5, train, "dp"))
    (_, rule, _), *_ = RejectOption(shares=(0.4,), margins=20).candidates(
        trained, train, parts[1], seed=0
    )

    def table(labels: np.ndarray) -> BinaryLabelDataset:
        columns = {"label": labels, "score": scores, "group": train.group}
        return BinaryLabelDataset(
            df=pd.DataFrame(columns, dtype=float),
            label_names=["label"],
            scores_names=["score"],
            protected_attribute_names=["group"],
        )

    above = float(np.argmax([scores[train.group == g].mean() for g in (0, 1)]))
    theirs = RejectOptionClassification(
        unprivileged_groups=[{"group": 1 - above}],
        privileged_groups=[{"group": above}],
        low_class_thresh=0.5,
        high_class_thresh=0.6,
        num_class_thresh=1,
        num_ROC_margin=20,
        metric_name="Statistical parity difference",
        metric_ub=0.4 * gap,
        metric_lb=-0.4 * gap,
    )
    theirs.fit(table(train.y), table(scores >= 0.5))
    assert rule.rule.option.ROC_margin == theirs.ROC_margin > 0
    wanted = theirs.predict(table(scores >= 0.5)).labels[:, 0]
    np.testing.assert_array_equal(chosen(rule, train), wanted == 1)


def test_blind_oxonfair_infers_groups_and_bounds_the_gap_of_the_true_ones(parts, trained) -> None:
    """On the training rows the bound holds, as the grid was searched there."""
    train, valid, _ = parts
    before = float(measured_gap(chosen(trained, train), train, "dp"))
    for aware in (False, True):
        mitigator = OxonFair({"dp": 0.1}, aware=aware, shares=(0.6, 0.3), networks=1)
        for settings, rule, _ in mitigator.candidates(trained, train, valid, seed=0):
            gap = measured_gap(chosen(rule, train), train, "dp")
            assert gap <= settings["share"] * before + 0.01


def test_oxonfair_refuses_many_groups(parts, trained) -> None:
    """Its grid has a dimension per group."""
    data = replace(
        parts[0],
        sensitive=np.arange(len(parts[0]))[:, None] % 7,
        sensitive_levels=(tuple("ABCDEFG"),),
    )
    with pytest.raises(OptionError, match="at most 6 groups"):
        list(OxonFair(aware=True).candidates(trained, data, parts[1], seed=0))


def test_a_mixture_draws_a_member_for_each_person(parts, trained) -> None:
    """Weights sum to 1, members vote with 0 or 1, and decisions follow the shares of the votes."""
    train, valid, test = parts
    mitigator = ExponentiatedGradient(shares=(0.2,), iterations=4, schedule=QUICK)
    ((_, mixture, finite),) = mitigator.candidates(trained, train, valid, seed=0)
    assert finite
    assert mixture.weights.sum() == pytest.approx(1)
    votes = [
        np.full(len(test), m) if isinstance(m, int) else chosen(m, test) for m in mixture.members
    ]
    shares = np.dot(mixture.weights, np.array(votes, float))
    np.testing.assert_allclose(mixture.shares(test), shares, atol=1e-9)
    assert any(isinstance(m, nn.Module) for m in mixture.members)
    drawn = np.mean(
        [replace(mixture, seed=seed).predict(test)[:, 1] for seed in range(400)], axis=0
    )
    np.testing.assert_allclose(drawn, shares, atol=0.12)  # 5 standard deviations at most
    assert set(np.unique(mixture.predict(test))) == {0.0, 1.0}


@pytest.mark.parametrize("criterion", ["dp", "eo", "eodds"])
def test_reductions_keep_the_bound_on_training_data(criterion) -> None:
    """As the retrainings of the default schedule are long enough, and the bound is on the gap."""
    train, valid, _ = made_up(900).split(0, fractions=(0.6, 0.2, 0.2))
    model = fn.train_classifier(
        train, valid, hidden=(16,), schedule=fn.Schedule(epochs=8, batch_size=64)
    )
    before = float(measured_gap(chosen(model, train), train, criterion))
    assert before > 0.1
    mitigator = ExponentiatedGradient({criterion: 0.05}, shares=(0.7, 0.4, 0.1))
    for settings, mixture, _ in mitigator.candidates(model, train, valid, seed=0):
        bound = settings["share"] * before
        assert measured_gap(mixture.shares(train), train, criterion) <= bound + 0.01
        assert measured_gap(chosen(mixture, train), train, criterion) <= bound + 0.06  # the draw's


@pytest.mark.parametrize(
    ("mitigator", "criterion", "missing"),
    [
        (LinearPost, "eo", 1),
        (LinearPost, "eodds", 0),
        (EqualizedOdds, "eo", 1),
        (EqualizedOdds, "eodds", 0),
        (RejectOption, "eo", 1),
        (RejectOption, "eodds", 0),
        (ThresholdOptimizer, "dp", 0),
        (ThresholdOptimizer, "eo", 1),
    ],
)
def test_groups_without_a_label_are_refused(mitigator, criterion, missing, parts, trained) -> None:
    """Before any work: the gap is of rates that a group does not have."""
    train, valid, _ = parts
    empty = replace(train, y=np.where(train.group == 1, 1 - missing, train.y))
    with pytest.raises(DataError, match=f"must have training samples of class {missing}") as caught:
        next(mitigator({criterion: 0.05}).candidates(trained, empty, valid, seed=0))
    assert caught.value.code == "data-too-few"
    assert "; got " in str(caught.value)
    assert f" 0 of {train.group_names[1]}. Give more data" in str(caught.value)


def test_linear_post_compares_the_groups_that_have_a_rate() -> None:
    """One of three has no positives: two are left."""
    train, valid, _ = made_up(900, groups=3).split(1, fractions=(0.5, 0.25, 0.25))
    model = fn.train_classifier(train, valid, hidden=(8,), schedule=fn.Schedule(epochs=2))
    for group in range(3):
        one = replace(train, y=np.where(train.group == group, 0, train.y))
        mitigator = LinearPost({"eo": 0.05}, networks=1, strengths=(1.0,))
        assert len(list(mitigator.candidates(model, one, valid, seed=0))) == 1


def test_a_reject_option_without_a_gap_leaves_the_scores(parts, trained) -> None:
    """Nobody is favoured by a network that decides alike for all."""
    train, valid, test = parts
    model = nn.Sequential(nn.Linear(train.x.shape[1], 3), nn.ReLU(), nn.Linear(3, 1)).eval()
    with torch.no_grad():
        model[2].weight.zero_()
        model[2].bias.fill_(-1.0)
    for _, rule, _ in RejectOption({"dp": 0.05}).candidates(model, train, valid, seed=0):
        np.testing.assert_allclose(rule.predict(test)[:, 1], positive_scores(model, test))


def test_a_linear_program_without_an_optimum_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The solver's status and words are in the error."""
    failed = SimpleNamespace(status=4, message="Numerical difficulties.")
    monkeypatch.setattr(linear_post, "linprog", lambda *_args, **_more: failed)
    with pytest.raises(FairNeuronError, match=r"status 4 .*Numerical difficulties") as caught:
        _multipliers(np.ones(3), np.ones((2, 3)), np.array([0, 0]), np.array([0.1]))
    assert caught.value.code == "data-linear-program"


def test_dropped_neurons_give_nothing(parts, trained) -> None:
    """The network is of the same class; searched scores are those of the network with zeros."""
    train, valid, test = parts
    mitigator = NeuronDropping({"dp": 0.0}, penalties=(0.2,), steps=40)
    ((settings, network, _),) = mitigator.candidates(trained, train, valid, seed=0)
    assert type(network) is type(trained)
    assert list(network.state_dict()) == list(trained.state_dict())
    first, second = network[0], network[2]
    silent = np.concatenate(
        [
            ((layer.weight == 0).all(1) & (layer.bias == 0)).numpy(force=True)
            for layer in (first, second)
        ]
    )
    assert silent.sum() == settings["dropped"] > 0
    neurons = _Neurons.of(trace(trained))
    np.testing.assert_allclose(
        neurons.scores(test.x, ~silent), positive_scores(network, test), atol=1e-6
    )
    head = trained[4]
    with torch.no_grad():
        kept = [torch.from_numpy(~part) for part in np.split(silent, 2)]
        value = trained[1](trained[0](test.x)) * kept[0]
        value = trained[3](trained[2](value)) * kept[1]
        wanted = torch.sigmoid(head(value))[:, 0].double().numpy()
    np.testing.assert_allclose(positive_scores(network, test), wanted, atol=1e-6)


def test_no_more_neurons_are_dropped_than_allowed(parts, trained) -> None:
    """Whatever the penalty."""
    mitigator = NeuronDropping({"dp": 0.0}, penalties=(0.0,), most=0.1, steps=60)
    ((settings, _, _),) = mitigator.candidates(trained, *parts[:2], seed=0)
    assert settings["dropped"] <= 2  # of 24


def test_neurons_that_give_something_for_nothing_are_refused(parts) -> None:
    """Zeroing a sigmoid neuron's weights would leave it at a half."""
    model = nn.Sequential(nn.Linear(5, 4), nn.Sigmoid(), nn.Linear(4, 1)).eval()
    nn.init.constant_(model[2].bias, 3.0)  # no outputs that look like probabilities
    with pytest.raises(ModelError, match="must give 0"):
        list(NeuronDropping().candidates(model, *parts[:2], seed=0))


@pytest.mark.parametrize(
    "make",
    [
        lambda: LinearPost(strengths=(-1,)),
        lambda: LinearPost(networks=0),
        lambda: OxonFair(shares=(2,)),
        lambda: ThresholdOptimizer(shares=(-0.1,)),
        lambda: EqualizedOdds(shares=(1.1,)),
        lambda: EqualizedOdds(shares=0.5),
        lambda: RejectOption(shares=()),
        lambda: RejectOption(margins=1),
        lambda: ExponentiatedGradient(iterations=0),
        lambda: NeuronDropping(most=0),
        lambda: NeuronDropping(steps=2.5),
    ],
)
def test_settings_out_of_range_are_refused(make) -> None:
    """Before any work."""
    with pytest.raises(OptionError):
        make()


def test_models_of_three_classes_are_refused(peer, parts) -> None:
    """There is no one decision boundary to move."""
    model = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)).eval()
    with pytest.raises(ModelError, match="two classes"):
        list(peer({"dp": 0.1}).candidates(model, *parts[:2], seed=0))

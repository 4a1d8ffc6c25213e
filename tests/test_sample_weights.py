"""Sample weights: whole weights train as repeated rows do, and audits do not read them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import fairneuron as fn
from fairneuron import baselines
from fairneuron.conflict import conflict_neurons, neuron_pulls
from fairneuron.data.dataset import Dataset
from fairneuron.errors import DataError
from fairneuron.explanation import explain_conflict
from fairneuron.gaps import soft_gap
from fairneuron.models import task_loss
from fairneuron.tracing import trace
from fairneuron.training import loss_of, train
from tests.conftest import made_up
from tests.test_training import fresh, same

CALM = settings(max_examples=40, deadline=None, derandomize=True)
WHOLE = fn.Schedule(epochs=5, batch_size=10**6, plateau=None)  # all rows in every step


def with_weights(n: int = 120, seed: int = 0, groups: int = 2) -> tuple[Dataset, Dataset]:
    """Data with whole weights, and the same data with each row as often as its weight says."""
    data = made_up(n, seed=seed, groups=groups)
    times = np.random.default_rng(seed + 1).integers(0, 4, n)
    names = np.array(data.group_names)[data.group]
    weighted = Dataset.from_arrays(data.x, data.y, names, sample_weight=times)
    return weighted, data.subset(np.repeat(np.arange(n), times))


@CALM
@given(st.integers(0, 2**32), st.sampled_from([1, 2, 3]))
def test_losses_and_gaps_are_those_of_repeated_rows(seed: int, outputs: int) -> None:
    """For any logits, groups and criteria; gradients too."""
    rng = np.random.default_rng(seed)
    n = 30
    times = rng.integers(0, 4, n)
    times[0] = 1
    shape = (n,) if outputs == 1 else (n, outputs)
    out = torch.from_numpy(rng.normal(size=shape)).requires_grad_()
    y = torch.from_numpy(rng.integers(0, max(outputs, 2), n))
    group = torch.from_numpy(rng.integers(0, 3, n))
    weight = torch.from_numpy(times * 0.7)
    rows = torch.from_numpy(np.repeat(np.arange(n), times))
    criteria = [("dp",), ("eo",), ("eodds",), ("dp", "eo")][seed % 4]

    def score(logits: torch.Tensor) -> torch.Tensor:
        return logits.sigmoid() if outputs == 1 else logits.softmax(1)[:, 1]

    pairs = [
        (task_loss(out, y, weight), task_loss(out[rows], y[rows])),
        (
            soft_gap(score(out), y, group, criteria, weight),
            soft_gap(score(out[rows]), y[rows], group[rows], criteria),
        ),
    ]
    for weighted, repeated in pairs:
        torch.testing.assert_close(weighted, repeated)
        one, other = (
            torch.autograd.grad(v, out, retain_graph=True, allow_unused=True)[0]
            for v in (weighted, repeated)
        )
        torch.testing.assert_close(one, other)


def test_a_batch_without_weight_is_no_nan() -> None:
    """Loss and gap are 0 there, and so are their gradients."""
    out = torch.tensor([0.3, -2.0, 1.0]).requires_grad_()
    y, group, none = torch.tensor([0, 1, 1]), torch.tensor([0, 1, 1]), torch.zeros(3)
    loss = task_loss(out, y, none)
    gap = soft_gap(out.sigmoid(), y, group, ("dp", "eo", "eodds"), none)
    assert (loss.item(), gap.item()) == (0, 0)
    for value in (loss, gap):
        (gradient,) = torch.autograd.grad(value, out, retain_graph=True)
        assert torch.equal(gradient, torch.zeros(3))
    weight = torch.tensor([0.0, 1.0, 2.0])  # a group of no weight has no gap and no NaN
    (gradient,) = torch.autograd.grad(soft_gap(out.sigmoid(), y, group, ("dp",), weight), out)
    assert torch.equal(gradient, torch.zeros(3))


def test_training_is_that_of_repeated_rows() -> None:
    """The same steps, up to rounding, by the training loop and by the validation loss."""
    weighted, repeated = with_weights()
    one, other = fresh(), fresh()
    for model, data in ((one, weighted), (other, repeated)):
        assert train(model, data, data, WHOLE, seed=0)
    assert not same(one, fresh())
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    assert loss_of(one, weighted) == pytest.approx(loss_of(one, repeated), rel=1e-5)


@pytest.mark.parametrize("criteria", [("dp",), ("eo",), ("eodds",)])
def test_pulls_and_explanations_are_those_of_repeated_rows(criteria: tuple[str, ...]) -> None:
    """Of every neuron, pull and conflict; and how much of the gap the chosen ones carry."""
    weighted, repeated = with_weights(groups=3)
    graph = trace(fresh())
    one, other = (neuron_pulls(graph, data, criteria) for data in (weighted, repeated))
    for a, b in zip(one, other, strict=True):
        assert (a.layer, a.unit) == (b.layer, b.unit)
        assert a.pull == pytest.approx(b.pull, rel=1e-3, abs=1e-6)
        assert a.conflict == pytest.approx(b.conflict, abs=1e-3)
    chosen = conflict_neurons(other, 0.3)
    found = [explain_conflict(graph, d, chosen, criteria) for d in (weighted, repeated)]
    assert found[0].gap == pytest.approx(found[1].gap, rel=1e-4)
    assert found[0].gap_without == pytest.approx(found[1].gap_without, rel=1e-3, abs=1e-5)
    assert found[0].carried_by_random == pytest.approx(found[1].carried_by_random, abs=1e-3)


def test_a_repair_is_that_of_repeated_rows(trained: nn.Sequential) -> None:
    """The same neurons, and candidates with the same weights up to rounding."""
    weighted, repeated = with_weights(400)
    valid = made_up(200, seed=5)
    plan = fn.Schedule(epochs=20, batch_size=10**6, learning_rate=0.01, plateau=None)
    one, other = (
        fn.repair(trained, data, valid, strengths=(0.5, 1.0), schedule=plan)
        for data in (weighted, repeated)
    )
    names = [[(n.layer, n.unit) for n in r.explanation.neurons] for r in (one, other)]
    assert names[0] == names[1]
    for a, b in zip(one.trials[1:], other.trials[1:], strict=True):
        for p, q in zip(a.model.parameters(), b.model.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-3, atol=1e-3)
    unweighted = fn.repair(trained, made_up(400), valid, strengths=(0.5, 1.0), schedule=plan)
    assert not same(one.trials[1].model, unweighted.trials[1].model)


def test_weights_have_no_unit() -> None:
    """A thousand times the weights, or 1e-300 of them, train the same model, and none is lost."""
    weighted, _ = with_weights()
    names = np.array(weighted.group_names)[weighted.group]
    models = []
    for factor in (1, 1e3, 1e-300, 1e300):
        data = Dataset.from_arrays(
            weighted.x, weighted.y, names, sample_weight=weighted.weight * factor
        )
        models.append(fresh())
        assert train(models[-1], data, data, WHOLE, seed=0)
    for model in models[1:]:
        for a, b in zip(models[0].parameters(), model.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_mitigators_and_classifiers_read_weights(parts, trained) -> None:
    """Other weights, other networks."""
    train_part, valid, _ = parts
    names = np.array(train_part.group_names)[train_part.group]
    heavy = Dataset.from_arrays(
        train_part.x, train_part.y, names, sample_weight=1 + 9 * train_part.y
    )
    quick = fn.Schedule(epochs=2)
    one, other = (
        fn.train_classifier(d, valid, hidden=(4,), schedule=quick) for d in (train_part, heavy)
    )
    assert not same(one, other)
    one, other = (
        baselines.Ordinary(quick).fit(trained, d, valid, seed=0).model for d in (train_part, heavy)
    )
    assert not same(one, other)


def test_audits_and_verdicts_count_people(parts, trained) -> None:
    """Whatever their weights."""
    test = parts[2]
    names = np.array(test.group_names)[test.group]
    weights = np.random.default_rng(0).uniform(0, 9, len(test))
    weighted = Dataset.from_arrays(test.x, test.y, names, sample_weight=weights)
    assert fn.audit(trained, weighted).to_dict() == fn.audit(trained, test).to_dict()
    one, other = (
        fn.judge(trained, fresh(), data, {"dp": 0.1}, on="test").to_dict()
        for data in (weighted, test)
    )
    assert one == other


def test_subsets_and_splits_keep_weights() -> None:
    """Each row has its own weight in every part."""
    data = made_up(200)
    names = np.array(data.group_names)[data.group]
    weights = np.arange(1.0, 201)
    x = np.concatenate([data.x.numpy(), weights[:, None]], axis=1)
    weighted = Dataset.from_arrays(x, data.y, names, sample_weight=weights)
    for part in (*weighted.split(1, scale=False), weighted.subset(data.y == 1)):
        np.testing.assert_array_equal(part.weight, part.x[:, -1].numpy())
    assert all(part.weight is not None for part in weighted.split(1))
    assert data.subset([0]).weight is None
    weights[:] = 0  # not ours
    assert weighted.weight.min() == 1


@pytest.mark.parametrize(
    "weights",
    [[1] * 3, [[1], [1], [1], [1]], [1, 1, 1, -0.1], [1, 1, 1, float("nan")],
     [1, 1, 1, float("inf")], [0] * 4, ["a"] * 4, [None] * 4, 1],
    ids=repr,
)  # fmt: skip
def test_weights_that_are_none(weights: object) -> None:
    """A wrong length or shape, negative, not finite, all 0, no numbers."""
    with pytest.raises(DataError) as caught:
        Dataset.from_arrays(np.zeros((4, 1)), [0, 1, 0, 1], list("abab"), sample_weight=weights)
    assert caught.value.code == "data-weights"


def test_a_part_without_weight_is_refused(parts, trained) -> None:
    """It can be audited, but nothing can be trained on it."""
    train_part, valid, _ = parts
    names = np.array(valid.group_names)[valid.group]
    weights = np.zeros(len(valid))
    weights[0] = 1
    weighted = Dataset.from_arrays(valid.x, valid.y, names, sample_weight=weights)
    rest = weighted.subset(np.arange(1, len(valid)))
    assert fn.audit(trained, rest).metrics["accuracy"] > 0.5
    for attempt in (
        lambda: fn.repair(trained, train_part, rest),
        lambda: fn.repair(trained, rest, valid),
        lambda: fn.train_classifier(train_part, rest),
        lambda: baselines.PureDropout().fit(trained, rest, valid, seed=0),
    ):
        with pytest.raises(DataError) as caught:
            attempt()
        assert caught.value.code == "data-weights"

"""The terms of a training: class weights, the caller's loss and optimiser, and the time."""

import copy
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight
from torch import nn
from torch.nn import functional

import fairneuron as fn
from fairneuron import baselines, terms
from fairneuron.errors import InputError, OptionError
from fairneuron.models import task_loss
from fairneuron.terms import Budget, Terms, class_weighted
from fairneuron.training import loss_of, train
from tests.conftest import made_up
from tests.test_training import PLAN, fresh, same

CALM = settings(max_examples=25, deadline=None, derandomize=True)


def cross_entropy(logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """What is used anyway, as a caller would write it."""
    return functional.binary_cross_entropy_with_logits(logits, y.to(logits.dtype))


def each(logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The same per sample."""
    return functional.binary_cross_entropy_with_logits(logits, y.to(logits.dtype), reduction="none")


def focal(logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Another loss, of which there are many."""
    losses = each(logits, y)
    return (1 - (-losses).exp()) ** 2 * losses


def adam(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    """What is used anyway."""
    return torch.optim.Adam(parameters, lr=0.01, betas=(0.9, 0.9999), fused=True)


# The caller's loss


@pytest.mark.parametrize("loss", [cross_entropy, each, nn.BCEWithLogitsLoss(reduction="none")])
def test_a_loss_of_the_caller_that_is_ours_changes_nothing(parts, loss: Callable) -> None:
    """One value or one per sample, function or module: the weights are those without it."""
    data, valid, _ = parts
    plan = fn.Schedule(epochs=4, batch_size=32, patience=2)
    ours, theirs = fresh(), fresh()
    if isinstance(loss, nn.Module):  # reads labels as numbers
        module = loss

        def loss(logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return module(logits, y.float())

    train(ours, data, valid, plan, seed=1)
    train(theirs, data, valid, plan, seed=1, terms=Terms(loss))
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_another_loss_trains_other_weights(parts) -> None:
    """In train_classifier, in repair, and in the mitigators; class logits come as (n, classes)."""
    data, valid, _ = parts
    shapes = set()

    def noted(logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        shapes.add(logits.shape[1:])
        return functional.cross_entropy(logits, y) ** 2

    nets = [
        fn.train_classifier(data, valid, hidden=(4,), outputs=2, schedule=PLAN, loss=loss)
        for loss in (None, noted)
    ]
    assert not same(*nets)
    assert shapes == {(2,)}
    plain, own = (
        fn.repair(nets[0], data, valid, strengths=0.5, epochs=2, loss=loss).trials[1]
        for loss in (None, noted)
    )
    assert not same(plain.model, own.model)
    plain, own = (
        baselines.Ordinary(PLAN, loss=loss).fit(nets[0], data, valid, seed=0)
        for loss in (None, noted)
    )
    assert not same(plain.model, own.model)


def test_the_loss_of_the_caller_drives_validation_and_conflict(parts, trained) -> None:
    """Early stopping keeps the epoch that it likes best; a loss turned round turns the conflict."""
    data, valid, _ = parts
    losses, model = [], fresh()
    own = Terms(focal)
    train(
        model,
        data,
        valid,
        fn.Schedule(epochs=30, batch_size=16, learning_rate=0.05, patience=3),
        seed=0,
        terms=own,
        progress=lambda *_: losses.append(loss_of(model, valid, own.task_loss)),
    )
    assert loss_of(model, valid, own.task_loss) == min(losses) < losses[-1]

    one, other = (
        fn.repair(trained, data, valid, neuron_share=0.2, epochs=1, loss=loss).explanation.neurons
        for loss in (cross_entropy, lambda *t: -cross_entropy(*t))
    )
    assert [n.pull for n in one] == [n.pull for n in other]
    assert [n.conflict for n in one] == pytest.approx([-n.conflict for n in other])


class Moody(nn.Module):
    """A loss that fails in its own way."""

    def forward(self, logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        raise ZeroDivisionError("first line\nsecond line")


NO_LOSSES: dict[str, tuple[object, str]] = {
    "a number": (3, "int"),
    "an exception": (Moody(), "ZeroDivisionError: first line"),
    "labels that are no numbers": (nn.BCEWithLogitsLoss(), "RuntimeError"),
    "too many arguments": (lambda logits: logits.mean(), "TypeError"),
    "a float": (lambda logits, _: logits.mean().item(), "float"),
    "two columns": (lambda logits, _: torch.stack([logits, logits], 1), "for n = "),
    "another length": (lambda logits, _: logits[:-1], "for n = "),
    "no gradient": (lambda logits, _: logits.detach().mean(), "constant"),
    "labels alone": (lambda _, y: y.float().mean().requires_grad_(), "depend"),
    "in place": (lambda logits, _: logits.sigmoid().mul_(logits.exp().sqrt_()), "gradient"),
}


@pytest.mark.parametrize(("loss", "got"), NO_LOSSES.values(), ids=NO_LOSSES)
def test_what_is_no_loss_is_refused_before_any_work(parts, trained, loss: object, got: str) -> None:
    """With a code, what it gave, and an example; an exception of the caller's is the cause."""
    told = []
    for attempt in (
        lambda: fn.repair(trained, *parts[:2], loss=loss, progress=lambda *t: told.append(t)),
        lambda: fn.train_classifier(*parts[:2], loss=loss, progress=lambda *t: told.append(t)),
        lambda: baselines.PureDropout(loss=loss).fit(trained, *parts[:2], seed=0),
    ):
        with pytest.raises(OptionError, match="lambda logits, y: torch") as caught:
            attempt()
        assert caught.value.code == "option-loss"
        assert got in str(caught.value)
        if isinstance(loss, Moody):
            assert isinstance(caught.value.__cause__, ZeroDivisionError)
            assert "second" not in str(caught.value)
    assert told == []


def test_a_loss_may_draw_random_numbers(parts) -> None:
    """The same seed gives the same weights, and the global generator stays where it was."""

    def noisy(logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return each(logits, y) * torch.rand(len(y))

    state = torch.get_rng_state()
    one, other = (fn.train_classifier(*parts[:2], schedule=PLAN, loss=noisy) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert same(one, other)


def test_weights_need_a_loss_per_sample(parts, trained) -> None:
    """A mean cannot be weighted any more: refused; per sample it can."""
    train_part, valid, _ = parts
    with pytest.raises(OptionError, match="reduction='none'") as caught:
        fn.repair(trained, train_part, valid, class_weight="balanced", loss=cross_entropy)
    assert caught.value.code == "option-loss"
    weighted, _ = class_weighted(train_part, valid, {1: 3})
    out, y = trained(weighted.x)[:, 0], torch.from_numpy(weighted.y)
    w = torch.from_numpy(weighted.relative_weight).float()
    torch.testing.assert_close(Terms(each).task_loss(out, y, w), task_loss(out, y, w))


# The caller's optimiser


def test_an_optimiser_of_the_caller_that_is_ours_changes_nothing(parts) -> None:
    """Bit for bit; it is called with the list of parameters."""
    data, valid, _ = parts
    ours, theirs, given = fresh(), fresh(), []

    def make(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        given.append(parameters)
        return adam(parameters)

    train(ours, data, valid, PLAN, seed=1)
    train(theirs, data, valid, PLAN, seed=1, terms=Terms(optimiser=make))
    assert same(ours, theirs)
    assert type(given[0]) is list
    assert [id(p) for p in given[0]] == [id(p) for p in theirs.parameters()]


def test_the_rate_of_the_caller_falls_on_a_plateau(parts, monkeypatch) -> None:
    """Its own rate × 0.1, whatever that of the schedule."""
    made = []
    monkeypatch.setattr("fairneuron.training.loss_of", lambda *_: 1.0)
    train(
        fresh(),
        *parts[:2],
        fn.Schedule(epochs=6, learning_rate=0.5, plateau=2),
        seed=0,
        terms=Terms(optimiser=lambda p: made.append(torch.optim.SGD(p, lr=0.03)) or made[0]),
    )
    assert made[0].param_groups[0]["lr"] == pytest.approx(0.003)


OPTIMISERS: dict[str, Callable[[list], torch.optim.Optimizer]] = {
    "momentum and decay": lambda p: torch.optim.SGD(
        p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.3
    ),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=1.0),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.5, weight_decay=0.1),
    "Rprop": lambda p: torch.optim.Rprop(p, lr=0.01),
    "averaged": lambda p: torch.optim.ASGD(p, lr=0.01, lambd=0.1, weight_decay=0.1),
    "a few parameters": lambda p: torch.optim.SGD(p[:1], lr=0.1, weight_decay=0.5),
}


@pytest.mark.parametrize("make", OPTIMISERS.values(), ids=OPTIMISERS)
def test_masked_elements_never_move_whatever_the_optimiser(parts, make: Callable) -> None:
    """Not by a bit, where momentum or weight decay would move them; the others do."""
    model, before = fresh(), fresh()
    mask = torch.zeros_like(model[2].weight)
    mask[3, ::2] = 1
    only = {"2.weight": mask, "2.bias": torch.zeros(8)}
    train(model, *parts[:2], PLAN, seed=0, only=only, terms=Terms(optimiser=make))
    for name, value in model.state_dict().items():
        changed = value != before.state_dict()[name]
        if name == "2.weight":
            assert changed[3, ::2].all()
            changed[3, ::2] = False
        assert not changed.any(), name


@CALM
@given(st.integers(0, 2**32), st.sampled_from(sorted(OPTIMISERS)))
def test_any_mask_holds(seed: int, name: str) -> None:
    """Elements outside a random mask are as they were."""
    rng = np.random.default_rng(seed)
    data, model = made_up(40, seed=1), fresh()
    before = copy.deepcopy(model.state_dict())
    only = {
        key: torch.from_numpy((rng.random(p.shape) < 0.4).astype(np.float32))
        for key, p in model.named_parameters()
    }
    terms_ = Terms(optimiser=OPTIMISERS[name])
    plan = fn.Schedule(epochs=1, batch_size=16, plateau=None)
    train(model, data, data, plan, seed=0, only=only, terms=terms_)
    for key, value in model.state_dict().items():
        kept = only[key] == 0
        assert torch.equal(value[kept], before[key][kept])


def test_repair_changes_the_chosen_neurons_alone_under_weight_decay(parts, trained) -> None:
    """As without the caller's optimiser."""
    options = {"strengths": 0.5, "neuron_share": 0.1, "epochs": 3}
    result = fn.repair(trained, *parts[:2], optimiser=OPTIMISERS["AdamW"], **options)
    chosen = {(n.layer, n.unit) for n in result.explanation.neurons}
    moved = set()
    for name, value in result.trials[1].model.state_dict().items():
        rows = (value != trained.state_dict()[name]).reshape(len(value), -1).any(1)
        moved |= {(name.split(".")[0], row) for row in rows.nonzero()[:, 0].tolist()}
    assert moved == chosen


class Failing(torch.optim.SGD):
    """Steps once."""

    def step(self, closure: object = None) -> None:
        raise KeyError("momentum_buffer\nand more")


def foreign(_: list) -> torch.optim.Optimizer:
    """Of parameters of its own."""
    return torch.optim.SGD([nn.Parameter(torch.zeros(2))], lr=0.1)


NO_OPTIMISERS: dict[str, tuple[object, str]] = {
    "a name": ("adam", "str"),
    "an optimiser that is made already": (torch.optim.SGD(fresh().parameters(), lr=1), "SGD"),
    "nothing": (lambda _: None, "NoneType"),
    "an exception": (lambda p: torch.optim.SGD(p, lr=-1), "ValueError: Invalid learning rate"),
    "a closure": (torch.optim.LBFGS, "closure: LBFGS"),
    "other parameters": (foreign, "other parameters"),
    "a failing step": (lambda p: Failing(p, lr=0.1), "KeyError: 'momentum_buffer"),
}


@pytest.mark.parametrize(("optimiser", "got"), NO_OPTIMISERS.values(), ids=NO_OPTIMISERS)
def test_what_is_no_optimiser_is_refused(parts, trained, optimiser: object, got: str) -> None:
    """With a code, what it gave, and an example."""
    for attempt in (
        lambda: fn.repair(trained, *parts[:2], optimiser=optimiser),
        lambda: fn.train_classifier(*parts[:2], optimiser=optimiser),
        lambda: baselines.RandomDropout(optimiser=optimiser).fit(trained, *parts[:2], seed=0),
    ):
        with pytest.raises(OptionError, match="lambda parameters: torch") as caught:
            attempt()
        assert caught.value.code == "option-optimiser"
        assert got in str(caught.value)
    if "exception" in got:
        assert isinstance(caught.value.__cause__, ValueError)


def test_mitigators_refuse_what_cannot_be_called_when_they_are_made() -> None:
    """As other bad settings."""
    for make in (fn.FairNeuron, baselines.Ordinary, baselines.PureDropout, baselines.RandomDropout):
        with pytest.raises(OptionError):
            make(loss=1)
        with pytest.raises(OptionError):
            make(optimiser=1)


# Weights of classes


@CALM
@given(st.lists(st.integers(0, 2), min_size=8, max_size=40), st.booleans(), st.integers(0, 99))
def test_balanced_is_scikit_learns(labels: list[int], weighted: bool, seed: int) -> None:
    """n / (classes · count), by weight where there are weights; up to a common factor."""
    n = len(labels)
    w = np.random.default_rng(seed).uniform(0.1, 5, n) if weighted else None
    data = fn.Dataset.from_arrays(np.zeros((n, 1)), labels, ["a", "b"] * (n // 2) + ["a"] * (n % 2),
                                  sample_weight=w)  # fmt: skip
    found, _ = class_weighted(data, data, "balanced")
    classes = np.unique(labels)
    expected = compute_class_weight("balanced", classes=classes, y=np.array(labels),
                                    sample_weight=w)  # fmt: skip
    each_row = expected[np.searchsorted(classes, labels)] * (1 if w is None else w)
    np.testing.assert_allclose(found.weight / found.weight.sum(), each_row / each_row.sum())
    if w is None:
        np.testing.assert_allclose(found.weight, each_row)


def test_factors_by_class(parts) -> None:
    """Classes that are not named count 1; the validation part gets the same factors."""
    data, valid, _ = parts
    for part, found in zip((data, valid), class_weighted(data, valid, {1: 3}), strict=True):
        np.testing.assert_array_equal(found.weight, np.where(part.y == 1, 3, 1))
    assert class_weighted(data, valid, None) == (data, valid)


def test_a_heavy_class_is_predicted_more(parts, trained) -> None:
    """In training and in a repair."""
    rates = [
        (fn.train_classifier(*parts[:2], hidden=(8,), schedule=PLAN, class_weight=w)(
            parts[2].x) > 0).float().mean()
        for w in ({0: 20}, None, "balanced", {1: 20})
    ]  # fmt: skip
    assert rates[0] < rates[1] < rates[3]
    one, other = (
        fn.FairNeuron(strengths=0.3, neuron_share=1.0, class_weight=w)
        .fit(trained, *parts[:2], seed=0)
        .predict(parts[2])[:, 1]
        .mean()
        for w in ({0: 5}, {1: 5})
    )
    assert one < other


@pytest.mark.parametrize(
    "class_weight",
    ["balance", 3, {}, {2: 1}, {"1": 1}, {1: 0}, {1: -1}, {1: float("nan")}, {1: float("inf")},
     {1: True}, {0: "2"}, [1, 2]],
    ids=repr,
)  # fmt: skip
def test_class_weights_that_are_none(parts, trained, class_weight: object) -> None:
    """Unknown words and classes, and bad numbers, before any work."""
    for attempt in (
        lambda: fn.repair(trained, *parts[:2], class_weight=class_weight),
        lambda: fn.train_classifier(*parts[:2], class_weight=class_weight),
    ):
        with pytest.raises(OptionError) as caught:
            attempt()
        assert caught.value.code == "option-class-weight"


# Time


@pytest.fixture
def ticks(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """A clock that is a second later each time it is read; the list holds the times read."""
    read: list[float] = []

    def clock() -> float:
        read.append(100.0 + len(read))
        return read[-1]

    monkeypatch.setattr(terms, "clock", clock)
    return read


def tried(result: fn.Repair) -> list[float]:
    """The strengths of which there are candidates."""
    return [*dict.fromkeys(t.settings["strength"] for t in result.trials[1:])]


def test_a_budget_ends_all_networks_after_the_same_epoch(parts, trained, ticks) -> None:
    """The candidates are those of so many epochs, of every strength, and it is said."""
    options = {"neuron_share": 0.1, "strengths": (0.1, 0.5, 2.0), "stops": (0.5, 0.0)}
    result = fn.repair(trained, *parts[:2], epochs=9, time_budget=3, **options)
    assert result.stopped == "the time budget of 3 s ended the retraining early"
    assert ticks == [100, 101, 102, 103]  # the clock is read once after each epoch
    assert tried(result) == [0.1, 0.5, 2.0]
    expected = fn.repair(trained, *parts[:2], epochs=3, **options)
    assert [t.settings for t in result.trials] == [t.settings for t in expected.trials]
    for a, b in zip(result.trials, expected.trials, strict=True):
        assert same(a.model, b.model)


def test_a_budget_ends_between_networks_that_are_trained_one_by_one(parts, trained, ticks) -> None:
    """None is begun afterwards; those that were are there, in the order that was given."""
    result = fn.repair(
        trained, *parts[:2], neuron_share=0.1, strengths=(0.4, 0.1, 0.3, 0.2, 0.5), stops=0.0,
        epochs=1, time_budget=2.5, optimiser=adam,
    )  # fmt: skip
    # with one epoch each, the clock is read once before each but the first: 1, 2, 3 seconds
    assert ticks == [100, 101, 102, 103]
    assert tried(result) == [0.4, 0.1, 0.3]
    assert result.stopped == (
        "the time budget of 2.5 s ended the retraining early; networks not begun: 2"
    )


def test_a_budget_ends_a_network_after_its_epoch(parts, trained, ticks) -> None:
    """What was trained until then is a candidate: the same as with so many epochs."""
    options = {
        "neuron_share": 0.1, "strengths": (0.6, 0.5, 0.4), "stops": 0.0, "optimiser": adam
    }  # fmt: skip
    result = fn.repair(trained, *parts[:2], epochs=9, time_budget=3, **options)
    assert "networks not begun: 2" in result.stopped
    assert tried(result) == [0.6]
    expected = fn.repair(trained, *parts[:2], epochs=3, **options).trials[1]
    assert result.trials[1].settings == expected.settings
    assert same(result.trials[1].model, expected.model)


def test_the_best_epoch_is_kept_when_the_time_ends(parts, ticks) -> None:
    """Where a patience is set, as without a budget."""
    budget, losses, model = Budget(4), [], fresh()
    budget.start()
    train(
        model,
        *parts[:2],
        fn.Schedule(epochs=50, batch_size=16, learning_rate=0.3, patience=40),
        seed=0,
        terms=Terms(budget=budget),
        progress=lambda *_: losses.append(loss_of(model, parts[1])),
    )
    assert len(losses) == 4
    assert budget.cut
    assert loss_of(model, parts[1]) == min(losses) < losses[-1]


@pytest.mark.parametrize("optimiser", [None, adam])
@pytest.mark.parametrize("recipe", ["conflict", "paper"])
def test_there_is_a_candidate_however_short_the_time(
    parts, trained, recipe: str, optimiser: Callable | None, ticks
) -> None:
    """Of a network that was trained for an epoch."""
    options = {"recipe": recipe, "optimiser": optimiser}
    options |= {"neuron_share": 0.1, "strengths": 0.7} if recipe == "conflict" else {}
    result = fn.repair(trained, *parts[:2], time_budget=1e-9, **options)
    assert result.stopped == "the time budget of 1e-09 s ended the retraining early"
    assert result.trials[1].metrics is not None
    expected = fn.repair(trained, *parts[:2], epochs=1, **options)
    assert len(result.trials) == len(expected.trials)
    for a, b in zip(result.trials[1:], expected.trials[1:], strict=True):
        assert same(a.model, b.model)
        assert not same(a.model, trained)


@pytest.mark.parametrize("optimiser", [None, adam])
@pytest.mark.parametrize("budget", [None, 1e9])
def test_time_enough_stops_nothing(
    parts, trained, budget: float | None, optimiser: Callable | None
) -> None:
    """All candidates are tried, in the order that was given."""
    strengths = (0.7, 0.1, 0.4)
    result = fn.repair(
        trained, *parts[:2], strengths=strengths, epochs=1, time_budget=budget, optimiser=optimiser
    )
    assert tried(result) == [*strengths]
    assert result.stopped is None


@pytest.mark.parametrize("optimiser", [None, adam])
def test_a_budget_that_ends_with_the_last_epoch_stopped_nothing(
    parts, trained, optimiser: Callable | None, ticks
) -> None:
    """Nothing was left to do."""
    result = fn.repair(
        trained, *parts[:2], neuron_share=0.1, strengths=(0.1, 0.2), epochs=1, time_budget=1.5,
        optimiser=optimiser,
    )  # fmt: skip
    assert tried(result) == [0.1, 0.2]
    assert result.stopped is None


def test_a_real_clock(parts, trained) -> None:
    """A budget of a moment is kept, by and large."""
    start = time.monotonic()
    result = fn.repair(trained, *parts[:2], epochs=10_000, time_budget=0.2)
    assert time.monotonic() - start < 20
    assert result.stopped is not None


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), "60", True])
def test_budgets_out_of_range_are_refused(parts, trained, seconds: object) -> None:
    """Seconds above 0."""
    for attempt in (
        lambda: fn.repair(trained, *parts[:2], time_budget=seconds),
        lambda: fn.FairNeuron(time_budget=seconds),
    ):
        with pytest.raises(InputError) as caught:
            attempt()
        assert caught.value.code == "option-range"

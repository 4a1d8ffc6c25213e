"""The training loop: against a literal one, and what it must leave alone."""

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import fairneuron as fn
from fairneuron.adam import Adam
from fairneuron.data.dataset import Dataset
from fairneuron.errors import ModelError, OptionError
from fairneuron.models import mlp
from fairneuron.tracing import trace
from fairneuron.training import Schedule, Watch, loss_of, reproducible, train

PLAN = Schedule(epochs=3, batch_size=32, learning_rate=0.01, plateau=None)


def fresh(seed: int = 0, dropout: float = 0.0) -> nn.Sequential:
    """A network for the made-up data."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return mlp(5, (8, 8), dropout=dropout)


def same(a: nn.Module, b: nn.Module) -> bool:
    """Whether all weights are bit-identical."""
    return all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())


def test_same_weights_as_a_literal_loop(parts) -> None:
    """Plain Adam over permuted batches, written out."""
    data, valid, _ = parts
    ours, literal = fresh(), fresh()
    assert train(ours, data, valid, PLAN, seed=7)
    with reproducible(7):
        optimiser = torch.optim.Adam(literal.parameters(), lr=0.01, betas=(0.9, 0.9999))
        y = torch.from_numpy(data.y).float()
        for _ in range(3):
            order = torch.randperm(len(data))
            for start in range(0, len(data), 32):
                rows = order[start : start + 32]
                loss = functional.binary_cross_entropy_with_logits(
                    literal(data.x[rows])[:, 0], y[rows]
                )
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
    for (name, a), b in zip(ours.state_dict().items(), literal.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, msg=name, rtol=1e-4, atol=1e-6)


def test_same_seed_same_weights_whatever_the_threads(parts) -> None:
    """Bit for bit; another seed gives others; the global generator and thread count stay."""
    data, valid, _ = parts
    threads = torch.get_num_threads()
    models = [fresh(dropout=0.3) for _ in range(3)]
    everybody = np.ones(len(data), dtype=bool)
    state = torch.get_rng_state()
    try:
        for model, count, seed in zip(models, (1, 2, 2), (5, 5, 6), strict=True):
            torch.set_num_threads(count)
            train(model, data, valid, PLAN, seed=seed, dropped=everybody)
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(torch.get_rng_state(), state)
    assert same(models[0], models[1])
    assert not same(models[0], models[2])


class Probe(nn.Module):
    """Notes which rows come, and whether dropout is active then."""

    def __init__(self) -> None:
        super().__init__()
        self.drop, self.linear = nn.Dropout(0.5), nn.Linear(1, 1)
        self.seen: list[tuple[bool, list[int]]] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled():
            self.seen.append((self.drop.training, x[:, 0].int().tolist()))
        return self.linear(self.drop(x))


def test_benign_samples_come_first_without_dropout_then_biased_with_it() -> None:
    """Algorithm 1, lines 8 to 11, in every epoch; every row once."""
    n = 20
    x = torch.arange(n, dtype=torch.float32)[:, None]
    data = Dataset.from_arrays(x, np.arange(n) % 2, np.arange(n) % 2)
    biased = np.arange(n) % 3 == 0
    probe = Probe()
    train(probe, data, data, Schedule(epochs=2, batch_size=5, plateau=None), seed=0, dropped=biased)
    per_epoch = len(probe.seen) // 2
    for epoch in (probe.seen[:per_epoch], probe.seen[per_epoch:]):
        flags = [active for active, _ in epoch]
        assert flags == sorted(flags)
        for active in (False, True):
            rows = sorted(row for flag, batch in epoch if flag == active for row in batch)
            assert rows == np.flatnonzero(biased == active).tolist()


def test_only_masked_elements_change(parts) -> None:
    """Everything else stays bit-identical, Adam's momentum notwithstanding."""
    data, valid, _ = parts
    model, before = fresh(), fresh()
    mask = torch.zeros_like(model[2].weight)
    mask[3] = 1
    train(model, data, valid, PLAN, seed=0, only={"2.weight": mask})
    for name, value in model.state_dict().items():
        changed = value != before.state_dict()[name]
        if name == "2.weight":
            assert changed[3].any()
            changed[3] = False
        assert not changed.any(), name


def test_flags_modes_and_gradients_are_restored(parts) -> None:
    """requires_grad, training and grad are as before."""
    data, valid, _ = parts
    model = fresh(dropout=0.2)
    model.eval()
    model[0].weight.requires_grad_(False)
    train(model, data, valid, PLAN, seed=0)
    assert not model.training
    assert [p.requires_grad for p in model.parameters()] == [False, True, True, True, True, True]
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(model[0].weight, fresh()[0].weight)


def test_batch_norm_keeps_its_statistics(parts) -> None:
    """Also for a last batch of one sample."""
    data, valid, _ = parts
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 1))
    assert train(model, data.subset(np.arange(33)), valid, PLAN, seed=0)
    assert torch.equal(model[1].running_mean, torch.zeros(4))


def test_inserted_dropout_trains_the_models_own_parameters(parts) -> None:
    """Training the twin with dropout changes the model, otherwise than without dropout."""
    data, valid, _ = parts
    plain, dropped = fresh(), fresh()
    everybody = np.ones(len(data), dtype=bool)
    train(plain, data, valid, PLAN, seed=0)
    train(
        dropped, data, valid, PLAN, seed=0, dropped=everybody, run=trace(dropped).with_dropout(0.5)
    )
    assert not same(dropped, fresh())
    assert not same(dropped, plain)
    assert list(dropped.state_dict()) == list(plain.state_dict())


def test_a_diverged_loss_stops_the_training(parts) -> None:
    """The loop says so; train_classifier raises."""
    data, valid, _ = parts
    assert not train(fresh(), data, valid, Schedule(epochs=5, learning_rate=1e30), seed=0)
    with pytest.raises(ModelError) as caught:
        fn.train_classifier(
            data, valid, hidden=(8,), schedule=Schedule(epochs=5, learning_rate=1e30)
        )
    assert caught.value.code == "model-diverged"


def test_early_stopping_restores_the_best_epoch(parts) -> None:
    """The validation loss of the result is the lowest one of all epochs."""
    data, valid, _ = parts
    losses = []
    model = fresh()
    train(
        model,
        data,
        valid,
        Schedule(epochs=40, batch_size=16, learning_rate=0.05, patience=3),
        seed=0,
        progress=lambda *_: losses.append(loss_of(model, valid)),
    )
    assert len(losses) < 40
    assert loss_of(model, valid) == min(losses) < losses[-1]


def test_the_rate_falls_on_a_plateau(parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """× 0.1 after the given number of epochs without a lower validation loss."""
    data, valid, _ = parts
    made = []

    def remember(*args: Any) -> Adam:
        made.append(Adam(*args))
        return made[-1]

    monkeypatch.setattr("fairneuron.terms.Adam", remember)
    monkeypatch.setattr("fairneuron.training.loss_of", lambda *_: 1.0)
    train(fresh(), data, valid, Schedule(epochs=6, learning_rate=0.01, plateau=2), seed=0)
    assert made[0].param_groups[0]["lr"] == pytest.approx(0.001)


def test_plateaus_are_those_of_torch() -> None:
    """The same rates after the same losses, NaN, tiny gains and tiny rates among them."""
    rng = np.random.default_rng(0)
    for patience in (0, 1, 3):
        losses = [math.nan, 1.0, 0.99995, 0.9998, -0.5, -0.50004, *rng.random(60), *[0.0] * 40]
        ours, theirs = Adam(fresh().parameters(), 0.01), torch.optim.SGD(fresh().parameters(), 0.01)
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(theirs, patience=patience)
        watch = Watch(Schedule(plateau=patience), ours)
        for loss in losses:
            watch.improved(loss)
            scheduler.step(loss)
            assert ours.param_groups[0]["lr"] == theirs.param_groups[0]["lr"]
        assert ours.param_groups[0]["lr"] < 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_adam_is_that_of_torch(dtype: torch.dtype) -> None:
    """To the bit, with a rate that changes, and a parameter that has no gradient at first."""
    twins = [fresh().to(dtype), fresh().to(dtype)]
    twins[1].load_state_dict(twins[0].state_dict())
    ours = Adam(twins[0].parameters(), 0.01)
    theirs = torch.optim.Adam(twins[1].parameters(), lr=0.01, betas=(0.9, 0.9999), fused=True)
    generator = torch.Generator().manual_seed(0)
    for step in range(30):
        for index, pair in enumerate(zip(*(m.parameters() for m in twins), strict=True)):
            gradient = torch.randn(pair[0].shape, generator=generator, dtype=dtype)
            for parameter in pair:
                parameter.grad = None if index == 0 and step < 5 else gradient.clone()
        for optimiser in (ours, theirs):
            optimiser.param_groups[0]["lr"] = 0.01 if step < 20 else 0.001
            optimiser.step()
        for a, b in zip(*(m.parameters() for m in twins), strict=True):
            assert torch.equal(a, b)


def test_all_frozen_is_refused(parts) -> None:
    """Nothing to train is an error with a cure."""
    data, valid, _ = parts
    model = fresh().requires_grad_(False)
    with pytest.raises(ModelError) as caught:
        train(model, data, valid, PLAN, seed=0)
    assert caught.value.code == "model-frozen"


@pytest.mark.parametrize(
    "bad", [{"epochs": 0}, {"batch_size": 0}, {"learning_rate": 0}, {"learning_rate": -1.0}]
)
def test_schedules_out_of_range_are_refused(bad: dict) -> None:
    """Rule, value and cure."""
    with pytest.raises(OptionError) as caught:
        Schedule(**bad)
    assert caught.value.code == "option-range"


@pytest.mark.parametrize(
    ("rows", "epochs"), [(300, 200), (513, 100), (5120, 20), (100_000, 10), (0, 200)]
)
def test_small_data_get_more_epochs(rows: int, epochs: int) -> None:
    """Until the least number of steps is reached."""
    assert Schedule(epochs=10, batch_size=512, min_steps=200).epochs_for(rows) == epochs


def test_progress_is_told_of_every_epoch(parts) -> None:
    """What, done, of how many."""
    told: list[tuple] = []
    train(
        copy.deepcopy(fresh()), parts[0], parts[1], PLAN, seed=0, progress=lambda *t: told.append(t)
    )
    assert told == [("training", 1, 3), ("training", 2, 3), ("training", 3, 3)]

"""Many trainings at once: each gives what it gives alone."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import fairneuron as fn
from fairneuron.conflict import incoming_weights, neuron_pulls
from fairneuron.data.dataset import Dataset
from fairneuron.gaps import gap_penalty
from fairneuron.models import mlp
from fairneuron.search.together import Job, train_together
from fairneuron.terms import Budget, Terms
from fairneuron.tracing import trace
from fairneuron.training import train

SHORT = fn.Schedule(epochs=3, batch_size=64, plateau=None)
GAP = gap_penalty(("dp",))


def weights_of(model: nn.Module) -> torch.Tensor:
    """All of them, in a row."""
    return torch.cat([value.flatten() for value in model.state_dict().values()])


def one_by_one(jobs: list[Job], parts, schedule: fn.Schedule, **arguments: object) -> list[bool]:
    """What ``train`` makes of each job."""
    return [
        train(
            job.model,
            parts[0] if job.weight is None else replace(parts[0], weight=job.weight),
            parts[1],
            schedule,
            seed=3,
            dropped=job.dropped,
            run=None if job.dropped is None else trace(job.model).with_dropout(job.dropout),
            only=job.only,
            strength=job.strength,
            **arguments,
        )
        for job in jobs
    ]


def compare(jobs: list[Job], parts, schedule: fn.Schedule, **arguments: object) -> None:
    """Stacked and alone: the same weights in float64, up to the order of sums."""
    jobs = [replace(job, model=copy.deepcopy(job.model).double()) for job in jobs]
    alone = [replace(job, model=copy.deepcopy(job.model)) for job in jobs]
    before = [weights_of(job.model) for job in jobs]
    finite = train_together(jobs, parts[0], parts[1], schedule, seed=3, **arguments)
    assert finite == one_by_one(alone, parts, schedule, **arguments)
    for job, other, start in zip(jobs, alone, before, strict=True):
        assert not torch.equal(weights_of(job.model), start)
        torch.testing.assert_close(
            weights_of(job.model), weights_of(other.model), atol=1e-9, rtol=0
        )


def neuron_masks(model: nn.Module, data: Dataset) -> list[dict[str, torch.Tensor]]:
    """Of the first neuron, and of three others."""
    neurons = neuron_pulls(trace(model), data, ("dp",))
    return [incoming_weights(trace(model), data, part) for part in (neurons[:1], neurons[5:8])]


def test_strengths_and_neurons(parts, trained) -> None:
    """λ and which weights may change differ; what may not change stays as it was."""
    first, second = neuron_masks(trained, parts[0])
    jobs = [Job(trained, first, 0.3), Job(trained, second, 0.9), Job(trained, None, 0.5)]
    compare(jobs, parts, SHORT, penalty=GAP)
    moved = replace(jobs[0], model=copy.deepcopy(trained))
    train_together(
        [moved, replace(jobs[1], model=copy.deepcopy(trained))], *parts[:2], SHORT, seed=3
    )
    for name, value in moved.model.state_dict().items():
        changed = value != trained.state_dict()[name]
        assert not changed[first.get(name, torch.zeros_like(value)) == 0].any()


def test_dropped_samples(parts, trained) -> None:
    """Other samples are trained with dropout, of another rate, and for one job none."""
    n = len(parts[0])
    masks = np.random.default_rng(0).random((2, n)) < np.array([[0.2], [0.7]])
    jobs = [
        Job(trained, dropped=m, dropout=rate) for m, rate in zip(masks, (0.1, 0.5), strict=True)
    ]
    compare(
        [*jobs, Job(trained), Job(trained, dropped=np.ones(n, bool), dropout=0.3)], parts, SHORT
    )


@pytest.mark.parametrize("patience", [None, 2])
def test_plateau_and_patience(parts, trained, patience: int | None) -> None:
    """Each network has its own learning rate and its own best epoch."""
    schedule = fn.Schedule(epochs=12, batch_size=64, plateau=0, patience=patience)
    starts = [trained, mlp(5, (12, 12)), mlp(5, (12, 12))]
    compare([Job(model) for model in starts], parts, schedule)


def test_weights_of_rows(parts, trained) -> None:
    """Each job's own, and the data's where it has none."""
    n = len(parts[0])
    weights = np.random.default_rng(0).random((2, n))
    weighted = replace(parts[0], weight=weights[0])
    compare([Job(trained, weight=weights[1]), Job(trained)], (weighted, parts[1]), SHORT)
    compare(
        [Job(trained, strength=s) for s in (0.2, 0.8)], (weighted, parts[1]), SHORT, penalty=GAP
    )


def test_class_logits_and_a_loss_of_ones_own(parts) -> None:
    """Two outputs; a loss that is no cross entropy."""
    jobs = [Job(mlp(5, (8,), outputs=2), strength=s) for s in (0.2, 0.8)]
    compare(jobs, parts, SHORT, penalty=GAP)
    terms = Terms(lambda out, y: (out.sigmoid() - y).square())
    n = len(parts[0])
    jobs = [Job(mlp(5, (8,)), dropped=np.arange(n) < k, dropout=0.2) for k in (9, n // 2)]
    compare(jobs, parts, SHORT, terms=terms)


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
def test_a_job_does_not_depend_on_its_company(parts, activation: type[nn.Module]) -> None:
    """The same bits alone and among others, in any place."""
    model = nn.Sequential(nn.Linear(5, 16), activation(), nn.Linear(16, 16), activation())
    model.append(nn.Linear(16, 1))

    def result(strengths: list[float]) -> torch.Tensor:
        jobs = [Job(copy.deepcopy(model), None, s) for s in strengths]
        train_together(jobs, *parts[:2], SHORT, seed=1, penalty=GAP)
        return weights_of(jobs[strengths.index(0.5)].model)

    alone = result([0.5])
    for company in ([0.5, 0.1], [0.1, 0.5], [0.9, 0.3, 0.5, 0.2], [*np.linspace(1, 2, 12), 0.5]):
        assert torch.equal(result(company), alone)


def test_one_that_diverges_does_not_harm_the_others(parts, trained) -> None:
    """It is reported; the others are as they would be without it."""
    broken = copy.deepcopy(trained)
    with torch.no_grad():
        broken[0].weight[0, 0] = float("nan")
    jobs = [Job(broken), Job(copy.deepcopy(trained)), Job(copy.deepcopy(trained), strength=0.0)]
    assert train_together(jobs, *parts[:2], SHORT, seed=3, penalty=GAP) == [False, True, True]
    other = Job(copy.deepcopy(trained))
    train_together([other], *parts[:2], SHORT, seed=3, penalty=GAP)
    assert torch.equal(weights_of(jobs[1].model), weights_of(other.model))


def test_batch_statistics_and_own_optimisers_are_trained_one_by_one(parts) -> None:
    """The result is that of ``train`` to the bit."""
    norm = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))
    terms = Terms(optimiser=lambda parameters: torch.optim.SGD(parameters, lr=0.05))
    for model, arguments in ((norm, {}), (mlp(5, (8,)), {"terms": terms})):
        jobs = [Job(copy.deepcopy(model), strength=s) for s in (0.1, 0.5)]
        alone = [replace(job, model=copy.deepcopy(model)) for job in jobs]
        train_together(jobs, *parts[:2], SHORT, seed=3, penalty=GAP, **arguments)
        one_by_one(alone, parts, SHORT, penalty=GAP, **arguments)
        for job, other in zip(jobs, alone, strict=True):
            assert torch.equal(weights_of(job.model), weights_of(other.model))


def test_the_time_budget_cuts_all_after_the_epoch(parts, trained) -> None:
    """One epoch is trained in any case."""
    budget = Budget(1e-9)
    budget.start()
    jobs = [Job(copy.deepcopy(trained), strength=s) for s in (0.1, 0.5)]
    train_together(jobs, *parts[:2], SHORT, seed=3, penalty=GAP, terms=Terms(budget=budget))
    assert budget.cut
    once = [Job(copy.deepcopy(trained), strength=s) for s in (0.1, 0.5)]
    train_together(once, *parts[:2], replace(SHORT, epochs=1), seed=3, penalty=GAP)
    for job, other in zip(jobs, once, strict=True):
        assert torch.equal(weights_of(job.model), weights_of(other.model))


def test_shared_weights_and_dropout_layers_of_ones_own(parts) -> None:
    """Tied layers stay tied; the model's own dropout rate counts."""

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.twice = nn.Linear(5, 8), nn.Linear(8, 8)
            self.again, self.head = nn.Linear(8, 8), nn.Linear(8, 1)
            self.again.weight = self.twice.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.twice(self.first(x).relu()).relu()
            return self.head(self.again(h).relu())

    compare([Job(Tied(), strength=s) for s in (0.2, 0.8)], parts, SHORT, penalty=GAP)
    own = mlp(5, (8, 8), dropout=0.4)
    n = len(parts[0])
    compare([Job(own, dropped=np.arange(n) < k) for k in (30, 100)], parts, SHORT)


def test_dropped_samples_in_any_company(parts) -> None:
    """Narrow layers, weights, few and many dropped samples: the same bits alone and together."""
    n, rng = len(parts[0]), np.random.default_rng(0)
    weighted = replace(parts[0], weight=rng.random(n))
    for width in (3, 4, 12):
        model = mlp(5, (width,))
        masks = [rng.random(n) < share for share in (0.05, 0.5, 0.9)]
        for data in (parts[0], weighted):

            def result(which: list[int], model=model, masks=masks, data=data) -> torch.Tensor:
                jobs = [Job(copy.deepcopy(model), dropped=masks[i], dropout=0.3) for i in which]
                train_together(jobs, data, parts[1], SHORT, seed=1)
                return weights_of(jobs[0].model)

            assert torch.equal(result([0]), result([0, 1, 2]))
            assert torch.equal(result([2]), result([2, 0]))


class Storing(nn.Module):
    """Keeps what it computed, and a whole number among its parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = nn.Parameter(torch.tensor(3), requires_grad=False)
        self.body, self.head = nn.Linear(5, 8), nn.Linear(8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.body(x).relu()
        self.features = hidden.detach()
        return self.head(hidden)


def test_a_forward_that_stores_something(parts) -> None:
    """Nothing of the stacked runs stays in the networks: they can be copied and run."""
    jobs = [Job(Storing(), strength=s) for s in (0.2, 0.8)]
    train_together(jobs, *parts[:2], SHORT, seed=1, penalty=GAP)
    for job in jobs:
        assert copy.deepcopy(job.model)(parts[1].x).shape == (len(parts[1]), 1)
    for options in ({"neuron_share": 0.5, "strengths": 0.7}, {"recipe": "paper", "epochs": 1}):
        result = fn.repair(Storing(), *parts[:2], **options)
        assert copy.deepcopy(result.model)(parts[1].x).shape == (len(parts[1]), 1)


class Looking(nn.Module):
    """Its forward looks at values, or at all rows at once."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.body, self.head = how, nn.Linear(5, 8), nn.Linear(8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.how == "values" and len(x) > 2 and x.abs().max() > 50:
            x = x / 2
        if self.how == "rows":
            x = x - x.mean(0)
        return self.head(self.body(x).relu())


@pytest.mark.parametrize("how", ["values", "rows"])
def test_what_cannot_be_stacked_is_trained_one_by_one(parts, how: str) -> None:
    """The result is that of ``train`` to the bit."""
    model = Looking(how)
    jobs = [Job(copy.deepcopy(model), strength=s) for s in (0.1, 0.5)]
    alone = [replace(job, model=copy.deepcopy(model)) for job in jobs]
    train_together(jobs, *parts[:2], SHORT, seed=3, penalty=GAP)
    one_by_one(alone, parts, SHORT, penalty=GAP)
    for job, other in zip(jobs, alone, strict=True):
        assert torch.equal(weights_of(job.model), weights_of(other.model))

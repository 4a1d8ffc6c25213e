"""Data and networks that several test files share."""

import os

import numpy as np
import pytest
import torch
from torch import nn

import fairneuron as fn
from fairneuron.data.dataset import Dataset
from fairneuron.kernel import extension

if extension() is None:  # no C++ compiler: the tests pass, more slowly, without the kernel's own
    os.environ["FAIRNEURON_KERNEL"] = "torch"


class Says:
    """Gives the scores that it was made with, whatever the inputs."""

    needs_sensitive = False

    def __init__(self, scores: object) -> None:
        self.scores = np.asarray(scores, dtype=np.float64)

    def predict(self, _: Dataset) -> np.ndarray:
        """Probabilities (n, classes); from (n,) scores those of two classes."""
        one = self.scores.ndim == 1
        return np.stack([1 - self.scores, self.scores], axis=1) if one else self.scores


def made_up(n: int = 600, seed: int = 0, groups: int = 2) -> Dataset:
    """Data whose label depends on a feature that differs between the groups.

    The group is an input too.
    """
    rng = np.random.default_rng(seed)
    group = rng.integers(0, groups, n)
    x = rng.normal(size=(n, 5)).astype(np.float32)
    x[:, 0] += 1.5 * group
    x[:, 4] = group
    y = (x[:, 0] + x[:, 1] + rng.normal(size=n) > 0.75 * (groups - 1)).astype(np.int64)
    return Dataset.from_arrays(x, y, np.array(list("ABCDEFG"))[group], name="made up")


@pytest.fixture(scope="session")
def parts() -> tuple[Dataset, Dataset, Dataset]:
    """Training, validation and test part of made-up data."""
    return made_up().split(0, fractions=(0.5, 0.25, 0.25))


@pytest.fixture(scope="session")
def trained(parts: tuple[Dataset, Dataset, Dataset]) -> nn.Sequential:
    """A small network trained on them."""
    return fn.train_classifier(
        parts[0],
        parts[1],
        hidden=(12, 12),
        seed=0,
        schedule=fn.Schedule(epochs=20, batch_size=32, patience=5),
    )


@pytest.fixture
def weights_before(trained: nn.Sequential) -> dict[str, torch.Tensor]:
    """A copy of its state, to see whether it was touched."""
    return {name: value.clone() for name, value in trained.state_dict().items()}

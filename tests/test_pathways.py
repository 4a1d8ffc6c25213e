"""What the report says of paths: synapses of biased and benign samples, compared."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import fairneuron as fn
from fairneuron.clustering import summarise_paths
from fairneuron.pathways import TOP, pathways
from tests.conftest import made_up

Key = tuple[str | None, int, str | None, int]


def network() -> nn.Sequential:
    """One with rare and frequent paths."""
    torch.manual_seed(0)
    layers = (nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
    return nn.Sequential(*layers).eval()


def counted(model: nn.Module, data: fn.Dataset, rows: Any, means: Any) -> Counter[Key]:
    """How many of these samples' paths have each synapse, one by one."""
    name = {"0": "0", "2": "2", "4": None, "x": None, "input": None, "1": "0", "3": "2"}
    found: Counter[Key] = Counter()
    for layer in fn.path_synapses(model, data.x[rows], gamma=0.5, means=means):
        for source, predecessor, unit in zip(
            layer.source, layer.predecessor, layer.unit, strict=True
        ):
            read = name.get(source, source)
            found[read, int(predecessor), name[layer.layer], int(unit)] += 1
    return found


def test_shares_are_counted() -> None:
    """The listed synapses are those with the largest differences, and have their shares."""
    data, model = made_up(250), network()
    paths = fn.activation_paths(model, data.x, gamma=0.5)
    rare = fn.rare_paths(paths, 0.3)
    assert 20 <= rare.sum() <= 230
    found = pathways(model, data, gamma=0.5, theta=0.3, seed=0)
    assert found is not None
    assert found["looked_at"] == {"biased": rare.sum(), "benign": (~rare).sum()}
    biased, benign = (
        {k: v / len(rows) for k, v in counted(model, data, rows, paths.means).items()}
        for rows in (np.flatnonzero(rare), np.flatnonzero(~rare))
    )
    differences = {k: biased.get(k, 0) - benign.get(k, 0) for k in biased | benign}
    for kind, sign in (("more_biased", 1), ("more_benign", -1)):
        wanted = sorted((sign * d for d in differences.values() if sign * d > 0), reverse=True)
        assert [sign * (one["biased"] - one["benign"]) for one in found[kind]] == pytest.approx(
            wanted[:TOP]
        )
        for one in found[kind]:
            key = (one["from"], one["from_unit"], one["to"], one["to_unit"])
            assert one["biased"] == pytest.approx(biased.get(key, 0))
            assert one["benign"] == pytest.approx(benign.get(key, 0))
            named = data.feature_names[one["from_unit"]] if one["from"] is None else None
            assert one["feature"] == named


def test_counts_are_those_of_the_paths() -> None:
    """And the sizes of the layers those of the network."""
    data, model = made_up(250), network()
    found = pathways(model, data, gamma=0.5, theta=0.3, seed=0)
    paths = fn.activation_paths(model, data.x, gamma=0.5)
    assert found is not None
    assert found.items() >= summarise_paths(paths, data, 0.3).to_dict().items()
    assert found["layers"] == {"0": 4, "2": 3}


def test_nothing_is_told_of_a_few() -> None:
    """The path of a few samples would say too much of them."""
    found = pathways(network(), made_up(120), gamma=0.5, theta=0.0, seed=0)
    assert found is not None
    assert 0 < found["looked_at"]["biased"] < 20
    assert found["more_biased"] == found["more_benign"] == []


def test_large_data_are_drawn_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the seed; all rows are not needed for a picture."""
    monkeypatch.setattr("fairneuron.pathways._ROWS", 100)
    data, model = made_up(250), network()
    first = pathways(model, data, seed=0)
    assert first is not None
    assert first["samples"] == 100
    assert first["drawn_from"] == 250
    assert pathways(model, data, seed=0) == first
    assert pathways(model, data, seed=1) != first


def test_networks_that_cannot_be_sliced() -> None:
    """Have none."""

    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.own = nn.Linear(5, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.own(x.cumsum(1))

    assert pathways(Odd(), made_up(50), seed=0) is None

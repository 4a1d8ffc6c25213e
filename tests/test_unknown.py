"""People whose group is not known: listed, counted among everybody, compared with nobody."""

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fairneuron as fn
from fairneuron.audit import Audit, audit_scores
from fairneuron.conflict import conflict_neurons, neuron_pulls
from fairneuron.data.dataset import Dataset
from fairneuron.errors import DataError
from fairneuron.explanation import explain_conflict
from fairneuron.metrics.definitions import METRICS
from fairneuron.tracing import trace
from tests.conftest import Says, made_up
from tests.test_training import fresh

CALM = settings(max_examples=15, deadline=None, derandomize=True)
OVER_GROUPS = {"dp", "dpr", "eo", "eodds", "abcc", "worst_group_accuracy"}


def partly_known(n: int = 400, seed: int = 0, share: float = 0.3) -> tuple[Dataset, np.ndarray]:
    """Made-up data of three groups, unknown for some people; and who is known."""
    data = made_up(n, seed=seed, groups=3)
    known = np.random.default_rng(seed).random(n) >= share
    names = np.where(known, np.array(data.group_names)[data.group], "unknown")
    return Dataset.from_arrays(data.x, data.y, names), known


def two_columns(n: int = 600, seed: int = 1) -> tuple[Dataset, np.ndarray]:
    """People of two sensitive columns, each of them unknown for some; and scores."""
    rng = np.random.default_rng(seed)
    sex = rng.choice(["f", "m", "unknown"], n, p=[0.4, 0.4, 0.2])
    age = rng.choice(["old", "young", "unknown"], n, p=[0.4, 0.4, 0.2])
    data = Dataset.from_arrays(
        np.zeros((n, 1)), rng.integers(0, 2, n), np.stack([sex, age], 1),
        sensitive_names=["sex", "age"],
    )  # fmt: skip
    return data, rng.random(n)


# Audits


def test_metrics_over_groups_are_those_of_the_known() -> None:
    """Values, intervals and floors are those without the others; the other metrics read all."""
    data, known = partly_known()
    scores = np.random.default_rng(0).random(len(data))
    found = fn.audit(Says(scores), data)
    without = fn.audit(Says(scores[known]), data.subset(known))
    names = np.where(known, np.array(data.group_names)[data.group], "A")
    everybody = fn.audit(Says(scores), Dataset.from_arrays(data.x, data.y, names))
    assert {name for name, metric in METRICS.items() if metric.groupwise} == OVER_GROUPS
    for name in METRICS:
        expected = without if name in OVER_GROUPS else everybody
        assert found.metrics[name] == pytest.approx(expected.metrics[name], abs=1e-12)
        assert found.intervals[name] == pytest.approx(expected.intervals[name], abs=0.02)
        if name in OVER_GROUPS:
            assert found.intervals[name] == expected.intervals[name]
    assert found.noise_floor == without.noise_floor
    assert found.compared.tolist() == [True, True, True, False]
    assert [row["compared"] for row in found.groups] == [True, True, True, False]
    assert found.groups[3]["group"] == "unknown"
    assert found.groups[3]["n"] == (~known).sum()
    assert found.to_dict()["n"] == len(data)


@CALM
@given(st.integers(0, 2**32))
def test_predictions_of_unknown_people_change_no_gap(seed: int) -> None:
    """Nor its interval, noise floor, and what a verdict says of it; they do change accuracy."""
    data, known = partly_known(seed=seed % 7)
    rng = np.random.default_rng(seed)
    before, after, other = (rng.random(len(data)) for _ in range(3))
    changed = np.where(known, after, other)
    one, two = (fn.audit(Says(s), data, seed=seed % 5) for s in (after, changed))
    assert one.metrics["accuracy"] != two.metrics["accuracy"]
    verdicts = [fn.judge(Says(before), Says(s), data, {"dp": 0.1}, on="test")
                for s in (after, changed)]  # fmt: skip
    for name in OVER_GROUPS:
        assert one.metrics[name] == two.metrics[name]
        assert one.intervals[name] == two.intervals[name]
        assert verdicts[0].changes[name] == verdicts[1].changes[name]
    assert one.noise_floor == two.noise_floor
    assert verdicts[0].outcome == verdicts[1].outcome


def test_a_verdict_over_groups_is_that_of_the_known() -> None:
    """Gains and paired intervals; flips list the unknown group."""
    data, known = partly_known()
    rng = np.random.default_rng(3)
    before, after = rng.random(len(data)), rng.random(len(data))
    found = fn.judge(Says(before), Says(after), data, {"dp": 0.1}, on="test")
    without = fn.judge(
        Says(before[known]), Says(after[known]), data.subset(known), {"dp": 0.1}, on="test"
    )
    for name in OVER_GROUPS:
        assert found.changes[name] == without.changes[name]
    assert found.n == len(data)
    assert [flip["group"] for flip in found.flips] == ["A", "B", "C", "unknown"]
    assert found.flips[3]["n"] == (~known).sum()


def test_a_column_alone_reads_those_unknown_in_the_others() -> None:
    """Its own unknown people are left out; intersections with an unknown level are not compared."""
    data, scores = two_columns()
    found = fn.audit(Says(scores), data)
    assert found.compared.sum() == 4
    for k, column in enumerate(("sex", "age")):
        levels = np.array(data.sensitive_levels[k])[data.sensitive[:, k]]
        alone = fn.audit(Says(scores), Dataset.from_arrays(
            data.x, data.y, levels, sensitive_names=[column]))  # fmt: skip
        assert found.marginal(column).metrics == alone.metrics
        assert found.marginal(column).to_dict() == alone.to_dict()
        assert found.to_dict()["by_column"][column] == alone.to_dict()
        known = levels != "unknown"
        part = fn.audit(Says(scores[known]), data.subset(known))
        assert alone.metrics["dp"] == part.marginal(column).metrics["dp"]


def test_a_column_with_one_known_level_has_no_audit_of_its_own() -> None:
    """There is nothing to compare."""
    data, scores = two_columns()
    few = data.sensitive[:, 0] != 1  # women, and people whose sex is unknown
    found = fn.audit(Says(scores[few]), data.subset(few))
    assert list(found.to_dict()["by_column"]) == ["age"]


def test_two_known_groups_are_needed() -> None:
    """One and the unknown ones are not enough."""
    data, known = partly_known()
    part = data.subset((data.group == 0) | ~known)
    with pytest.raises(DataError) as caught:
        fn.audit(Says(np.zeros(len(part))), part)
    assert caught.value.code == "data-single-group"
    assert "other than 'unknown'" in str(caught.value)


@CALM
@given(st.integers(0, 2**32))
def test_parts_still_add_up(seed: int) -> None:
    """Audits of parts merge into that of the whole, but for the median of its scores."""
    data, _ = partly_known(120)
    rng = np.random.default_rng(seed)
    scores, half = rng.random(len(data)), rng.random(len(data)) < 0.5
    parts = [audit_scores(_two(scores[p]), data.subset(p)) for p in (half, ~half)]
    merged, whole = parts[0].merge(parts[1]), audit_scores(_two(scores), data)
    assert merged.to_dict() == replace(whole, halves=None).to_dict()


def _two(scores: np.ndarray) -> np.ndarray:
    return np.stack([1 - scores, scores], axis=1)


def test_a_constructor_call_without_unknown_compares_all() -> None:
    """The names of the levels decide, and nothing else has to be said."""
    counts = np.full((3, 2, 2), 5)
    levels = (("A",), ("B",), ("unknown",))
    assert Audit(counts, None, ("A", "B", "C"), (("A",), ("B",), ("C",)), ("s",)).compared.all()
    assert Audit(counts, None, ("A", "B", "?"), levels, ("s",)).compared.tolist() == [1, 1, 0]


# Training


@pytest.mark.parametrize("criteria", [("dp",), ("eo",), ("eodds",)])
def test_pulls_and_score_gaps_read_the_known(criteria: tuple[str, ...]) -> None:
    """The pull of the gap is that without the others; the loss reads everybody."""
    data, known = partly_known()
    graph = trace(fresh())
    everybody = made_up(400, groups=3)
    found, without, loss = (
        neuron_pulls(graph, d, criteria) for d in (data, data.subset(known), everybody)
    )
    assert [n.pull for n in found] == pytest.approx([n.pull for n in without], rel=1e-4, abs=1e-7)
    assert [n.conflict for n in found] != pytest.approx([n.conflict for n in without], rel=1e-4)
    assert [n.conflict for n in found] != pytest.approx([n.conflict for n in loss], rel=1e-4)
    chosen = conflict_neurons(found, 0.2)
    gaps = [explain_conflict(graph, d, chosen, criteria).gap for d in (data, data.subset(known))]
    assert gaps[0] == pytest.approx(gaps[1], rel=1e-5)


def test_a_repair_with_groups_known_for_a_part(trained) -> None:
    """The gap of the known shrinks, on test data too, and everybody trains the loss."""
    parts = made_up(1200).split(0)
    hidden = []
    for part in parts:
        names = np.array(part.group_names)[part.group].astype(object)
        names[np.random.default_rng(0).random(len(part)) < 0.5] = None
        with pytest.warns(fn.FairNeuronWarning, match="not compared"):
            hidden.append(Dataset.from_arrays(part.x, part.y, names))
    net = fn.train_classifier(*parts[:2], hidden=(12, 12), schedule=fn.Schedule(epochs=8))
    result = fn.repair(net, *hidden[:2], limit={"dp": 0.1}, neuron_share=0.3)
    before, after = (fn.audit(m, parts[2]).metrics["dp"] for m in (net, result.model))
    assert after < 0.7 * before
    noisy = [d.x.clone() for d in hidden[:1]]
    noisy[0][hidden[0].group == 2] += 1  # the unknown people
    other = Dataset.from_arrays(noisy[0], hidden[0].y, np.array(hidden[0].group_names)[
        hidden[0].group])  # fmt: skip
    moved = fn.repair(net, other, hidden[1], limit={"dp": 0.1}, neuron_share=0.3)
    assert not torch.equal(
        moved.trials[1].model[0].weight, result.trials[1].model[0].weight
    )  # they train the loss


# Data


MISSING = {
    "None": [None, "a", "b", None],
    "NaN": [float("nan"), "a", "b", np.nan],
    "numbers": [np.nan, 0.0, 1.0, np.nan],
    "pandas": pd.Series([pd.NA, "a", "b", pd.NA], dtype="string"),
    "categories": pd.Series([None, "a", "b", None], dtype="category"),
    "nullable integers": pd.Series([None, 1, 2, None], dtype="Int64"),
    "objects": np.array([None, "a", "b", float("nan")], dtype=object),
}


@pytest.mark.parametrize("sensitive", MISSING.values(), ids=MISSING)
def test_missing_values_are_unknown(sensitive: object) -> None:
    """Whatever stands for them, and said once per column."""
    with pytest.warns(fn.FairNeuronWarning) as caught:
        data = Dataset.from_arrays(np.zeros((4, 1)), [0, 1, 0, 1], sensitive, sensitive_names=["s"])
    assert [str(w.message) for w in caught] == [
        "2 rows without 's': listed as 'unknown', not compared [data-group-missing]"
    ]
    assert caught[0].filename == __file__
    names = np.array(data.group_names)[data.group]
    assert (names == "unknown").tolist() == [True, False, False, True]
    assert data.compared.tolist() == [name != "unknown" for name in data.group_names]


def test_missing_values_of_several_columns() -> None:
    """An intersection is compared if all of its levels are known."""
    with pytest.warns(fn.FairNeuronWarning, match="1 rows without 'sensitive2'"):
        data = Dataset.from_arrays(np.zeros((3, 1)), [0, 1, 0], [["f", 1], ["m", None], ["f", 2]])
    assert data.group_names == (
        "f & 1", "f & 2", "f & unknown", "m & 1", "m & 2", "m & unknown",
    )  # fmt: skip
    assert data.compared.tolist() == [True, True, False] * 2


def test_texts_that_look_missing_are_groups() -> None:
    """Somebody may be called None."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = Dataset.from_arrays(np.zeros((4, 1)), [0, 1, 0, 1], ["None", "NA", "nan", "a"])
    assert data.group_names == ("NA", "None", "a", "nan")
    assert data.compared.all()


def test_a_split_says_nothing_of_unknown_people() -> None:
    """A part without them misses nothing."""
    data, known = partly_known(200)
    few = data.subset(known | (np.arange(200) == np.flatnonzero(~known)[0]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parts = few.split(0)
    assert sum(len(part) for part in parts) == len(few)

"""Audit: against slow literal computations, scikit-learn, shuffles and a bootstrap of the rows."""

import json
import warnings
from collections.abc import Callable
from itertools import pairwise
from math import pi, sqrt

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, roc_auc_score
from torch import nn

import fairneuron as fn
from fairneuron.audit import Audit
from fairneuron.data.dataset import Dataset
from fairneuron.errors import DataError, InputError, ModelError, OptionError
from fairneuron.metrics.definitions import METRICS
from tests.conftest import Says

pytestmark = pytest.mark.filterwarnings("ignore:.*data-group-tiny")  # few people are easy to count
CALM = settings(max_examples=60, deadline=None, derandomize=True)
Metrics = dict[str, float | None]


class PrefersGroup0:
    """Selects the people of the first group, as if that were its business."""

    needs_sensitive = True

    def predict(self, data: Dataset) -> np.ndarray:
        """Probabilities (n, 2)."""
        chosen = (data.sensitive[:, 0] == 0).astype(float)
        return np.stack([1 - chosen, chosen], axis=1)


def people(y: object, group: object, x: object = None) -> Dataset:
    """Data of these labels and groups; inputs play no part unless given."""
    return Dataset.from_arrays(np.zeros((len(y), 1)) if x is None else x, y, group)


def crowd(n: int = 1500, groups: str = "abc", seed: int = 0) -> tuple[Dataset, np.ndarray]:
    """People whose scores know the label a little, and favour the later groups."""
    rng = np.random.default_rng(seed)
    group = rng.integers(0, len(groups), n)
    y = (rng.random(n) < 0.35 + 0.1 * group).astype(int)
    scores = 1 / (1 + np.exp(-rng.normal(1.5 * y - 1 + 0.4 * group, 1)))
    return people(y, np.array(list(groups))[group]), scores


def counted(*groups: tuple[int, float, float, float]) -> Audit:
    """An audit of groups of (people, share of positives, TPR, FPR), rounded to people."""
    tables = []
    for n, base, tpr, fpr in groups:
        positives = round(n * base)
        hits, false = round(positives * tpr), round((n - positives) * fpr)
        tables.append([[n - positives - false, false], [positives - hits, hits]])
    names = tuple("ABCDEF"[: len(groups)])
    return Audit(
        counts=np.array(tables),
        histograms=None,
        group_names=names,
        levels=tuple((name,) for name in names),
        sensitive_names=("group",),
    )


# Against slow literal computations


def spread(values: list[float | None]) -> float | None:
    """Largest minus smallest of the defined values; two are needed."""
    known = [v for v in values if v is not None]
    return max(known) - min(known) if len(known) > 1 else None


def share(rows: list[tuple], wanted: Callable[[tuple], bool]) -> float | None:
    """Of rows, those that are wanted."""
    return sum(map(wanted, rows)) / len(rows) if rows else None


def area_between(one: list[float], other: list[float]) -> float:
    """Integral over [0, 1] of the distance of two cumulative curves."""
    steps = sorted({0.0, 1.0, *one, *other})
    total = 0.0
    for low, high in pairwise(steps):
        curves = [sum(s <= low for s in scores) / len(scores) for scores in (one, other)]
        total += abs(curves[0] - curves[1]) * (high - low)
    return total


def literal(y: object, scores: object, group: object) -> Metrics:
    """All metrics, person by person."""
    rows = [
        (int(t), float(s) >= 0.5, g, float(s)) for t, s, g in zip(y, scores, group, strict=True)
    ]
    by_group = [[r for r in rows if r[2] == g] for g in sorted({r[2] for r in rows})]
    by_class = [[r for r in rows if r[0] == k] for k in (0, 1)]
    selected = [share(g, lambda r: r[1]) for g in by_group]
    right = [share(g, lambda r: r[0] == r[1]) for g in by_group]
    tpr = spread([share([r for r in g if r[0] == 1], lambda r: r[1]) for g in by_group])
    fpr = spread([share([r for r in g if r[0] == 0], lambda r: r[1]) for g in by_group])
    classes = [share(c, lambda r: r[0] == r[1]) for c in by_class]
    both = None not in classes
    hits = sum(r[0] and r[1] for r in rows)
    named = sum(r[0] for r in rows) + sum(r[1] for r in rows)
    pairs = [(p[3], n[3]) for p in by_class[1] for n in by_class[0]]
    return {
        "accuracy": share(rows, lambda r: r[0] == r[1]),
        "balanced_accuracy": sum(classes) / 2 if both else None,
        "f1": 2 * hits / named if named else None,
        "auc": sum((p > n) + (p == n) / 2 for p, n in pairs) / len(pairs) if pairs else None,
        "worst_group_accuracy": min(right),
        "dp": spread(selected),
        "dpr": min(selected) / max(selected) if max(selected) else None,
        "eo": tpr,
        "eodds": None if tpr is None or fpr is None else max(tpr, fpr),
        "abcc": max(
            area_between([r[3] for r in a], [r[3] for r in b]) for a in by_group for b in by_group
        ),
        "cv": (classes[0] - classes[1]) ** 2 / 4 if both else None,
        "mcd": abs(classes[0] - classes[1]) if both else None,
    }


@st.composite
def few(draw: st.DrawFn) -> tuple[list[int], list[float], list[str]]:
    """Labels, scores in eighths, and groups of a few people; two groups at least."""
    n = draw(st.integers(2, 16))
    y = draw(st.lists(st.integers(0, 1), min_size=n, max_size=n))
    scores = draw(st.lists(st.integers(0, 7).map(lambda k: k / 8), min_size=n, max_size=n))
    group = draw(st.lists(st.sampled_from("abc"), min_size=n, max_size=n))
    assume(len(set(group)) > 1)
    return y, scores, group


@CALM
@given(few())
def test_equals_a_literal_computation(rows: tuple[list[int], list[float], list[str]]) -> None:
    """Every metric of every little crowd; None exactly where a literal computation divides by 0."""
    y, scores, group = rows
    found = fn.audit(Says(scores), people(y, group))
    expected = literal(y, scores, group)
    assert found.metrics == pytest.approx(expected, abs=1e-12)
    assert found.undefined.keys() == {name for name, value in expected.items() if value is None}


def test_scores_need_no_bins() -> None:
    """With scores of any value the figures of the 1,024 bins are within 2e-3."""
    data, scores = crowd(300)
    found, expected = fn.audit(Says(scores), data).metrics, literal(data.y, scores, data.group)
    for name in ("auc", "abcc"):
        assert found.pop(name) == pytest.approx(expected.pop(name), abs=2e-3)
    assert found == pytest.approx(expected, abs=1e-12)


def test_scores_close_together_are_told_apart() -> None:
    """Scores 2e-3 apart are no tie."""
    data = people([0, 1, 0, 1], list("aabb"))
    assert fn.audit(Says([0.501, 0.503, 0.899, 0.901]), data).metrics["auc"] == 0.75


def test_equals_scikit_learn() -> None:
    """Accuracy, balanced accuracy, F1 and AUC are scikit-learn's."""
    data, scores = crowd(4000, seed=1)
    metrics, predicted = fn.audit(Says(scores), data).metrics, scores >= 0.5
    assert metrics["accuracy"] == pytest.approx(accuracy_score(data.y, predicted))
    assert metrics["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(data.y, predicted))
    assert metrics["f1"] == pytest.approx(f1_score(data.y, predicted))
    assert metrics["auc"] == pytest.approx(roc_auc_score(data.y, scores), abs=2e-3)


def test_equals_the_functions() -> None:
    """The functions with fairlearn's names give the same gaps."""
    data, scores = crowd()
    metrics = fn.audit(Says(scores), data).metrics
    arguments = (data.y, (scores >= 0.5).astype(int))
    for short, name in {
        "dp": "demographic_parity_difference",
        "dpr": "demographic_parity_ratio",
        "eo": "equal_opportunity_difference",
        "eodds": "equalized_odds_difference",
    }.items():
        function = getattr(fn.metrics, name)
        assert metrics[short] == pytest.approx(function(*arguments, sensitive_features=data.group))


def test_groups_by_hand() -> None:
    """Sizes, positives and rates of eight people; a rate without a denominator is None."""
    data = people([1, 1, 0, 0, 1, 0, 0, 0], list("aaaabccc"))
    found = fn.audit(Says([0.9, 0.1, 0.5, 0.4, 0.7, 0.2, 0.8, 0.3]), data)
    keys = ("group", "n", "positive", "selection_rate", "tpr", "fpr", "accuracy")
    assert [tuple(row[key] for key in keys) for row in found.groups] == [
        ("a", 4, 2, 0.5, 0.5, 0.5, 0.5),
        ("b", 1, 1, 1.0, 1.0, None, 1.0),
        ("c", 3, 0, 1 / 3, None, 1 / 3, 2 / 3),
    ]
    assert repr(found) == "Audit(n=8, accuracy 0.625, dp 0.667, eo 0.500)"


# Tiny groups


def test_tiny_groups_are_said_with_their_intervals() -> None:
    """All groups of 1 to 9 people in one warning; 10 are enough, and nobody is no group."""
    group = ["a"] * 10 + ["b"] * 9 + ["c"]
    data = people([0, 1] * 10, group)
    with pytest.warns(fn.FairNeuronWarning) as caught:
        fn.audit(Says([1.0] * 10 + [0.0] * 6 + [1.0] * 4), data)
    assert [str(w.message) for w in caught] == [
        "Groups of fewer than 10 samples say little: "
        "'b' (n = 9, selection rate 0.33, 95 % interval 0.12 to 0.65); "
        "'c' (n = 1, selection rate 1.00, 95 % interval 0.21 to 1.00) [data-group-tiny]"
    ]
    assert caught[0].filename == __file__
    large = data.subset(data.group < 2).subset(np.arange(19))
    with pytest.warns(fn.FairNeuronWarning, match="'b'"):
        fn.audit(Says([1.0] * 19), large)


def test_only_an_audit_that_was_asked_for_says_so(parts, trained) -> None:
    """Repairs and verdicts audit too, in silence."""
    few = [part.subset(np.r_[part.group.argmax(), np.flatnonzero(part.group == 0)])
           for part in parts]  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = fn.repair(trained, few[0], few[1], strengths=(0.5,), epochs=1)
        fn.judge(trained, result.model, few[2], {"dp": 0.1}, on="test")
        fn.audit(trained, parts[2])
    with pytest.warns(fn.FairNeuronWarning, match="'B' \\(n = 1"):
        fn.audit(trained, few[2])


def test_selection_intervals_are_wilsons() -> None:
    """SciPy's, for every number of selected people; None for nobody."""
    for n in (1, 9, 40):
        for k in range(0, n + 1, 1 + n // 10):
            counts = np.array([[[n - k, k], [0, 0]], [[3, 4], [5, 6]], [[0, 0], [0, 0]]])
            found = Audit(counts, None, ("a", "b", "c"), (("a",), ("b",), ("c",)), ("s",))
            low, high = found.groups[0]["selection_interval"]
            expected = binomtest(k, n).proportion_ci(method="wilson")
            assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-12)
            assert found.groups[2]["selection_interval"] is None


# What is read from a model


def test_one_logit_and_two_logits_are_the_same() -> None:
    """A head of (n,), (n, 1) or (n, 2) outputs gives the same audit."""
    data, scores = crowd(400)
    logit = np.log(scores / (1 - scores))
    two = people(data.y, data.group, np.stack([np.full(400, 0.25), logit + 0.25], axis=1))
    one = people(data.y, data.group, logit[:, None])
    expected = fn.audit(Says(scores), data)
    for model, inputs in [
        (nn.Identity(), one),
        (nn.Flatten(start_dim=0), one),
        (nn.Identity(), two),
    ]:
        found = fn.audit(model, inputs)
        assert (found.counts == expected.counts).all()
        assert found.metrics["auc"] == pytest.approx(expected.metrics["auc"], abs=1e-3)


def test_three_classes() -> None:
    """The largest logit is the prediction; class 1 is the positive one; all of it is plain JSON."""
    logits = [[3, 0, 0], [0, 3, 0], [0, 0, 3], [0, 2, 1], [2, 1, 0], [0, 1, 2]]
    found = fn.audit(nn.Identity(), people([0, 1, 2, 1, 1, 1], list("aaabbb"), logits))
    assert found.counts.shape == (2, 3, 3)
    assert found.metrics["accuracy"] == pytest.approx(4 / 6)
    assert found.metrics["dp"] == pytest.approx(0)
    assert found.metrics["eo"] == pytest.approx(2 / 3)
    assert found.metrics["mcd"] == pytest.approx(0.5)
    assert found.metrics["cv"] == pytest.approx((1 / 6**2 + 1 / 6**2 + 1 / 3**2) / 3)
    json.dumps(found.to_dict(), allow_nan=False)


def test_threshold() -> None:
    """A score at the threshold is positive; the AUC does not depend on it."""
    data = people([0, 1, 0, 1], list("aabb"))
    model = Says([0.2, 0.3, 0.6, 0.7])
    for threshold, selected in [(0.2, 4), (0.3, 3), (0.31, 2), (0.7, 1), (1, 0)]:
        assert fn.audit(model, data, threshold=threshold).counts[..., 1].sum() == selected
    low, high = (fn.audit(model, data, threshold=t).metrics for t in (0.3, 0.7))
    assert (low["accuracy"], high["accuracy"]) == (0.75, 0.75)
    assert (low["dp"], high["dp"]) == (0.5, 0.5)
    assert low["auc"] == high["auc"] == 0.75


def test_a_predictor_may_read_the_sensitive_columns() -> None:
    """It is given the whole Dataset."""
    data, _ = crowd(60, "ab")
    model = PrefersGroup0()
    assert isinstance(model, fn.Predictor)
    metrics = fn.audit(model, data).metrics
    assert (metrics["dp"], metrics["dpr"], metrics["eo"]) == (1, 0, 1)


def broken() -> nn.Module:
    """A layer that was trained to NaN."""
    layer = nn.Linear(1, 1)
    nn.init.constant_(layer.bias, torch.nan)
    return layer


@pytest.mark.parametrize(
    ("audited", "error", "code"),
    [
        (
            lambda d: fn.audit(Says([0.5] * 3), d.subset(d.group == 0)),
            DataError,
            "data-single-group",
        ),
        (lambda d: fn.audit(Says(np.eye(2)), people([0, 2], list("ab"))), DataError, "data-labels"),
        (lambda d: fn.audit(Says([[1.0]] * 6), d), ModelError, "model-output"),
        (lambda _: fn.audit("weights.pt", people([0, 1], list("ab"))), ModelError, "model-type"),
        (
            lambda d: fn.audit(nn.Linear(1, 1, bias=False), d, threshold=1.5),
            OptionError,
            "option-range",
        ),
        (lambda d: fn.audit(broken(), d), ModelError, "model-nonfinite"),
    ],
    ids=["one group", "labels", "one column", "no model", "threshold", "NaN"],
)
def test_refusals(audited: Callable[[Dataset], Audit], error: type[InputError], code: str) -> None:
    """What cannot be audited is refused with a code."""
    with pytest.raises(error) as caught:
        audited(people([0, 1, 0, 1, 0, 1], list("aaabbb")))
    assert caught.value.code == code


@pytest.mark.parametrize(
    "scores",
    [[0.5, np.nan, 0.5, 0.5], [0.5, np.inf, 0.5, 0.5], [0.5, -2.0, 0.5, 0.5], [0.5, 0.5]],
    ids=["NaN", "infinite", "negative", "too few"],
)
def test_scores_of_a_predictor_are_checked(scores: list[float]) -> None:
    """A predictor that does not give a probability per person is refused as a module is."""
    with pytest.raises(ModelError):
        fn.audit(Says(scores), people([0, 1, 0, 1], list("aabb")))


# Groups


def two_columns(n: int = 300, seed: int = 0) -> tuple[Dataset, np.ndarray]:
    """People of sensitive columns "sex" (f, m) and "age" (x, y, z)."""
    rng = np.random.default_rng(seed)
    sensitive = np.stack([rng.choice(list("fm"), n), rng.choice(list("xyz"), n)], axis=1)
    data = Dataset.from_arrays(
        np.zeros((n, 1)), rng.integers(0, 2, n), sensitive, sensitive_names=["sex", "age"]
    )
    return data, rng.random(n)


def test_marginals_are_audits_of_one_column() -> None:
    """The audit of intersections holds the audit of each column alone."""
    data, scores = two_columns()
    whole = fn.audit(Says(scores), data)
    assert len(whole.groups) == 6
    for k, column in enumerate(("sex", "age")):
        levels = np.array(data.sensitive_levels[k])
        alone = Dataset.from_arrays(
            data.x, data.y, levels[data.sensitive[:, k]], sensitive_names=[column]
        )
        expected = fn.audit(Says(scores), alone)
        marginal = whole.marginal(column)
        assert (marginal.counts == expected.counts).all()
        assert (marginal.histograms == expected.histograms).all()
        assert marginal.metrics == expected.metrics
        assert marginal.groups == expected.groups
        assert marginal.sensitive_names == (column,)
        assert marginal.to_dict() == expected.to_dict() == whole.to_dict()["by_column"][column]


def test_empty_groups_are_listed_and_left_out() -> None:
    """An intersection without people has n = 0 and no rates, and changes no metric."""
    data, scores = two_columns()
    kept = data.group != data.group_names.index("m & y")
    part = data.subset(kept)
    found = fn.audit(Says(scores[kept]), part)
    empty = found.groups[4]
    assert (empty["group"], empty["n"], empty["positive"]) == ("m & y", 0, 0)
    assert {empty[rate] for rate in ("selection_rate", "tpr", "fpr", "accuracy")} == {None}
    names = np.array(part.group_names)[part.group]
    five = fn.audit(Says(scores[kept]), people(part.y, names))
    assert found.metrics == pytest.approx(five.metrics)
    assert found.noise_floor["dp"] == pytest.approx(five.noise_floor["dp"], rel=0.1)


def test_a_column_with_one_value_left() -> None:
    """Where all people are of one sex, sex × age can still be compared, and written as JSON."""
    data, scores = two_columns()
    women = data.sensitive[:, 0] == 0
    found = fn.audit(Says(scores[women]), data.subset(women))
    assert found.metrics["dp"] is not None
    assert "age" in found.to_dict()["by_column"]


# Merging


@settings(CALM, max_examples=30)
@given(st.integers(0, 2**32), st.integers(2, 5))
def test_merged_parts_are_the_whole(seed: int, parts: int) -> None:
    """Audits of any parts of some data add up to the audit of it, in any order."""
    data, scores = crowd(90, "ab", seed=1)
    part_of = np.random.default_rng(seed).integers(0, parts, len(data))
    audits = [fn.audit(Says(scores[part_of == p]), data.subset(part_of == p)) for p in range(parts)]
    whole, merged, backwards = fn.audit(Says(scores), data), audits[0], audits[-1]
    for one, other in zip(audits[1:], audits[-2::-1], strict=True):
        merged, backwards = merged.merge(one), backwards.merge(other)
    for found in (merged, backwards):
        assert (found.counts == whole.counts).all()
        assert (found.histograms == whole.histograms).all()
        assert found.metrics == whole.metrics


def test_merging_with_counts_alone() -> None:
    """If one part has no scores, the whole has no AUC, and says why."""
    data, scores = crowd(100, "AB")
    found = fn.audit(Says(scores), data).merge(counted((50, 0.5, 0.6, 0.2), (50, 0.4, 0.5, 0.3)))
    assert found.metrics["accuracy"] is not None
    assert found.histograms is None
    assert found.metrics["auc"] is None
    assert "scores" in found.undefined["auc"]


# Undefined metrics


@pytest.mark.parametrize(
    ("y", "scores", "undefined"),
    [
        ([0, 1, 0, 1], [0.1] * 4, {"dpr": "no positive predictions"}),
        ([0, 1, 0, 0], [0.9, 0.1, 0.9, 0.1], {"eo": "no two groups with positives in y"}),
        ([0, 1, 1, 1], [0.9, 0.1, 0.9, 0.1], {"eodds": "none with negatives"}),
        ([1, 1, 1, 1], [0.9, 0.1, 0.9, 0.1], {"auc": "one class", "balanced_accuracy": "a class"}),
        ([0, 0, 0, 0], [0.1] * 4, {"f1": "no positives", "cv": "a class", "mcd": "a class"}),
    ],
    ids=["nobody selected", "group without positives", "without negatives", "all 1", "all 0"],
)
def test_undefined_metrics_have_a_reason(
    y: list[int], scores: list[float], undefined: dict[str, str]
) -> None:
    """None and why, never 0, NaN or infinite; all the others have a value."""
    found = fn.audit(Says(scores), people(y, list("aabb")))
    for name, reason in undefined.items():
        assert found.metrics[name] is None
        assert reason in found.undefined[name]
        assert found.intervals[name] is None
    assert found.undefined.keys() == {k for k, value in found.metrics.items() if value is None}
    assert found.metrics.keys() == METRICS.keys()
    assert found.metrics["dp"] is not None
    json.dumps(found.to_dict(), allow_nan=False)


def test_nobody_selected() -> None:
    """No positive predictions: no gap in rates, and no ratio of them."""
    metrics = fn.audit(Says([0.1] * 4), people([0, 1, 0, 1], list("aabb"))).metrics
    assert (metrics["dp"], metrics["dpr"], metrics["eo"], metrics["f1"]) == (0, None, 0, 0)


@settings(CALM, max_examples=12)
@given(few())
def test_json_of_any_audit(rows: tuple[list[int], list[float], list[str]]) -> None:
    """However few the people, no output holds NaN or infinity, and no interval is upside down."""
    y, scores, group = rows
    found = fn.audit(Says(scores), people(y, group))
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert plain["n"] == len(y)
    for low, high in filter(None, plain["intervals"].values()):
        assert 0 <= low <= high <= 1


# Noise floors

COMPAS_TEST = (635, 332 / 635), (421, 164 / 421)  # people of each group, share of positives
CENSUS_TEST = (2154, 236 / 2154), (4358, 1332 / 4358)


@pytest.mark.parametrize(
    ("groups", "tpr", "fpr", "dp", "eo"),
    [(COMPAS_TEST, 0.62, 0.30, 0.025, 0.037), (CENSUS_TEST, 0.60, 0.07, 0.008, 0.028)],
    ids=["COMPAS", "Census"],
)
def test_noise_floors_of_the_data_sets(
    groups: tuple[tuple[int, float], ...], tpr: float, fpr: float, dp: float, eo: float
) -> None:
    """An equal classifier on the test parts of COMPAS and Census shows gaps of this size."""
    floor = counted(*((n, base, tpr, fpr) for n, base in groups)).noise_floor
    assert floor["dp"] == pytest.approx(dp, rel=0.1)
    assert floor["eo"] == pytest.approx(eo, rel=0.1)
    assert floor["abcc"] is None


def test_noise_floor_of_two_groups_by_formula() -> None:
    """The mean of |normal| is √(2/π) sd, and the sd that of a difference of two shares."""
    found = counted((400, 0.5, 0.7, 0.2), (900, 0.3, 0.4, 0.1))
    selected = (140 + 40 + 108 + 63) / 1300
    tpr = (140 + 108) / 470

    def expected(rate: float, n: int, m: int) -> float:
        return sqrt(2 / pi * rate * (1 - rate) * (1 / n + 1 / m))

    assert found.noise_floor["dp"] == pytest.approx(expected(selected, 400, 900), rel=0.08)
    assert found.noise_floor["eo"] == pytest.approx(expected(tpr, 200, 270), rel=0.08)


def test_noise_floor_knows_no_gap() -> None:
    """It depends on group sizes and overall rates, not on how unequal the classifier is."""
    equal = counted((500, 0.5, 0.5, 0.5), (500, 0.5, 0.5, 0.5))
    unequal = counted((500, 0.5, 1.0, 0.8), (500, 0.5, 0.0, 0.2))
    assert equal.metrics["dp"] == 0
    assert unequal.metrics["dp"] == pytest.approx(0.8)
    assert unequal.noise_floor["dp"] == pytest.approx(equal.noise_floor["dp"])


def test_noise_floor_falls_with_the_root_of_the_size() -> None:
    """A hundred times the people, a tenth of the noise."""
    small, large = (counted(*[(n, 0.4, 0.6, 0.2)] * 2) for n in (200, 20000))
    for name in ("dp", "eo", "eodds"):
        assert small.noise_floor[name] == pytest.approx(10 * large.noise_floor[name], rel=0.12)
    assert small.noise_floor["dpr"] < large.noise_floor["dpr"] < 1


def test_noise_floors_equal_those_of_shuffled_people() -> None:
    """Dealing the predictions out anew (for EO: among people of one label) shows the same gaps."""
    data, scores = crowd(600)
    floor = fn.audit(Says(scores), data).noise_floor
    rng = np.random.default_rng(0)
    shuffled: dict[str, list[float]] = {name: [] for name in floor}
    for _ in range(300):
        dealt = fn.audit(Says(rng.permutation(scores)), data).metrics
        within = scores.copy()
        for label in (0, 1):
            within[data.y == label] = rng.permutation(scores[data.y == label])
        fair = fn.audit(Says(within), data).metrics
        for name, values in shuffled.items():
            values.append((fair if name in ("eo", "eodds") else dealt)[name])
    assert set(floor) == {"dp", "dpr", "eo", "eodds", "abcc"}
    for name, values in shuffled.items():
        assert floor[name] == pytest.approx(np.mean(values), rel=0.1)


# Intervals


def test_intervals_equal_a_bootstrap_of_the_rows() -> None:
    """Of audits of people drawn with replacement, 2.5 % lie below and 2.5 % above the interval."""
    data, scores = crowd(500)
    found = fn.audit(Says(scores), data)
    rng = np.random.default_rng(1)
    names = ("accuracy", "f1", "auc", "dp", "dpr", "eo", "eodds", "abcc", "mcd", "cv")
    drawn: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(4000):
        rows = rng.integers(0, len(data), len(data))
        metrics = fn.audit(Says(scores[rows]), data.subset(rows)).metrics
        for name in names:
            drawn[name].append(metrics[name])
    for name in names:
        # shares of 1,000 and of 4,000 draws: the difference has a standard error of .0055
        low, high = found.intervals[name]
        assert np.mean(drawn[name] < np.float64(low)) == pytest.approx(0.025, abs=0.017)
        assert np.mean(drawn[name] > np.float64(high)) == pytest.approx(0.025, abs=0.017)


def test_interval_of_the_accuracy_by_formula() -> None:
    """1.96 standard errors of a share to each side."""
    found = counted((600, 0.5, 0.8, 0.2), (400, 0.5, 0.8, 0.2))
    half = 1.96 * sqrt(0.8 * 0.2 / 1000)
    assert found.intervals["accuracy"] == pytest.approx((0.8 - half, 0.8 + half), abs=0.2 * half)


def test_no_interval_where_draws_are_often_undefined() -> None:
    """One positive in a group is missing from a third of the draws: a value, but no interval."""
    counts = np.array([[[40, 10], [20, 30]], [[60, 39], [0, 1]]])
    found = Audit(counts, None, ("a", "b"), (("a",), ("b",)), ("group",))
    assert found.metrics["eo"] == pytest.approx(0.4)
    assert found.intervals["eo"] is None
    assert found.intervals["dp"] is not None
    assert "eo" not in found.undefined


def test_same_seed_same_figures() -> None:
    """Another seed gives other draws of intervals and floors, and the same metrics."""
    data, scores = crowd(200, "ab")
    one, same, other = (fn.audit(Says(scores), data, seed=seed) for seed in (0, 0, 1))
    assert one.to_dict() == same.to_dict()
    assert one.metrics == other.metrics
    assert one.intervals != other.intervals
    assert one.noise_floor != other.noise_floor
    assert one.intervals["dp"] == pytest.approx(other.intervals["dp"], abs=0.05)

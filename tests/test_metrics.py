"""Metrics: small tables of counts worked out by hand, and fairlearn's functions."""

import warnings

import fairlearn.metrics
import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import fairneuron as fn
from fairneuron.errors import DataError, FairNeuronWarning, OptionError
from fairneuron.metrics import definitions as m

CALM = settings(max_examples=25, deadline=None, derandomize=True)
nan = float("nan")

# Three groups of 100, 50 and 20 people. A group's rows are [[TN, FP], [FN, TP]].
#             selected        TPR      FPR     right
# A           60/100 = .6     50/60    10/40   80/100
# B           25/50  = .5     5/10     20/40   25/50
# C           8/20   = .4     4/4      4/16    16/20
# together    93/170          59/74    34/96   121/170
ABC = np.array([[[30, 10], [10, 50]], [[20, 20], [5, 5]], [[12, 4], [0, 4]]])

# Two groups whose FPR differ most: TPR .5 and .6, FPR .1 and .9.
FPR_APART = np.array([[[90, 10], [5, 5]], [[1, 9], [4, 6]]])

# Two groups, three classes; rows are the labels, columns the predictions.
#             selected (1)    TPR      FPR of class 1     right
# A           8/20            6/8      2/12               15/20
# B           5/10            2/4      3/6                4/10
# class 0: 7/9 right, class 1: 8/12, class 2: 4/9
THREE_CLASSES = np.array([[[5, 1, 0], [1, 6, 1], [1, 1, 4]], [[2, 1, 0], [1, 2, 1], [1, 2, 0]]])

BY_HAND = [
    ("accuracy", ABC, 121 / 170),
    ("balanced_accuracy", ABC, (62 / 96 + 59 / 74) / 2),
    ("f1", ABC, 2 * 59 / (2 * 59 + 34 + 15)),
    ("worst_group_accuracy", ABC, 0.5),
    ("dp", ABC, 0.6 - 0.4),
    ("dpr", ABC, 0.4 / 0.6),
    ("eo", ABC, 1 - 0.5),
    ("eodds", ABC, 0.5),
    ("cv", ABC, (59 / 74 - 62 / 96) ** 2 / 4),
    ("mcd", ABC, 59 / 74 - 62 / 96),
    ("eo", FPR_APART, 0.1),
    ("eodds", FPR_APART, 0.8),
    ("accuracy", THREE_CLASSES, 19 / 30),
    ("balanced_accuracy", THREE_CLASSES, (7 / 9 + 8 / 12 + 4 / 9) / 3),
    ("f1", THREE_CLASSES, 16 / 25),
    ("worst_group_accuracy", THREE_CLASSES, 4 / 10),
    ("dp", THREE_CLASSES, 5 / 10 - 8 / 20),
    ("eo", THREE_CLASSES, 6 / 8 - 2 / 4),
    ("eodds", THREE_CLASSES, 3 / 6 - 2 / 12),
    # class accuracies 14/18, 12/18, 8/18: mean 34/54, deviations 8, 2, -10 of 54
    ("cv", THREE_CLASSES, (8**2 + 2**2 + 10**2) / 3 / 54**2),
    ("mcd", THREE_CLASSES, 7 / 9 - 4 / 9),
]

# What has no denominator (NaN in here), and what merely is extreme.
NOBODY_SELECTED = np.array([[[5, 0], [5, 0]], [[5, 0], [3, 0]]])
ONE_RATE_ZERO = np.array([[[5, 0], [5, 0]], [[5, 1], [1, 3]]])
B_WITHOUT_POSITIVES = np.array([[[5, 1], [1, 3]], [[5, 2], [0, 0]]])
B_WITHOUT_NEGATIVES = np.array([[[5, 1], [1, 3]], [[0, 0], [1, 2]]])
B_EMPTY = np.array([[[5, 1], [1, 3]], [[0, 0], [0, 0]]])
EMPTY_BESIDE_TWO = np.concatenate([FPR_APART, np.zeros((1, 2, 2), dtype=int)])
NO_POSITIVES_BESIDE_TWO = np.concatenate([FPR_APART, [[[6, 4], [0, 0]]]])
CLASS_2_UNSEEN = np.array([[[5, 1, 0], [1, 3, 1], [0, 0, 0]], [[2, 1, 0], [1, 2, 1], [0, 0, 0]]])
EDGES = {
    "dp: nobody selected": ("dp", NOBODY_SELECTED, 0),
    "dpr: nobody selected": ("dpr", NOBODY_SELECTED, nan),
    "eo: nobody selected": ("eo", NOBODY_SELECTED, 0),
    "f1: nobody selected": ("f1", NOBODY_SELECTED, 0),
    "dp: one rate 0": ("dp", ONE_RATE_ZERO, 0.4),
    "dpr: one rate 0": ("dpr", ONE_RATE_ZERO, 0),
    "eo: a group without positives": ("eo", B_WITHOUT_POSITIVES, nan),
    "eodds: a group without positives": ("eodds", B_WITHOUT_POSITIVES, nan),
    "dp: a group without positives": ("dp", B_WITHOUT_POSITIVES, 0.4 - 2 / 7),
    "eo: a group without negatives": ("eo", B_WITHOUT_NEGATIVES, 3 / 4 - 2 / 3),
    "eodds: a group without negatives": ("eodds", B_WITHOUT_NEGATIVES, nan),
    "dp: one group only": ("dp", B_EMPTY, nan),
    "dpr: one group only": ("dpr", B_EMPTY, nan),
    "eo: one group only": ("eo", B_EMPTY, nan),
    "worst group: one group only": ("worst_group_accuracy", B_EMPTY, 0.8),
    "dp: an empty group is left out": ("dp", EMPTY_BESIDE_TWO, 15 / 20 - 15 / 110),
    "dpr: an empty group is left out": ("dpr", EMPTY_BESIDE_TWO, (15 / 110) / (15 / 20)),
    "worst group: an empty group is left out": ("worst_group_accuracy", EMPTY_BESIDE_TWO, 7 / 20),
    "eo: two of three groups have positives": ("eo", NO_POSITIVES_BESIDE_TWO, 0.1),
    "balanced accuracy: a class unseen": ("balanced_accuracy", CLASS_2_UNSEEN, nan),
    "cv: a class unseen": ("cv", CLASS_2_UNSEEN, nan),
    "mcd: a class unseen": ("mcd", CLASS_2_UNSEEN, nan),
    "accuracy: nobody": ("accuracy", np.zeros((2, 2, 2), dtype=int), nan),
    "worst group: nobody": ("worst_group_accuracy", np.zeros((2, 2, 2), dtype=int), nan),
    "f1: no positives at all": ("f1", np.array([[[4, 0], [0, 0]], [[3, 0], [0, 0]]]), nan),
}

Case = tuple[str, str, str | None]
# A combination: function, method, and aggregation where it has one.
METHODS = ("between_groups", "to_overall")
COMBINATIONS = [
    (name, method, agg)
    for name in fn.metrics.__all__
    for method in METHODS
    for agg in (("worst_case", "mean") if name.startswith("equalized") else (None,))
]


every_combination = pytest.mark.parametrize(
    "case", COMBINATIONS, ids=lambda case: "-".join(word for word in case if word)
)


def call(module: object, case: Case, rows: dict[str, object]) -> float:
    """A function of this name with these rows."""
    name, method, agg = case
    options = {"method": method} | ({"agg": agg} if agg else {})
    return getattr(module, name)(
        rows["y"],
        rows["predicted"],
        sensitive_features=rows["group"],
        sample_weight=rows["weight"],
        **options,
    )


@st.composite
def tables(draw: st.DrawFn) -> dict[str, object]:
    """Labels, predictions, groups and perhaps weights; small enough to be degenerate often."""
    n = draw(st.integers(2, 14))
    low = draw(st.sampled_from([0, -1]))
    column = st.lists(st.sampled_from([low, 1]), min_size=n, max_size=n).map(np.array)
    groups = st.lists(st.sampled_from("ABC"), min_size=n, max_size=n).map(np.array)
    weights = st.lists(st.sampled_from([0.5, 1.0, 3.0]), min_size=n, max_size=n).map(np.array)
    return {
        "y": draw(column),
        "predicted": draw(column),
        "group": draw(groups),
        "weight": draw(st.none() | weights),
    }


def counts_of(groups: int, classes: int = 2) -> st.SearchStrategy[np.ndarray]:
    """Tables (groups, classes, classes) of small counts, zero now and then."""
    size = groups * classes**2
    cells = st.lists(st.integers(0, 6), min_size=size, max_size=size)
    return cells.map(lambda c: np.array(c).reshape(groups, classes, classes))


def histograms_of(groups: int, bins: int) -> st.SearchStrategy[np.ndarray]:
    """Score histograms (groups, 2, bins) of small counts."""
    size = groups * 2 * bins
    cells = st.lists(st.integers(0, 4), min_size=size, max_size=size)
    return cells.map(lambda c: np.array(c).reshape(groups, 2, bins))


# Definitions over counts


@pytest.mark.parametrize(("name", "counts", "value"), BY_HAND)
def test_metric_by_hand(name: str, counts: np.ndarray, value: float) -> None:
    """Every metric over counts has the value that one gets with pencil and paper."""
    assert m.METRICS[name].of(counts) == pytest.approx(value, abs=1e-12)


def test_every_metric_over_counts_is_worked_out() -> None:
    """The table above leaves none out."""
    over_counts = {name for name, metric in m.METRICS.items() if metric.source == "counts"}
    assert {name for name, *_ in BY_HAND} == over_counts


@pytest.mark.parametrize(("name", "counts", "value"), EDGES.values(), ids=EDGES.keys())
def test_undefined_and_extreme_cases(name: str, counts: np.ndarray, value: float) -> None:
    """What has no denominator is NaN, what merely is extreme has its value; nothing warns."""
    np.testing.assert_allclose(m.METRICS[name].of(counts), value, atol=1e-12)


def test_rates_per_group_by_hand() -> None:
    """Selection rate, TPR, FPR and accuracy of each group."""
    np.testing.assert_allclose(m.selection_rate(ABC), [0.6, 0.5, 0.4])
    np.testing.assert_allclose(m.true_positive_rate(ABC), [5 / 6, 0.5, 1])
    np.testing.assert_allclose(m.false_positive_rate(ABC), [0.25, 0.5, 0.25])
    np.testing.assert_allclose(m.group_accuracy(ABC), [0.8, 0.5, 0.8])
    np.testing.assert_allclose(m.false_positive_rate(THREE_CLASSES), [2 / 12, 3 / 6])
    np.testing.assert_allclose(m.class_accuracies(THREE_CLASSES), [7 / 9, 8 / 12, 4 / 9])


def test_auc_by_hand() -> None:
    """Two negatives in bin 0 and one in 1, one positive in bin 1 and two in 2: 8.5 of 9 pairs."""
    histograms = np.array([[[2, 0, 0], [0, 1, 0]], [[0, 1, 0], [0, 0, 2]]])
    assert m.auc(histograms) == pytest.approx(8.5 / 9)


def test_auc_needs_both_classes() -> None:
    """Without negatives there is no pair."""
    assert np.isnan(m.auc(np.array([[[0, 0], [1, 2]], [[0, 0], [3, 1]]])))


def test_abcc_by_hand() -> None:
    """Scores in bin 0, in bin 2, and half in each of 4 bins: curves 1 1 1 1, 0 0 1 1, ½ ½ 1 1."""
    low, high = [[3, 0, 0, 0], [1, 0, 0, 0]], [[0, 0, 2, 0], [0, 0, 0, 0]]
    both = [[1, 0, 0, 0], [0, 0, 1, 0]]
    assert m.abcc(np.array([low, high])) == pytest.approx(0.5)
    assert m.abcc(np.array([low, both])) == pytest.approx(0.25)
    assert m.abcc(np.array([low, high, both])) == pytest.approx(0.5)


def test_abcc_leaves_empty_groups_out() -> None:
    """A group without scores has no curve; one curve alone has no area."""
    low, high, none = [[3, 0], [0, 0]], [[0, 2], [0, 0]], [[0, 0], [0, 0]]
    assert m.abcc(np.array([low, high, none])) == pytest.approx(0.5)
    assert np.isnan(m.abcc(np.array([low, none])))


@pytest.mark.parametrize("name", m.METRICS)
@CALM
@given(data=st.data())
def test_leading_dimensions_are_replicates(name: str, data: st.DataObject) -> None:
    """A metric of (2, 3) stacked tables is the (2, 3) metrics of each."""
    metric = m.METRICS[name]
    one = counts_of(3, 3) if metric.source == "counts" else histograms_of(3, 4)
    stack = np.stack([data.draw(one) for _ in range(6)])
    each = [metric.of(table) for table in stack]
    together = metric.of(stack.reshape(2, 3, *stack.shape[1:]))
    np.testing.assert_allclose(together, np.reshape(each, (2, 3)), atol=1e-12)


@pytest.mark.parametrize("name", m.METRICS)
@CALM
@given(data=st.data())
def test_order_of_groups_is_irrelevant(name: str, data: st.DataObject) -> None:
    """No group is privileged: any order of them gives the same value, within [0, 1]."""
    metric = m.METRICS[name]
    table = data.draw(counts_of(4) if metric.source == "counts" else histograms_of(4, 5))
    order = data.draw(st.permutations(range(4)))
    value = metric.of(table)
    np.testing.assert_allclose(metric.of(table[order]), value, atol=1e-12)
    assert np.isnan(value) or 0 <= value <= 1


@CALM
@given(table=counts_of(3))
def test_more_of_the_same_people_change_nothing(table: np.ndarray) -> None:
    """Rates know shares, not sizes: ten copies of everybody give the same values."""
    for metric in m.METRICS.values():
        if metric.source == "counts":
            np.testing.assert_allclose(metric.of(10 * table), metric.of(table), atol=1e-12)


def test_group_counts() -> None:
    """Five people, counted by group, label and prediction."""
    counts = m.group_counts(
        np.array([0, 1, 1, 2, 1]), np.array([0, 1, 2, 2, 1]), np.array([0, 1, 1, 0, 1]), 3, 3
    )
    assert counts.shape == (3, 3, 3)
    assert counts[0, 0, 0] == counts[0, 2, 2] == counts[1, 1, 2] == 1
    assert counts[1, 1, 1] == 2
    assert counts.sum() == 5


@pytest.mark.parametrize(
    ("name", "value", "short"), [("dp", 0.3, 0.3), ("dpr", 0.7, 0.3), ("accuracy", 0.9, 0.1)]
)
def test_shortfall(name: str, value: float, short: float) -> None:
    """A gap falls short by its size; a ratio or an accuracy by what is missing to 1."""
    assert m.METRICS[name].shortfall(value) == pytest.approx(short)


# fairlearn's functions


NOBODY = {  # is predicted positive
    "y": np.array([0, 1, 1, 0]),
    "predicted": np.zeros(4, dtype=int),
    "group": np.array(list("AABB")),
    "weight": None,
}


@every_combination
@CALM
@example(rows=NOBODY | {"predicted": np.array([0, 1, 1, 0])})
@given(rows=tables())
def test_equals_fairlearn(case: Case, rows: dict[str, object]) -> None:
    """fairlearn's value to the last digits, NaN for NaN, in degenerate cases too."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of ours have a test of their own
        expected = call(fairlearn.metrics, case, rows)
        value = call(fn.metrics, case, rows)
    assert isinstance(value, float)
    np.testing.assert_allclose(value, expected, atol=1e-12)


@every_combination
@CALM
@example(rows=NOBODY)
@given(rows=tables())
def test_warns_of_missing_denominators(case: Case, rows: dict[str, object]) -> None:
    """A group without positives (or negatives) that counts as 0 is said; no other warning leaks."""
    name = case[0]
    classes = [set(rows["y"][rows["group"] == g]) for g in set(rows["group"])]
    needed = not all(1 in c for c in classes) and not name.startswith("demographic")
    needed |= not all(len(c) == 2 for c in classes) and name.startswith("equalized")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call(fn.metrics, case, rows)
    assert {w.category for w in caught} <= {FairNeuronWarning}
    said = any("[metric-undefined]" in str(w.message) for w in caught)
    assert said or not needed
    assert needed or name.endswith("ratio") or not said  # a ratio may be 0/0 besides


def people(table: np.ndarray) -> dict[str, object]:
    """The people whom counts (groups, 2, 2) count; groups are called "A", "B", …."""
    group, y, predicted = (
        np.repeat(i, table.reshape(-1)) for i in np.indices(table.shape).reshape(3, -1)
    )
    return {
        "y": y,
        "predicted": predicted,
        "group": np.array(list("ABC"))[group],
        "weight": None,
    }


@pytest.mark.parametrize(
    ("case", "value"),
    [
        (("demographic_parity_difference", "between_groups", None), 0.2),
        (("demographic_parity_difference", "to_overall", None), 93 / 170 - 0.4),
        (("demographic_parity_ratio", "between_groups", None), 2 / 3),
        (("demographic_parity_ratio", "to_overall", None), 0.4 / (93 / 170)),
        (("equal_opportunity_difference", "between_groups", None), 0.5),
        (("equal_opportunity_difference", "to_overall", None), 59 / 74 - 0.5),
        (("equal_opportunity_ratio", "between_groups", None), 0.5),
        (("equal_opportunity_ratio", "to_overall", None), 0.5 / (59 / 74)),
        (("equalized_odds_difference", "between_groups", "worst_case"), 0.5),
        (("equalized_odds_difference", "between_groups", "mean"), (0.5 + 0.25) / 2),
        (("equalized_odds_difference", "to_overall", "worst_case"), 59 / 74 - 0.5),
        (("equalized_odds_ratio", "between_groups", "worst_case"), 0.5),
        (("equalized_odds_ratio", "between_groups", "mean"), (0.5 + 0.5) / 2),
        # FPR .25, .5, .25 to 34/96: the farthest ratio is .354/.5 = .708, .25/.354 = .706
        (("equalized_odds_ratio", "to_overall", "mean"), (0.5 / (59 / 74) + 0.25 / (34 / 96)) / 2),
    ],
)
def test_function_by_hand(case: Case, value: float) -> None:
    """The functions give the table's values too."""
    assert call(fn.metrics, case, people(ABC)) == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize("name", fn.metrics.__all__)
@CALM
@given(rows=tables(), data=st.data())
def test_names_and_order_are_irrelevant(
    name: str, rows: dict[str, object], data: st.DataObject
) -> None:
    """Renaming the groups and shuffling the rows change nothing."""
    order = np.array(data.draw(st.permutations(range(len(rows["y"])))))
    renamed = np.array([{"A": "zz", "B": "1", "C": "B"}[g] for g in rows["group"]])
    moved = {k: None if v is None else v[order] for k, v in (rows | {"group": renamed}).items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FairNeuronWarning)
        one, other = (call(fn.metrics, (name, "between_groups", None), r) for r in (rows, moved))
    np.testing.assert_allclose(other, one, atol=1e-12)


def test_several_sensitive_columns_mean_their_intersections() -> None:
    """Two columns of two values are four groups; only "f" and "y" together are refused."""
    columns = pd.DataFrame({"sex": list("ffmmffmm"), "age": list("yyyyoooo")})
    predicted = pd.Series([0, 0, 1, 1, 1, 1, 1, 1], index=range(10, 18))
    value = fn.metrics.demographic_parity_difference(
        pd.Series([1] * 8), predicted, sensitive_features=columns
    )
    assert value == 1
    alone = fn.metrics.demographic_parity_difference(
        [1] * 8, predicted, sensitive_features=columns["sex"]
    )
    assert alone == 0.5


def test_weights_count_as_copies() -> None:
    """A weight of 3 is the same as three people."""
    y, p, g, w = np.array([[1, 0, 1, 1, 0], [1, 1, 0, 1, 0], [0, 0, 1, 1, 1], [3, 1, 2, 1, 2]])
    weighted = fn.metrics.equalized_odds_difference(y, p, sensitive_features=g, sample_weight=w)
    copies = (np.repeat(a, w) for a in (y, p, g))
    y, p, g = copies
    assert weighted == pytest.approx(
        fn.metrics.equalized_odds_difference(y, p, sensitive_features=g), abs=1e-12
    )


GOOD = {"y_true": [0, 1, 1, 0], "y_pred": [0, 1, 0, 1], "sensitive_features": list("aabb")}


@pytest.mark.parametrize(
    ("change", "error", "code"),
    [
        ({"y_true": [0, 1, 1]}, DataError, "data-lengths"),
        ({"sensitive_features": list("aab")}, DataError, "data-lengths"),
        ({"y_pred": [0.2, 0.9, 0.4, 0.6]}, DataError, "data-labels"),
        ({"y_true": [0, 1, 2, 1]}, DataError, "data-labels"),
        ({"y_true": [0, 1, -1, 1]}, DataError, "data-labels"),
        ({"y_true": ["no", "yes", "yes", "no"]}, DataError, "data-labels"),
        ({"method": "between"}, OptionError, "option-method"),
        ({"agg": "median"}, OptionError, "option-agg"),
        ({"sample_weight": [1, 1]}, DataError, "data-lengths"),
        ({"y_true": [], "y_pred": [], "sensitive_features": []}, DataError, "data-empty"),
        ({"sample_weight": [0, 0, 0, 0]}, DataError, "data-empty"),
    ],
)
def test_refusals(change: dict[str, object], error: type[DataError], code: str) -> None:
    """What cannot be measured is refused with a code."""
    arguments = GOOD | change
    y_true, y_pred = arguments.pop("y_true"), arguments.pop("y_pred")
    with pytest.raises(error) as caught:
        fn.metrics.equalized_odds_difference(y_true, y_pred, **arguments)
    assert caught.value.code == code


def test_an_undefined_ratio_is_said() -> None:
    """Nobody is selected: NaN as in fairlearn, and a warning."""
    with pytest.warns(FairNeuronWarning, match="metric-undefined"):
        value = fn.metrics.demographic_parity_ratio(
            [0, 1, 0, 1], [0, 0, 0, 0], sensitive_features=list("aabb")
        )
    assert np.isnan(value)


def test_mean_of_ratios_skips_an_undefined_one() -> None:
    """No false positives anywhere: the mean is the TPR ratio alone, ½, as in fairlearn."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FairNeuronWarning)
        value = fn.metrics.equalized_odds_ratio(
            [0, 1, 1, 0, 1, 1],
            [0, 1, 1, 0, 1, 0],
            sensitive_features=list("aaabbb"),
            agg="mean",
        )
    assert value == 0.5


def test_a_group_without_weight_is_nobody() -> None:
    """The two groups that have weight are selected at ½ each, so there is no gap."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FairNeuronWarning)
        value = fn.metrics.demographic_parity_difference(
            [0, 1, 1, 0, 1, 0],
            [0, 1, 0, 1, 1, 1],
            sensitive_features=list("aabbcc"),
            sample_weight=[1, 1, 1, 1, 0, 0],
        )
    assert value == 0

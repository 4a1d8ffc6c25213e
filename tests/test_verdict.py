"""Verdict: hand-made predictions before and after, and what is concluded from them."""

import json
from itertools import pairwise
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import fairneuron as fn
from fairneuron.data.dataset import Dataset
from fairneuron.errors import OptionError
from fairneuron.limits import check_limit, violation
from fairneuron.metrics.definitions import METRICS
from fairneuron.verdict import IMPROVED, NOT_MET, NOT_RELIABLE, GroupChange, Verdict
from tests.conftest import Says

CALM = settings(max_examples=15, deadline=None, derandomize=True)
Row = tuple[str, int, int, int, int]  # group, label, predicted before, predicted after, people


def people(rows: list[Row]) -> tuple[Says, Says, Dataset]:
    """The two predictors and the data that a table of people describes."""
    group, y, before, after, n = zip(*rows, strict=True)
    data = Dataset.from_arrays(
        np.zeros((sum(n), 1)), np.repeat(y, n), np.repeat(np.array(group), n)
    )
    return Says(np.repeat(before, n)), Says(np.repeat(after, n)), data


def judged(rows: list[Row], limit: dict[str, float], **options: object) -> Verdict:
    """The verdict on a table of people."""
    return fn.judge(*people(rows), limit, **{"on": "test", **options})


def selections(**groups: tuple[int, int, int]) -> list[Row]:
    """Groups of so many people, of whom so many are selected before and after; y plays no part."""
    rows = []
    for name, (n, before, after) in groups.items():
        both, moved = min(before, after), abs(after - before)
        for count, first, second in [
            (both, 1, 1),
            (moved, int(before > after), int(after > before)),
            (n - both - moved, 0, 0),
        ]:
            half = count // 2
            rows += [(name, 1, first, second, half), (name, 0, first, second, count - half)]
    return [row for row in rows if row[-1]]


# 200 people in each group, half of them with y = 1.
#           selected               TPR          FPR         right
# before  A 140/200, B  60/200   .9 and .5    .5 and .1   140 and 140 of 200
# after   A 100/200, B 100/200   .8 and .8    .2 and .2   160 and 160 of 200
BETTER_ALL_OVER: list[Row] = [
    ("A", 1, 1, 1, 80),
    ("A", 1, 1, 0, 10),
    ("A", 1, 0, 0, 10),
    ("A", 0, 1, 1, 20),
    ("A", 0, 1, 0, 30),
    ("A", 0, 0, 0, 50),
    ("B", 1, 1, 1, 50),
    ("B", 1, 0, 1, 30),
    ("B", 1, 0, 0, 20),
    ("B", 0, 1, 1, 10),
    ("B", 0, 0, 1, 10),
    ("B", 0, 0, 0, 80),
]

# All right before, with 100 of 200 people of A selected and 50 of B. Afterwards 75 of each: DP is
# gone, but A's TPR fell to .75, and 50 people of 400 are wrong.
DP_FOR_EO: list[Row] = [
    ("A", 1, 1, 1, 75),
    ("A", 1, 1, 0, 25),
    ("A", 0, 0, 0, 100),
    ("B", 1, 1, 1, 50),
    ("B", 0, 0, 1, 25),
    ("B", 0, 0, 0, 125),
]


# Outcomes


def test_classes() -> None:
    """Accuracies by hand: of both classes 140 of 200 people were right, and 160 are."""
    verdict = judged(BETTER_ALL_OVER, {"mcd": 0.3})
    none, some = verdict.classes
    assert (none.name, none.n, none.before, none.after) == ("0", 200, 0.7, 0.8)
    assert (some.name, some.n, some.before, some.after) == ("1", 200, 0.7, 0.8)
    assert none.rose
    assert some.rose
    assert none.interval is not None
    assert none.interval[0] < 0.1 < none.interval[1]
    assert Verdict.from_dict(json.loads(json.dumps(verdict.to_dict()))) == verdict
    older = {k: v for k, v in verdict.to_dict().items() if k != "classes"}
    assert Verdict.from_dict(older).classes == ()


def test_classes_that_lost_are_told_where_classes_are_limited() -> None:
    """All right before; after, 25 of 150 people with y = 1 are wrong, and 25 of 250 others."""
    verdict = judged(DP_FOR_EO, {"mcd": 0.3})
    told = [f"class 0 (1.000 → {225 / 250:.3f})", f"class 1 (1.000 → {125 / 150:.3f})"]
    assert all(text in verdict.sentence() for text in told)
    assert all(text not in verdict.under({"dp": 0.05}).sentence() for text in told)
    rows: list[Row] = [("A", 0, 0, 0, 100), ("A", 1, 1, 1, 60), ("A", 1, 1, 0, 40)]
    before, after, data = people(rows)
    alone = Dataset.from_arrays(data.x, data.y)
    sentence = fn.judge(before, after, alone, {"mcd": 0.3}, on="test").sentence()
    assert sentence.endswith("Accuracy fell in class 1 (1.000 → 0.600).")


def test_improved() -> None:
    """The gap went, the limit holds: every figure is the one worked out by hand."""
    verdict = judged(BETTER_ALL_OVER, {"dp": 0.05})
    assert verdict.outcome == IMPROVED == "improved"
    assert (verdict.on, verdict.n) == ("test", 400)
    expected = {
        "accuracy": (0.7, 0.8, 0.1),
        "balanced_accuracy": (0.7, 0.8, 0.1),
        "f1": (0.7, 0.8, 0.1),
        "worst_group_accuracy": (0.7, 0.8, 0.1),
        "dp": (0.4, 0, 0.4),
        "dpr": (3 / 7, 1, 4 / 7),
        "eo": (0.4, 0, 0.4),
        "eodds": (0.4, 0, 0.4),
        "cv": (0, 0, 0),
        "mcd": (0, 0, 0),
    }
    found = {name: (c.before, c.after, c.gain) for name, c in verdict.changes.items()}
    assert {name for name in found if name not in ("auc", "abcc")} == expected.keys()
    for name, values in expected.items():
        assert found[name] == pytest.approx(values, abs=1e-12)
    assert verdict.worse == ()
    assert [(c.metric, c.limit, c.met) for c in verdict.limits] == [("dp", 0.05, True)]
    assert verdict.changes["dp"].better
    assert not verdict.changes["dp"].worse


def test_limit_not_met() -> None:
    """The gap is halved reliably, and still above the limit."""
    verdict = judged(selections(A=(200, 140, 120), B=(200, 60, 80)), {"dp": 0.05})
    assert verdict.outcome == NOT_MET == "limit not met"
    assert verdict.changes["dp"].after == pytest.approx(0.2)
    assert verdict.changes["dp"].better
    assert not verdict.changes["dp"].met


def test_no_reliable_improvement() -> None:
    """Two people of 400: the limit holds, and yet nothing is shown."""
    verdict = judged(selections(A=(200, 104, 102), B=(200, 100, 100)), {"dp": 0.05})
    assert verdict.outcome == NOT_RELIABLE == "no reliable improvement"
    assert verdict.changes["dp"].met
    assert verdict.changes["dp"].gain == pytest.approx(0.01)
    assert not verdict.changes["dp"].better


def test_one_limited_metric_better_and_another_worse() -> None:
    """DP went at the cost of EO: an improvement if only DP was asked for, none if both were."""
    assert judged(DP_FOR_EO, {"dp": 0.05}).outcome == IMPROVED
    both = judged(DP_FOR_EO, {"dp": 0.05, "eo": 0.5})
    assert all(change.met for change in both.limits)
    assert both.outcome == NOT_RELIABLE


def test_one_of_two_limits_not_met() -> None:
    """Both gaps went down, but only one below its limit."""
    rows = selections(A=(200, 140, 110), B=(200, 60, 90))
    assert judged(rows, {"dp": 0.2, "dpr": 0.7}).outcome == IMPROVED
    assert judged(rows, {"dp": 0.2, "dpr": 0.9}).outcome == NOT_MET


def test_what_got_worse_is_listed() -> None:
    """The metrics that paid for the repair, and no others."""
    verdict = judged(DP_FOR_EO, {"dp": 0.05})
    worse = {change.metric for change in verdict.worse}
    # A's TPR is .75 and B's FPR 25/150; y = 1 is right for 125 of 150, y = 0 for 225 of 250
    paid = {"accuracy", "balanced_accuracy", "f1", "worst_group_accuracy", "eo", "eodds"}
    assert paid <= worse
    assert not worse & {"dp", "dpr"}
    assert verdict.changes["eo"].gain == pytest.approx(-0.25)
    assert verdict.changes["accuracy"].gain == pytest.approx(-50 / 400)
    assert verdict.changes["eo"].limit is None
    assert verdict.changes["eo"].met


def test_getting_worse_is_no_improvement() -> None:
    """A gap that grows is reliably worse, whatever the limit."""
    rows = [(g, y, after, before, n) for g, y, before, after, n in BETTER_ALL_OVER]
    verdict = judged(rows, {"dp": 0.5})
    assert verdict.outcome == NOT_RELIABLE
    assert verdict.changes["dp"].worse
    assert verdict.changes["dp"].met


@pytest.mark.parametrize("limit", [{"dp": 1.0}, {"dp": 0.0}, {"dpr": 0.5, "eo": 0.5}])
def test_identical_predictors(limit: dict[str, float]) -> None:
    """The same predictions twice are no improvement, even where they meet the limit."""
    before, _, data = people(BETTER_ALL_OVER)
    verdict = fn.judge(before, before, data, limit, on="test")
    assert verdict.outcome == NOT_RELIABLE
    assert {change.gain for change in verdict.changes.values()} == {0}
    assert {change.interval for change in verdict.changes.values()} == {(0, 0)}
    assert verdict.worse == ()
    assert {(flip["to_positive"], flip["from_positive"]) for flip in verdict.flips} == {(0, 0)}


def test_a_change_below_the_noise_floor_is_never_better() -> None:
    """On a test set of COMPAS's size a gain of .013 is noise, however sure its sign; .06 is not."""
    small, large = (
        judged(selections(A=(635, 350, 350 - moved), B=(421, 150, 150)), {"dp": 1})
        for moved in (8, 38)
    )
    for verdict in (small, large):
        assert verdict.changes["dp"].noise_floor == pytest.approx(0.025, rel=0.1)
        assert verdict.changes["dp"].interval[0] > 0
        assert verdict.changes["dpr"].interval[0] > 0
    assert small.changes["dp"].gain == pytest.approx(8 / 635)
    assert not small.changes["dp"].better
    assert not small.changes["dpr"].better
    assert small.outcome == NOT_RELIABLE
    assert large.changes["dp"].gain == pytest.approx(38 / 635)
    assert large.changes["dp"].better
    assert large.outcome == IMPROVED


def test_nor_is_it_worse() -> None:
    """The same in the other direction; an accuracy has no floor, and its interval alone decides."""
    verdict = judged(selections(A=(635, 342, 350), B=(421, 150, 150)), {"dp": 1})
    assert verdict.changes["dp"].interval[1] < 0
    assert not verdict.changes["dp"].worse
    wrong = [("A", 1, 1, 1, 90), ("A", 1, 1, 0, 10), ("A", 0, 0, 0, 100), ("B", 1, 1, 1, 100)]
    accuracy = judged(wrong, {"dp": 1}).changes["accuracy"]
    assert accuracy.noise_floor is None
    assert accuracy.gain == pytest.approx(-10 / 300)
    assert accuracy.worse


# Limits


@pytest.mark.parametrize(
    ("after", "bound", "met"),
    [(100, 0.8, True), (90, 0.8, True), (80, 0.8, False), (80, 0.5, True)],
)
def test_limits_of_the_ratio_are_lower_bounds(after: int, bound: float, met: bool) -> None:
    """DPR 90/110 = .82 is at least .8; 80/120 = .67 is not, but at least .5."""
    rows = selections(A=(200, 140, 200 - after), B=(200, 60, after))
    verdict = judged(rows, {"dpr": bound})
    assert verdict.changes["dpr"].before == pytest.approx(60 / 140)
    assert verdict.changes["dpr"].after == pytest.approx(after / (200 - after))
    assert verdict.changes["dpr"].met is met
    assert verdict.outcome == (IMPROVED if met else NOT_MET)
    assert f", limit ≥ {bound} {'met' if met else 'not met'}." in verdict.sentence()


@pytest.mark.parametrize(
    ("metric", "value", "bound", "beyond"),
    [
        ("dp", 0.3, 0.1, 0.2),
        ("dp", 0.1, 0.1, 0),
        ("dp", 0, 0.1, 0),
        ("dpr", 0.6, 0.8, 0.2),
        ("dpr", 0.8, 0.8, 0),
        ("dpr", 1, 0.8, 0),
    ],
)
def test_violation(metric: str, value: float, bound: float, beyond: float) -> None:
    """How far beyond: above the limit of a gap, below that of a ratio."""
    assert violation(metric, value, bound) == pytest.approx(beyond)


@pytest.mark.parametrize(("after", "outcome"), [(110, IMPROVED), (111, NOT_MET)])
def test_a_gap_at_its_limit_meets_it(after: int, outcome: str) -> None:
    """55 % against 50 % is .05 (and 4e-17, for a computer); one person more is beyond."""
    rows = selections(A=(200, 160, after), B=(200, 40, 100))
    assert judged(rows, {"dp": 0.05}).outcome == outcome


def test_an_undefined_limited_metric() -> None:
    """Nobody is selected any more: the ratio has no value, so its limit is not met."""
    verdict = judged(selections(A=(200, 140, 0), B=(200, 60, 0)), {"dpr": 0.8})
    change = verdict.changes["dpr"]
    assert (change.after, change.gain, change.interval) == (None, None, None)
    assert not change.met
    assert not change.better
    assert verdict.outcome == NOT_RELIABLE
    assert "dpr is undefined before or after, limit ≥ 0.8 not met" in verdict.sentence()
    json.dumps(verdict.to_dict(), allow_nan=False)


def test_check_limit() -> None:
    """Bounds from 0 to 1, integers too, become a dict of floats."""
    checked = check_limit({"dp": 0, "dpr": 1, "eo": 0.05, "eodds": np.float64(0.1)})
    assert checked == {"dp": 0, "dpr": 1, "eo": 0.05, "eodds": 0.1}
    assert {type(bound) for bound in checked.values()} == {float}


@pytest.mark.parametrize(
    "limit",
    [
        {},
        {"accuracy": 0.8},
        {"abcc": 0.1},
        {"demographic parity": 0.1},
        {"dp": 1.01},
        {"dp": -0.01},
        {"dp": float("nan")},
        {"dp": "0.1"},
        {"dp": True},
        {"dp": None},
        {"dp": 0.1, "eo": 2},
    ],
)
def test_limits_that_are_none(limit: dict[str, float]) -> None:
    """No metric, an unknown one, one of no groups or no counts, and bounds outside [0, 1]."""
    with pytest.raises(OptionError) as caught:
        check_limit(limit)
    assert caught.value.code == "option-limit"
    with pytest.raises(OptionError):
        judged(BETTER_ALL_OVER, limit)


def test_a_typo_in_a_limit() -> None:
    """The nearest metric is proposed."""
    with pytest.raises(OptionError, match=r"got 'eods'\. Did you mean 'eodds'\?"):
        check_limit({"eods": 0.1})


# Figures


def noisy(n: int = 500) -> tuple[Says, Says, Dataset]:
    """Scores that favour group b, and the same with half of that taken away."""
    rng = np.random.default_rng(3)
    group = rng.integers(0, 2, n)
    y = (rng.random(n) < 0.4 + 0.15 * group).astype(int)
    scores = 0.3 + 0.2 * y + 0.3 * group + rng.normal(0, 0.2, n)
    before, after = (Says((scores - shift * group > 0.5).astype(float)) for shift in (0, 0.15))
    return before, after, Dataset.from_arrays(np.zeros((n, 1)), y, np.array(list("ab"))[group])


def test_interval_equals_a_paired_bootstrap_of_the_rows() -> None:
    """Of gains among people drawn with replacement, 2.5 % lie below and 2.5 % above."""
    before, after, data = noisy()
    verdict = fn.judge(before, after, data, {"dp": 0.1}, on="test")
    rng = np.random.default_rng(0)
    drawn: dict[str, list[float]] = {name: [] for name in ("dp", "dpr", "eo", "accuracy", "f1")}
    for _ in range(2000):
        rows = rng.integers(0, len(data), len(data))
        part = data.subset(rows)
        first, second = (fn.audit(Says(p.scores[rows]), part).metrics for p in (before, after))
        for name, gains in drawn.items():
            sign = -1 if name in ("dp", "eo") else 1
            gains.append(sign * (second[name] - first[name]))
    for name, gains in drawn.items():
        # shares of 1,000 and of 2,000 draws: the difference has a standard error of .006
        low, high = verdict.changes[name].interval
        assert np.mean(gains < np.float64(low) - 1e-12) == pytest.approx(0.025, abs=0.018)
        assert np.mean(gains > np.float64(high) + 1e-12) == pytest.approx(0.025, abs=0.018)


def test_pairing_pays() -> None:
    """Where few predictions changed, the gain is known better than either gap."""
    before, after, data = people(selections(A=(200, 140, 130), B=(200, 60, 60)))
    low, high = fn.judge(before, after, data, {"dp": 1}, on="test").changes["dp"].interval
    gap_low, gap_high = fn.audit(before, data).intervals["dp"]
    assert high - low < (gap_high - gap_low) / 2
    assert low < 0.05 < high


def test_before_and_after_are_those_of_audits() -> None:
    """Each side and the noise floor are what an audit of that model says."""
    before, after, data = noisy()
    verdict = fn.judge(before, after, data, {"dp": 0.1}, on="test")
    first, second = fn.audit(before, data), fn.audit(after, data)
    for name, change in verdict.changes.items():
        assert change.before == pytest.approx(first.metrics[name])
        assert change.after == pytest.approx(second.metrics[name])
        assert change.noise_floor == first.noise_floor.get(name)


@CALM
@given(st.integers(0, 2**32))
def test_judging_backwards(seed: int) -> None:
    """Exchanging before and after turns every gain and flip round."""
    rng = np.random.default_rng(seed)
    one, other = (Says(rng.integers(0, 2, 60)) for _ in range(2))
    data = Dataset.from_arrays(np.zeros((60, 1)), rng.integers(0, 2, 60), list("abc") * 20)
    there, back = (
        fn.judge(*pair, data, {"dp": 0.1}, on="test") for pair in ((one, other), (other, one))
    )
    for name, change in there.changes.items():
        assert (change.before, change.after) == (
            back.changes[name].after,
            back.changes[name].before,
        )
        if change.gain is not None:
            assert change.gain == pytest.approx(-back.changes[name].gain)
            assert not (change.better and back.changes[name].better)
    for flip, unflip in zip(there.flips, back.flips, strict=True):
        assert flip["to_positive"] == unflip["from_positive"]
        assert flip["from_positive"] == unflip["to_positive"]


def test_flips_per_group() -> None:
    """40 people of A lost a positive prediction, 40 of B gained one."""
    assert judged(BETTER_ALL_OVER, {"dp": 0.05}).flips == (
        {"group": "A", "n": 200, "to_positive": 0, "from_positive": 40},
        {"group": "B", "n": 200, "to_positive": 40, "from_positive": 0},
    )


def test_flips_of_three_classes() -> None:
    """To and from class 1 alone; a change from 0 to 2 is neither. Empty groups are listed."""
    classes = np.eye(3)
    before, after = Says(classes[[0, 0, 1, 1, 2, 2]]), Says(classes[[1, 2, 0, 1, 1, 1]])
    sensitive = [["f", "x"], ["f", "x"], ["f", "x"], ["m", "x"], ["m", "y"], ["m", "y"]]
    data = Dataset.from_arrays(np.zeros((6, 1)), [0, 1, 2, 1, 0, 2], sensitive)
    flips = fn.judge(before, after, data, {"dp": 0.1}, on="test").flips
    assert [tuple(flip.values()) for flip in flips] == [
        ("f & x", 3, 1, 1),
        ("f & y", 0, 0, 0),
        ("m & x", 1, 0, 0),
        ("m & y", 2, 2, 0),
    ]


def test_a_class_that_nobody_has() -> None:
    """A model of three classes on people of two: undefined here as in the audit."""
    scores = np.tile([[0.6, 0.3, 0.1], [0.3, 0.6, 0.1]], (10, 1))
    data = Dataset.from_arrays(np.zeros((20, 1)), [0, 1] * 10, list("ab") * 10)
    assert fn.audit(Says(scores), data).metrics["balanced_accuracy"] is None
    verdict = fn.judge(Says(scores), Says(scores), data, {"dp": 0.1}, on="test")
    assert verdict.changes["balanced_accuracy"].before is None


def test_threshold_and_modules() -> None:
    """Modules are judged as well, and the threshold is on the probability of class 1."""
    data = Dataset.from_arrays(
        np.repeat([[-1.0], [1.0], [2.0]], 40, axis=0), [0, 1] * 60, list("aabb") * 30
    )
    model = nn.Identity()  # probabilities .27, .73 and .88
    selected = []
    for threshold in (0.2, 0.5, 0.8, 0.9):
        verdict = fn.judge(
            Says([0.0] * 120), model, data, {"dp": 1}, on="test", threshold=threshold
        )
        selected.append(sum(flip["to_positive"] for flip in verdict.flips))
    assert selected == [120, 80, 40, 0]
    assert all(more > fewer for more, fewer in pairwise(selected))


def test_same_seed_same_verdict() -> None:
    """Another seed draws other intervals and the same figures."""
    one, same, other = (fn.judge(*noisy(), {"dp": 0.1}, on="test", seed=seed) for seed in (5, 5, 6))
    assert one.to_dict() == same.to_dict()
    assert one.changes["dp"].interval != other.changes["dp"].interval
    assert one.changes["dp"].gain == other.changes["dp"].gain


# Levelling down


def of(verdict: Verdict, group: str, rate: str) -> GroupChange:
    """The change of a rate of a group."""
    (found,) = (c for c in verdict.groups if (c.group, c.rate) == (group, rate))
    return found


def moved(changes: tuple[GroupChange, ...]) -> list[tuple[str, str]]:
    """Which groups and rates they are of."""
    return [(c.group, c.rate) for c in changes]


def test_rates_of_the_groups() -> None:
    """Every rate of every group is the one worked out by hand."""
    verdict = judged(BETTER_ALL_OVER, {"dp": 0.05})
    expected = {
        ("A", "selection_rate"): (0.7, 0.5),
        ("B", "selection_rate"): (0.3, 0.5),
        ("A", "tpr"): (0.9, 0.8),
        ("B", "tpr"): (0.5, 0.8),
        ("A", "fpr"): (0.5, 0.2),
        ("B", "fpr"): (0.1, 0.2),
        ("A", "accuracy"): (0.7, 0.8),
        ("B", "accuracy"): (0.7, 0.8),
    }
    found = {(c.group, c.rate): (c.before, c.after) for c in verdict.groups}
    assert found.keys() == expected.keys()
    for key, values in expected.items():
        assert found[key] == pytest.approx(values)
    assert all((c.rose, c.fell) == (c.after > c.before, c.after < c.before) for c in verdict.groups)
    assert all(c.interval[0] < c.after - c.before < c.interval[1] for c in verdict.groups)


def test_both_sides_meet_in_the_middle() -> None:
    """Rates that rose for one and fell for the other are no levelling in either direction."""
    verdict = judged(BETTER_ALL_OVER, {"dp": 0.05, "eo": 0.1, "eodds": 0.2})
    assert (verdict.levelled_down, verdict.only_raised, verdict.lost_accuracy) == ((), (), ())
    assert "Levelled" not in verdict.sentence()
    assert "Only raised" not in verdict.sentence()


@pytest.mark.parametrize("limit", [{"dp": 0.05}, {"dpr": 0.8}, {"dp": 0.05, "dpr": 0.8}])
def test_levelled_down(limit: dict[str, float]) -> None:
    """A's rate fell to B's, which stayed: improved, and said beside it, once."""
    verdict = judged(selections(A=(200, 140, 60), B=(200, 60, 60)), limit)
    assert verdict.outcome == IMPROVED
    assert moved(verdict.levelled_down) == [("A", "selection_rate")]
    assert verdict.only_raised == ()
    words = "): the selection rate fell in A (0.700 → 0.300), and reliably rose in no group"
    assert verdict.sentence().count(words) == 1


def test_only_raised() -> None:
    """B's rate rose to A's: the harm where y = 1 is one."""
    verdict = judged(selections(A=(200, 140, 140), B=(200, 60, 140)), {"dp": 0.05})
    assert verdict.outcome == IMPROVED
    assert verdict.levelled_down == ()
    assert moved(verdict.only_raised) == [("B", "selection_rate")]
    words = "): the selection rate rose in B (0.300 → 0.700), and reliably fell in no group"
    assert verdict.sentence().count(words) == 1


@pytest.mark.parametrize(
    ("means", "fell", "rose"),
    [
        (
            None,
            "Only lowered (levelled down if y = 1 is favourable)",
            "Only raised (levelled down if y = 1 is harmful)",
        ),
        (
            "favourable",
            "Levelled down (y = 1 is the favourable outcome)",
            "Only raised, no levelling down (y = 1 is the favourable outcome)",
        ),
        (
            "harmful",
            "Only lowered, no levelling down (y = 1 is the harmful outcome)",
            "Levelled down (y = 1 is the harmful outcome)",
        ),
    ],
)
def test_levelling_down_is_a_loss_to_people(means: str | None, fell: str, rose: str) -> None:
    """Fewer favourable or more harmful outcomes; it is said under a condition if nobody said so."""
    down = judged(
        selections(A=(200, 140, 60), B=(200, 60, 60)), {"dp": 0.05}, positive_outcome=means
    )
    up = judged(
        selections(A=(200, 140, 140), B=(200, 60, 140)), {"dp": 0.05}, positive_outcome=means
    )
    assert f" {fell}: the selection rate fell in A" in down.sentence()
    assert f" {rose}: the selection rate rose in B" in up.sentence()
    assert down.to_dict()["positive_outcome"] == means
    restored = Verdict.from_dict(json.loads(json.dumps(down.to_dict()))).under({"dp": 0.1})
    assert f" {fell}: " in restored.sentence()


def test_what_y_means_is_one_of_two() -> None:
    """Another word is refused, in Python and in a file."""
    with pytest.raises(fn.FairNeuronError) as caught:
        judged(BETTER_ALL_OVER, {"dp": 0.05}, positive_outcome="good")
    assert caught.value.code == "option-outcome"
    plain = judged(BETTER_ALL_OVER, {"dp": 0.05}).to_dict()
    with pytest.raises(ValueError, match="favourable, harmful"):
        Verdict.from_dict(plain | {"positive_outcome": "good"})
    del plain["positive_outcome"]  # as in older files
    assert Verdict.from_dict(plain).positive_outcome is None


@pytest.mark.parametrize(
    ("groups", "fell"),
    [
        ({"A": (200, 140, 80), "B": (200, 90, 60)}, ["A", "B"]),  # A more than B
        ({"A": (200, 140, 80), "B": (200, 60, 62)}, ["A"]),  # two more of B are no rise
        ({"A": (200, 140, 80), "B": (200, 60, 80)}, []),
        ({"A": (200, 140, 139), "B": (200, 60, 60)}, []),  # one person is no fall
        ({"A": (200, 140, 140), "B": (200, 60, 20)}, []),  # the gap grew
        ({"A": (200, 140, 80), "B": (200, 100, 100), "C": (200, 60, 60)}, ["A"]),
        ({"A": (200, 140, 90), "B": (200, 100, 130), "C": (200, 60, 60)}, []),  # B rose
        ({"A": (200, 140, 140), "B": (200, 60, 60)}, []),
        ({"A": (200, 110, 70), "B": (200, 50, 10)}, []),  # the same gap, but for 6e-17
    ],
)
def test_when_rates_are_levelled_down(
    groups: dict[str, tuple[int, int, int]], fell: list[str]
) -> None:
    """The gap shrank, a higher rate fell reliably, and none rose reliably."""
    verdict = judged(selections(**groups), {"dp": 0.05})
    assert [c.group for c in verdict.levelled_down] == fell


def test_only_the_rates_that_a_limit_is_about() -> None:
    """The TPR for EO, TPR and FPR for equalised odds, the selection rate for DP."""
    rows: list[Row] = [
        ("A", 1, 1, 1, 50),
        ("A", 1, 1, 0, 40),  # TPR .9 → .5
        ("A", 1, 0, 0, 10),
        ("A", 0, 1, 1, 10),
        ("A", 0, 0, 0, 90),
        ("B", 1, 1, 1, 50),
        ("B", 1, 0, 0, 50),
        ("B", 0, 1, 0, 40),  # FPR .5 → .1
        ("B", 0, 1, 1, 10),
        ("B", 0, 0, 0, 50),
    ]
    assert moved(judged(rows, {"eo": 0.1}).levelled_down) == [("A", "tpr")]
    both = [("A", "tpr"), ("B", "fpr")]
    assert moved(judged(rows, {"eodds": 0.1}).levelled_down) == both
    assert moved(judged(rows, {"eo": 0.1, "eodds": 0.1}).levelled_down) == both
    verdict = judged(rows, {"dp": 0.1})  # .5 and .5, then .3 and .3: there was no gap
    assert verdict.levelled_down == ()
    assert moved(verdict.under({"eodds": 0.1}).levelled_down) == both
    assert "the TPR fell in A (0.900 → 0.500), and" in judged(rows, {"eo": 0.1}).sentence()


def test_groups_that_lost_accuracy() -> None:
    """DP was bought with wrong predictions in both groups, which is said."""
    verdict = judged(DP_FOR_EO, {"dp": 0.05})
    assert moved(verdict.lost_accuracy) == [("A", "accuracy"), ("B", "accuracy")]
    assert verdict.sentence().endswith("Accuracy fell in A (1.000 → 0.875), B (1.000 → 0.875).")
    assert judged(BETTER_ALL_OVER, {"dp": 0.05}).lost_accuracy == ()


def test_rates_without_a_denominator() -> None:
    """B has nobody with y = 1: its TPR is undefined, and nothing is concluded from it."""
    rows: list[Row] = [
        ("A", 1, 1, 0, 50),
        ("A", 0, 1, 0, 50),
        ("A", 0, 1, 1, 50),
        ("B", 0, 0, 0, 90),
        ("B", 0, 1, 1, 10),
    ]
    verdict = judged(rows, {"dp": 0.1, "eo": 0.1})
    missing = of(verdict, "B", "tpr")
    assert (missing.before, missing.after, missing.interval) == (None, None, None)
    assert not missing.rose
    assert not missing.fell
    assert moved(verdict.levelled_down) == [("A", "selection_rate")]
    assert Verdict.from_dict(json.loads(json.dumps(verdict.to_dict()))) == verdict


def test_unknown_and_empty_groups_have_no_changes() -> None:
    """Only groups that are compared and have samples."""
    sensitive = [["f", "x"], ["f", "x"], ["m", "y"], ["m", "y"], ["m", "unknown"]]
    data = Dataset.from_arrays(np.zeros((5, 1)), [0, 1, 0, 1, 1], sensitive)
    verdict = fn.judge(Says([0, 1, 1, 0, 1]), Says([1] * 5), data, {"dp": 0.1}, on="test")
    assert {c.group for c in verdict.groups} == {"f & x", "m & y"}


# Nothing to find


@pytest.mark.parametrize("flips", [1, 3, 4, 5, 6, 8, 11, 16, 40])
def test_flips_of_a_coin_are_no_finding(flips: int) -> None:
    """If every change is as likely to be one up as one down, at most 1 in 20 is called reliable.

    The probability is exact: of as few changes up, and as few down, as are still called reliable.
    Percentiles alone, without the expansion, call 1 in 8 reliable where four changed.
    """
    n, found = 200, 0.0
    for up in range(flips // 2 + 1):
        before, after = np.zeros(n), np.zeros(n)
        after[:up] = before[up:flips] = 1
        if not changed(before, after).fell:
            break
        found += 2 * comb(flips, up) / 2**flips
    assert found <= 0.05
    assert found > 0 or flips < 6  # it is not blind: six changes alike are 1 in 32


def changed(before: np.ndarray, after: np.ndarray) -> GroupChange:
    """The change of the selection rate of one group beside another that stays."""
    n = len(before)
    data = Dataset.from_arrays(
        np.zeros((n + 20, 1)), [0, 1] * (n // 2 + 10), ["A"] * n + ["B"] * 20
    )
    stays = np.repeat([0, 1], 10)
    pair = (Says(np.concatenate([said, stays])) for said in (before, after))
    return of(fn.judge(*pair, data, {"dp": 0.1}, on="test"), "A", "selection_rate")


NULL = {  # sizes of the groups, share that is selected, share of people who are predicted anew
    "two groups": ((300, 200), (0.5, 0.5), 0.3),
    "every prediction anew": ((300, 200), (0.5, 0.5), 1.0),
    "few flips": ((300, 200), (0.5, 0.5), 0.03),
    "a gap that stays": ((300, 200), (0.6, 0.3), 0.2),
    "a small group": ((300, 15), (0.4, 0.4), 0.3),
    "four groups": ((100, 80, 60, 40), (0.6, 0.5, 0.5, 0.4), 0.3),
}


@pytest.mark.parametrize("kind", NULL)
def test_null_predictions_are_rarely_an_improvement(kind: str) -> None:
    """Predictions are drawn anew at the same rates: a true gap stays, whatever a sample shows."""
    sizes, rates, anew = NULL[kind]
    rng = np.random.default_rng(11)
    group = np.repeat(np.arange(len(sizes)), sizes)
    n, draws, improved = len(group), 25, 0
    for seed in range(draws):
        before, again = (rng.random((2, n)) < np.array(rates)[group]).astype(int)
        after = np.where(rng.random(n) < anew, again, before)
        data = Dataset.from_arrays(
            np.zeros((n, 1)), rng.integers(0, 2, n), np.array(list("abcd"))[group]
        )
        verdict = fn.judge(Says(before), Says(after), data, {"dp": 0.02}, on="test", seed=seed)
        best = {name: METRICS[name].best for name in ("dp", "dpr", "eo", "eodds")}
        for limit in (best, *({name: bound} for name, bound in best.items())):
            improved += verdict.under(limit).outcome != NOT_RELIABLE
    assert improved <= 0.05 * 5 * draws


def test_a_gap_that_went_is_seen() -> None:
    """On as many people as in those draws a gap of .3 that went is an improvement every time."""
    rng = np.random.default_rng(12)
    group = np.repeat([0, 1], (300, 200))
    for seed in range(5):
        before = (rng.random(500) < np.array([0.6, 0.3])[group]).astype(int)
        after = np.where(rng.random(500) < 0.6, rng.random(500) < 0.45, before).astype(int)
        data = Dataset.from_arrays(np.zeros((500, 1)), rng.integers(0, 2, 500), group)
        assert (
            fn.judge(Says(before), Says(after), data, {"dp": 0.3}, on="test", seed=seed).outcome
            == IMPROVED
        )


# Words


def test_sentence_of_an_improvement() -> None:
    """Outcome, data, figures, the change with its sign, the limit, and what got worse."""
    sentence = judged(BETTER_ALL_OVER, {"dp": 0.05}, on="validation").sentence()
    low, high = judged(BETTER_ALL_OVER, {"dp": 0.05}).changes["dp"].interval
    assert sentence == (
        "Improved on validation data (n = 400): dp 0.400 → 0.000 "
        f"(change -{high:.3f} to -{low:.3f}), limit ≤ 0.05 met. No other metric got reliably worse."
    )


def test_sentence_with_a_price() -> None:
    """What got worse is named with its figures; an accuracy's change is negative."""
    verdict = judged(DP_FOR_EO, {"dp": 0.05, "eo": 0.1})
    sentence = verdict.sentence()
    assert sentence.startswith("No reliable improvement on test data (n = 400): dp 0.250 → 0.000 (")
    assert "), limit ≤ 0.05 met; eo 0.000 → 0.250 (change +0." in sentence
    assert "), limit ≤ 0.1 not met. Got worse: accuracy 1.000 → 0.875 (change -0." in sentence
    low, high = verdict.changes["accuracy"].interval
    assert f"accuracy 1.000 → 0.875 (change {low:.3f} to {high:.3f})" in sentence


def test_sentence_of_no_change() -> None:
    """No change has no sign, or a plus."""
    before, _, data = people(BETTER_ALL_OVER)
    assert "-0.000" not in fn.judge(before, before, data, {"dp": 0.05}, on="test").sentence()


def test_json() -> None:
    """All of it as plain values; limits only where there is one."""
    verdict = judged(DP_FOR_EO, {"dp": 0.05})
    plain = json.loads(json.dumps(verdict.to_dict(), allow_nan=False))
    assert plain == verdict.to_dict()
    assert (plain["outcome"], plain["on"], plain["n"]) == ("improved", "test", 400)
    assert plain["sentence"] == verdict.sentence()
    assert (plain["changes"]["dp"]["limit"], plain["changes"]["dp"]["met"]) == (0.05, True)
    assert "limit" not in plain["changes"]["eo"]
    assert plain["worse"] == [change.metric for change in verdict.worse]
    assert plain["flips"][0] == {"group": "A", "n": 200, "to_positive": 0, "from_positive": 25}
    assert plain["groups"] == [change.to_dict() for change in verdict.groups]
    assert [c["rate"] for c in plain["groups"][::2]] == ["selection_rate", "tpr", "fpr", "accuracy"]
    assert (plain["levelled_down"], plain["only_raised"]) == ([], [])
    assert plain["lost_accuracy"] == ["A", "B"]


@pytest.mark.parametrize(
    ("rows", "limit"),
    [
        (BETTER_ALL_OVER, {"dp": 0.05}),
        (DP_FOR_EO, {"dp": 0.05, "eo": 0.1}),
        (selections(A=(200, 140, 0), B=(200, 60, 0)), {"dpr": 0.8}),  # undefined afterwards
    ],
)
def test_a_verdict_is_restored_from_its_figures(rows: list[Row], limit: dict[str, float]) -> None:
    """Through JSON and back: equal, with the same words."""
    verdict = judged(rows, limit)
    restored = Verdict.from_dict(json.loads(json.dumps(verdict.to_dict())))
    assert restored == verdict
    assert restored.sentence() == verdict.sentence()
    assert restored.to_dict() == verdict.to_dict()


def broken_verdicts() -> dict[str, dict]:
    """Plain values in which one thing is wrong."""
    plain = judged(BETTER_ALL_OVER, {"dp": 0.05}).to_dict()
    dp = plain["changes"]["dp"]

    def dp_with(**fields: object) -> dict:
        return plain | {"changes": plain["changes"] | {"dp": dp | fields}}

    def flip(**fields: object) -> dict:
        return plain | {"flips": [plain["flips"][0] | fields, plain["flips"][1]]}

    def rate(**fields: object) -> dict:
        return plain | {"groups": [plain["groups"][0] | fields, *plain["groups"][1:]]}

    return {
        **{
            f"without {name}": {k: v for k, v in plain.items() if k != name}
            for name in plain
            if name not in ("positive_outcome", "classes")
        },
        "nothing": {},
        "a list": [],
        "None": None,
        "another outcome": plain | {"outcome": "limit not met"},
        "an outcome of its own": plain | {"outcome": "fair"},
        "more": plain | {"more": 1},
        "n as text": plain | {"n": "400"},
        "n with a fraction": plain | {"n": 400.5},
        "on": plain | {"on": 3},
        "an unknown metric": plain | {"changes": plain["changes"] | {"beauty": dp}},
        "a metric less": plain | {"changes": {"dp": dp}},
        "changes as a list": plain | {"changes": list(plain["changes"])},
        "a text as a number": dp_with(after="0.1"),
        "NaN": dp_with(after=float("nan")),
        "infinity": dp_with(gain=float("inf")),
        "a truth as a number": dp_with(before=True),
        "half an interval": dp_with(interval=[0.1]),
        "an interval of texts": dp_with(interval="ab"),
        "no interval": dp_with(interval=3),
        "met or not": dp_with(met=False),
        "another metric worse": plain | {"worse": ["auc"]},
        "a flip without group": flip(group=None),
        "a flip in part": flip(n=0.5),
        "a flip with more": flip(more=1),
        "flips as a number": plain | {"flips": 3},
        "a rate of no group": rate(group=None),
        "a rate of its own": rate(rate="beauty"),
        "a rate as text": rate(before="0.1"),
        "a rate that is infinite": rate(after=float("inf")),
        "half an interval of a rate": rate(interval=[0.1]),
        "a rate with more": rate(more=1),
        "rates as a number": plain | {"groups": 3},
        "levelled down or not": plain | {"levelled_down": ["selection_rate"]},
        "raised or not": plain | {"only_raised": ["selection_rate"]},
        "a class without name": plain | {"classes": [plain["classes"][0] | {"class": 3}]},
        "a class with half a sample": plain | {"classes": [plain["classes"][0] | {"n": 0.5}]},
        "a class with more": plain | {"classes": [plain["classes"][0] | {"more": 1}]},
        "classes as a number": plain | {"classes": 3},
        "another group lost": plain | {"lost_accuracy": ["A"]},
    }


@pytest.mark.parametrize("plain", broken_verdicts().values(), ids=broken_verdicts())
def test_anything_else_is_no_verdict(plain: object) -> None:
    """Nothing is guessed: KeyError, ValueError or TypeError."""
    with pytest.raises((KeyError, ValueError, TypeError)):
        Verdict.from_dict(plain)


def test_a_verdict_of_an_older_format() -> None:
    """Without changes of the groups it is refused by what it lacks."""
    plain = judged(BETTER_ALL_OVER, {"dp": 0.05}).to_dict()
    for name in ("groups", "levelled_down", "only_raised", "lost_accuracy"):
        del plain[name]
    with pytest.raises(ValueError, match="without changes of the groups, as before format 3"):
        Verdict.from_dict(plain)


def test_words_may_change_with_the_version() -> None:
    """The sentence is made anew from the figures."""
    plain = judged(BETTER_ALL_OVER, {"dp": 0.05}).to_dict()
    restored = Verdict.from_dict(plain | {"sentence": "Older words."})
    assert restored.sentence() == plain["sentence"]


@pytest.mark.parametrize("rows", [BETTER_ALL_OVER, DP_FOR_EO])
@pytest.mark.parametrize(
    "limit", [{"dp": 0.05}, {"dp": 0.05, "eo": 0.5}, {"eo": 0.1}, {"dpr": 0.9, "eodds": 0.0}]
)
def test_under_another_limit(rows: list[Row], limit: dict[str, float]) -> None:
    """The same as judging again under it."""
    verdict = judged(rows, {"dp": 1.0})
    assert verdict.under(limit) == judged(rows, limit)
    assert verdict.under(limit).under({"dp": 1.0}) == verdict


def test_under_what_is_no_limit() -> None:
    """Refused as everywhere."""
    with pytest.raises(OptionError):
        judged(BETTER_ALL_OVER, {"dp": 1.0}).under({"accuracy": 0.5})


def test_scores_that_got_worse_are_noticed() -> None:
    """The same decisions, but above and below the threshold the ranking is lost: AUC got worse."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 2000)
    data = Dataset.from_arrays(np.zeros((2000, 1)), y, rng.integers(0, 2, 2000))
    score = np.clip(y * 0.3 + rng.uniform(0, 0.7, 2000), 0, 1)
    flat = np.where(score >= 0.5, 0.75, 0.25)
    verdict = fn.judge(Says(score), Says(flat), data, {"dp": 0.05}, on="test")
    auc = verdict.changes["auc"]
    assert "auc" in [c.metric for c in verdict.worse]
    assert auc.interval[0] < auc.gain < auc.interval[1] < 0
    assert verdict.changes["accuracy"].gain == 0
    assert auc.before == pytest.approx(fn.audit(Says(score), data).metrics["auc"])

"""FairNeuronClassifier: scikit-learn's own checks, routing, repairs, tables, copies."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
from sklearn.base import clone
from sklearn.metrics import make_scorer
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import fairneuron as fn
from tests.conftest import made_up

SMALL: dict[str, Any] = {"hidden": (12, 12), "epochs": 10, "batch_size": 32, "random_state": 0}
QUICK: dict[str, Any] = {
    "epochs": 3,
    "repair_options": {
        "neuron_share": 1.0,
        "strengths": 0.7,
        "schedule": fn.Schedule(epochs=2, plateau=None),
    },
}
"""Where it does not matter how good the repair is."""
NAMES = ["first", "second", "third", "fourth", "group"]


def classifier(**changes: Any) -> fn.FairNeuronClassifier:
    """A small one."""
    return fn.FairNeuronClassifier(**(SMALL | changes))


@pytest.fixture(scope="module")
def people() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inputs, labels and groups."""
    data = made_up(800)
    return data.x.numpy().astype(float), data.y, np.array(data.group_names)[data.group]


@pytest.fixture(scope="module")
def repaired(people: tuple[np.ndarray, ...]) -> fn.FairNeuronClassifier:
    """Fitted with groups."""
    x, y, group = people
    return classifier().fit(x, y, sensitive_features=group)


@parametrize_with_checks([fn.FairNeuronClassifier()])
def test_scikit_learns_own_checks(estimator: Any, check: Any) -> None:
    """All of them, with the defaults."""
    check(estimator)


# The repair


def test_the_gap_is_repaired(people: tuple[np.ndarray, ...], repaired: Any) -> None:
    """With groups the gap is smaller than without; what was found is there."""
    x, y, group = people
    plain = classifier().fit(x, y)
    assert plain.repair_ is None
    assert plain.audit_ is None
    gaps = [
        fn.metrics.demographic_parity_difference(y, c.predict(x), sensitive_features=group)
        for c in (plain, repaired)
    ]
    assert gaps[0] > 0.3
    assert gaps[1] < gaps[0] / 2
    assert repaired.repair_.limit == {"dp": 0.05}
    assert repaired.repair_.verdict.outcome == "improved"
    assert repaired.audit_.metrics["dp"] < 0.15
    assert repaired.audit_.counts.sum() == round(len(x) / 8)
    assert repaired.audit_.group_names == ("A", "B")


def test_a_limit_without_groups_is_told(people: tuple[np.ndarray, ...]) -> None:
    """Who forgets the groups, or to pass them on, hears of it."""
    x, y, _ = people
    with pytest.warns(fn.FairNeuronWarning, match="Without sensitive_features nothing is repaired"):
        classifier(limit={"dp": 0.1}, epochs=1).fit(x, y)


def test_options_of_the_repair(people: tuple[np.ndarray, ...]) -> None:
    """The limit, the recipe and further options reach it."""
    x, y, group = people
    found = classifier(
        limit={"eo": 0.1},
        recipe="paper",
        repair_options={"theta": 0.01, "schedule": fn.Schedule(epochs=2)},
    ).fit(x, y, sensitive_features=group)
    assert found.repair_.limit == {"eo": 0.1}
    assert found.repair_.recipe.theta == 0.01


def test_what_is_kept_is_what_predicts(people: tuple[np.ndarray, ...], repaired: Any) -> None:
    """network_ reads standardised inputs; its class 1 is classes_[1]."""
    x, y, group = people
    data = fn.Dataset.from_arrays(repaired.scaler_.transform(x), y, group)
    found = fn.audit(repaired.network_, data)
    predicted = repaired.predict(x)
    gap = fn.metrics.demographic_parity_difference(y, predicted, sensitive_features=group)
    assert found.metrics["dp"] == pytest.approx(gap, abs=1e-12)
    assert found.metrics["accuracy"] == pytest.approx(repaired.score(x, y), abs=1e-12)


@pytest.mark.parametrize("pos_label", [None, 0])
def test_the_threshold_of_the_repair_decides(
    people: tuple[np.ndarray, ...], pos_label: int | None
) -> None:
    """It is on the probability of the positive class, in the audit and in predictions."""
    x, y, group = people
    found = classifier(**QUICK | {"repair_options": {"threshold": 0.8}}, pos_label=pos_label)
    found.fit(x, y, sensitive_features=group)
    column = 1 if pos_label is None else 0
    positive = found.predict(x) == found.classes_[column]
    assert (positive == (found.predict_proba(x)[:, column] >= 0.8)).all()
    assert (positive != (found.predict_proba(x)[:, column] >= 0.5)).any()
    selected = found.audit_.counts[:, :, 1].sum() / found.audit_.counts.sum()
    assert selected == pytest.approx(positive.mean(), abs=0.1)


def test_pos_label_is_whose_rates_are_compared(people: tuple[np.ndarray, ...]) -> None:
    """Class 1 of the network and of the audit; predictions keep the order of classes_."""
    x, y, group = people
    words = np.array(["declined", "paid"])[y]
    found = classifier(pos_label="declined").fit(x, words, sensitive_features=group)
    assert found.classes_.tolist() == ["declined", "paid"]
    assert found.audit_.metrics["accuracy"] > 0.6
    assert found.score(x, words) > 0.6
    proba = found.predict_proba(x)
    assert ((proba[:, 1] > 0.5) == (found.decision_function(x) > 0)).all()
    assert (found.predict(x) == found.classes_[proba.argmax(1)]).all()
    rows = {row["group"]: row for row in found.audit_.groups}
    declined = sum(row["positive"] for row in rows.values()) / found.audit_.counts.sum()
    assert declined == pytest.approx((words == "declined").mean(), abs=0.02)


@pytest.mark.parametrize("pos_label", [None, "c"])
def test_several_classes(people: tuple[np.ndarray, ...], pos_label: str | None) -> None:
    """Class logits; the repair compares the rates of one class."""
    x, _, group = people
    words = np.array(list("abc"))[np.digitize(x[:, 0] + x[:, 1], [0, 1.5])]
    found = classifier(**QUICK, pos_label=pos_label).fit(x, words, sensitive_features=group)
    assert found.predict_proba(x).shape == (len(x), 3)
    np.testing.assert_allclose(found.predict_proba(x).sum(1), 1)
    assert found.score(x, words) > 0.6
    compared = found.audit_.counts[:, 1].sum() / found.audit_.counts.sum()
    assert compared == pytest.approx((words == (pos_label or "b")).mean(), abs=0.03)


def test_intersections_and_names(people: tuple[np.ndarray, ...]) -> None:
    """Two columns mean their intersections; their names are those of the table."""
    x, y, group = people
    age = np.array(["young", "old"])[np.arange(len(x)) % 2]
    table = pd.DataFrame({"sex": group, "age": age})
    for given in (table, pl.from_pandas(table)):
        found = classifier(**QUICK).fit(x, y, sensitive_features=given).audit_
        assert found.sensitive_names == ("sex", "age")
        assert len(found.group_names) == 4
    alone = classifier(**QUICK).fit(x, y, sensitive_features=table["sex"]).audit_
    assert alone.sensitive_names == ("sex",)
    plain = classifier(**QUICK).fit(x, y, sensitive_features=list(group)).audit_
    assert plain.sensitive_names == ("sensitive",)


def test_people_without_a_group_are_not_compared(people: tuple[np.ndarray, ...]) -> None:
    """None is no group of its own, and not the text "None"."""
    x, y, group = people
    holes = group.astype(object)
    holes[::7] = None
    with pytest.warns(fn.FairNeuronWarning, match="data-group-missing"):
        found = classifier(**QUICK).fit(x, y, sensitive_features=holes)
    assert dict(zip(found.audit_.group_names, found.audit_.compared, strict=True)) == {
        "A": True,
        "B": True,
        "unknown": False,
    }


# Weights, copies, order


@pytest.mark.parametrize("with_groups", [False, True])
def test_same_seed_same_result(people: tuple[np.ndarray, ...], with_groups: bool) -> None:
    """To the bit, whatever the order of the rows; another seed gives another network."""
    x, y, group = people
    order = np.random.default_rng(1).permutation(len(x))
    given = {"sensitive_features": group} if with_groups else {}
    moved = {name: values[order] for name, values in given.items()}
    one = classifier(**QUICK).fit(x, y, **given).decision_function(x)
    again = classifier(**QUICK).fit(x[order], y[order], **moved).decision_function(x)
    other = classifier(**QUICK, random_state=1).fit(x, y, **given).decision_function(x)
    assert (one == again).all()
    assert (one != other).any()


def test_weights_are_copies(people: tuple[np.ndarray, ...]) -> None:
    """A weight of 3 is three rows and 0 none, on more rows than a batch holds."""
    x, y, _ = people
    weight = np.random.default_rng(0).integers(0, 4, len(x))
    weighted = classifier(**QUICK).fit(x, y, sample_weight=weight)
    copies = classifier(**QUICK).fit(np.repeat(x, weight, 0), np.repeat(y, weight))
    assert (weighted.decision_function(x) == copies.decision_function(x)).all()
    alike = classifier(**QUICK).fit(x, y, sample_weight=np.full(len(x), 7.0))
    plain = classifier(**QUICK).fit(x, y)
    assert (alike.decision_function(x) == plain.decision_function(x)).all()
    assert (alike.decision_function(x) != weighted.decision_function(x)).any()


def test_weights_reach_the_repair(people: tuple[np.ndarray, ...]) -> None:
    """Rows of weight 0 are nobody; other weights change what is trained, not who is counted."""
    x, y, group = people
    weight = np.where(np.arange(len(x)) < 100, 0.0, 1.0)
    some = classifier(**QUICK).fit(x, y, sensitive_features=group, sample_weight=weight)
    rest = classifier(**QUICK).fit(x[100:], y[100:], sensitive_features=group[100:])
    assert (some.decision_function(x) == rest.decision_function(x)).all()
    weight = np.where(y == 1, 5.0, 1.0)
    heavy = classifier(**QUICK).fit(x, y, sensitive_features=group, sample_weight=weight)
    assert heavy.audit_.counts.sum() == round(len(x) / 8)
    assert heavy.predict(x).mean() > rest.predict(x).mean()


def test_copies_of_a_row_stay_together(people: tuple[np.ndarray, ...]) -> None:
    """All three copies of a person are validated or trained on, and each is counted."""
    x, y, group = (np.repeat(part, 3, axis=0) for part in people)
    found = classifier(**QUICK).fit(x, y, sensitive_features=group)
    assert (found.audit_.counts % 3 == 0).all()
    assert found.audit_.counts.sum() == 3 * round(len(people[0]) / 8)


def test_too_few_rows_for_validation() -> None:
    """All of them train; with groups, that is refused."""
    x, y = np.arange(8.0).reshape(-1, 1), [0, 0, 0, 0, 1, 1, 1, 1]
    found = classifier(epochs=100, learning_rate=0.05, patience=None).fit(x, y)
    assert found.score(x, y) == 1
    with pytest.raises(fn.FairNeuronError, match="data need samples of two classes"):
        classifier().fit(x, y, sensitive_features=list("abababab"))


# Tables and copies


@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame])
def test_tables(people: tuple[np.ndarray, ...], frame: Any) -> None:
    """Names of inputs are kept, told to the repair, and checked in predictions."""
    x, y, group = people
    table = frame(dict(zip(NAMES, x.T, strict=True)))
    found = classifier(**QUICK).fit(table, frame({"y": y})["y"], sensitive_features=group)
    assert found.feature_names_in_.tolist() == NAMES
    arrays = classifier(**QUICK).fit(x, y, sensitive_features=group)
    assert (found.decision_function(table) == arrays.decision_function(x)).all()
    with pytest.raises(ValueError, match="feature names should match"):
        found.predict(frame(dict(zip(NAMES[::-1], x.T, strict=True))))
    with pytest.raises(ValueError, match="has 4 features, but"):
        arrays.predict(x[:, :4])


def test_copies_predict_the_same(people: tuple[np.ndarray, ...], repaired: Any) -> None:
    """After pickling, and after cloning and fitting again; a clone is not fitted."""
    x, y, group = people
    one = repaired.decision_function(x)
    back = pickle.loads(pickle.dumps(repaired))  # noqa: S301  # our own
    assert (back.decision_function(x) == one).all()
    assert back.repair_.limit == repaired.repair_.limit
    fresh = clone(repaired)
    assert not hasattr(fresh, "network_")
    with pytest.raises(sklearn.exceptions.NotFittedError):
        fresh.predict(x)
    assert (fresh.fit(x, y, sensitive_features=group).decision_function(x) == one).all()


def test_large_offsets_do_not_matter(people: tuple[np.ndarray, ...]) -> None:
    """Inputs are standardised in double precision, before float32 could lose them."""
    x, y, _ = people
    moved = classifier(epochs=5).fit(x + 1e9, y)
    assert moved.score(x + 1e9, y) > 0.7


# Routing


@pytest.fixture
def routing() -> Any:
    """Metadata routing, for one test."""
    with sklearn.config_context(enable_metadata_routing=True):
        yield


@pytest.mark.usefixtures("routing")
def test_groups_go_through_a_pipeline(people: tuple[np.ndarray, ...]) -> None:
    """They reach the fit of the last step."""
    x, y, group = people
    last = classifier(**QUICK).set_fit_request(sensitive_features=True)
    found = make_pipeline(MinMaxScaler(), last).fit(x, y, sensitive_features=group)
    assert found[-1].audit_.counts.sum() == round(len(x) / 8)


@pytest.mark.usefixtures("routing")
def test_a_search_with_groups_and_a_scorer_of_the_gap(people: tuple[np.ndarray, ...]) -> None:
    """GridSearchCV gives each fold its groups, in the fit and in the scorer."""
    x, y, group = people
    gap = make_scorer(fn.metrics.demographic_parity_difference, greater_is_better=False)
    gap.set_score_request(sensitive_features=True)
    grid = GridSearchCV(
        classifier(
            epochs=5, repair_options={"neuron_share": 1.0, "strengths": 0.7}
        ).set_fit_request(sensitive_features=True),
        {"limit": [{"dp": 0.05}, {"dp": 0.9}]},
        scoring={"gap": gap, "accuracy": "accuracy"},
        refit="gap",
        cv=2,
    ).fit(x, y, sensitive_features=group)
    assert grid.best_params_ == {"limit": {"dp": 0.05}}
    assert grid.best_estimator_.repair_ is not None
    close, wide = -grid.cv_results_["mean_test_gap"]
    assert close < wide


@pytest.mark.usefixtures("routing")
def test_cross_validation_with_groups_and_weights(people: tuple[np.ndarray, ...]) -> None:
    """Each fold has its own rows of both; not asking for groups is an error of scikit-learn's."""
    x, y, group = people
    asked = classifier(**QUICK).set_fit_request(sensitive_features=True, sample_weight=True)
    asked.set_score_request(sample_weight=False)
    params = {"sensitive_features": pd.Series(group, name="sex"), "sample_weight": np.ones(len(x))}
    found = cross_validate(asked, x, y, cv=2, params=params, return_estimator=True)
    assert (found["test_score"] > 0.5).all()
    assert {e.audit_.sensitive_names for e in found["estimator"]} == {("sex",)}
    with pytest.raises(sklearn.exceptions.UnsetMetadataPassedError):
        cross_validate(classifier().set_fit_request(sample_weight=True), x, y, cv=2, params=params)


def test_without_routing_it_is_a_plain_classifier(people: tuple[np.ndarray, ...]) -> None:
    """In cross validation, with boolean labels."""
    x, y, _ = people
    predicted = cross_val_predict(classifier(epochs=5), x, y.astype(bool), cv=2)
    assert predicted.dtype == bool
    assert (predicted == y).mean() > 0.7


# Refusals


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"pos_label": "yes"}, ValueError, "pos_label='yes' is not one of the classes"),
        ({"epochs": 0}, fn.FairNeuronError, "epochs must lie in"),
        ({"validation_fraction": 1.0}, fn.FairNeuronError, "validation_fraction must lie in"),
        ({"limit": {"accuracy": 0.9}}, fn.FairNeuronError, "limited metric"),
        ({"recipe": "none"}, fn.FairNeuronError, "recipe"),
        ({"repair_options": {"gama": 0.9}}, fn.FairNeuronError, "gamma|Known"),
    ],
)
def test_bad_settings(
    people: tuple[np.ndarray, ...], changes: dict[str, Any], error: type[Exception], match: str
) -> None:
    """They are refused in fit, before any training."""
    x, y, group = people
    with pytest.raises(error, match=match):
        classifier(**changes).fit(x, y, sensitive_features=group)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"sensitive_features": ["a", "b"]}, "inconsistent numbers of samples"),
        ({"sample_weight": -np.ones(800)}, "[Nn]egative"),
        ({"sample_weight": np.zeros(800)}, "zero"),
        ({"y": np.ones(800)}, "at least 2 classes"),
        ({"y": np.linspace(0, 1, 800)}, "Unknown label type"),
        ({"X": np.full((800, 2), np.nan)}, "contains NaN"),
    ],
)
def test_bad_data(people: tuple[np.ndarray, ...], changes: dict[str, Any], match: str) -> None:
    """In scikit-learn's words."""
    x, y, group = people
    with pytest.raises(ValueError, match=match):
        classifier().fit(**({"X": x, "y": y, "sensitive_features": group} | changes))


def test_one_group_alone(people: tuple[np.ndarray, ...]) -> None:
    """There is nothing to compare."""
    x, y, _ = people
    with pytest.raises(fn.FairNeuronError) as caught:
        classifier(**QUICK).fit(x, y, sensitive_features=["A"] * len(x))
    assert caught.value.code == "data-single-group"

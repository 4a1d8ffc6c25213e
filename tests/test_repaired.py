"""RepairedClassifier: trained torch modules and fitted skorch classifiers, repaired."""

import copy
import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from torch import nn
from torch.nn import functional

import fairneuron as fn
from fairneuron.forward import one_thread
from fairneuron.repaired import _loss_of

from .conftest import made_up

DATA = made_up(800)
X, Y = DATA.x.numpy(), DATA.y
GROUP = np.array(DATA.group_names)[DATA.group]
QUICK: dict[str, Any] = {"repair_options": {"neuron_share": 1.0, "strengths": 0.7}}


class Net(nn.Module):
    """Two hidden layers; ends in what it is told to."""

    def __init__(self, outputs: int = 1, end: nn.Module | None = None, squeeze: bool = False):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(5, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU())
        self.last, self.end, self.squeeze = nn.Linear(12, outputs), end, squeeze

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits, or what the end makes of them."""
        out = self.last(self.body(x))
        out = out if self.end is None else self.end(out)
        return out.squeeze(-1) if self.squeeze else out


class FunctionalEnd(Net):
    """Ends in a softmax that is no module."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Probabilities."""
        return functional.softmax(super().forward(x), dim=1)


def one_logit(y: np.ndarray = Y) -> Net:
    """A network that was trained on the labels."""
    torch.manual_seed(0)
    net = Net()
    x, target = torch.from_numpy(X), torch.from_numpy(y).float()
    optimiser = torch.optim.Adam(net.parameters(), lr=0.02)
    for _ in range(100):
        optimiser.zero_grad()
        functional.binary_cross_entropy_with_logits(net(x)[:, 0], target).backward()
        optimiser.step()
    return net


TRAINED = one_logit()


def with_end(end: nn.Module, outputs: int = 1) -> Net:
    """The trained network with another end, of the same probabilities."""
    net = Net(outputs, end)
    net.body.load_state_dict(TRAINED.body.state_dict())
    with torch.no_grad():
        net.last.weight.zero_()[-1] = TRAINED.last.weight[0]
        net.last.bias.zero_()[-1] = TRAINED.last.bias[0]
    return net


def skorch_net(kind: Any = NeuralNetBinaryClassifier, **options: Any) -> Any:
    """Fitted on the data."""
    torch.manual_seed(0)
    settings = {"max_epochs": 8, "lr": 0.02, "optimizer": torch.optim.Adam, "verbose": 0}
    settings["callbacks__print_log"] = None  # it holds print, which Ray may have replaced
    net = kind(**{"module": Net, "module__squeeze": kind is NeuralNetBinaryClassifier}
               | settings | options)  # fmt: skip
    return net.fit(X, Y.astype(np.float32) if kind is NeuralNetBinaryClassifier else Y)


SOFTMAX = {"module__outputs": 2, "module__end": nn.Softmax(dim=-1)}
FITTED = {
    "NLLLoss": lambda: skorch_net(NeuralNetClassifier, **SOFTMAX),
    "CrossEntropyLoss": lambda: skorch_net(
        NeuralNetClassifier, module__outputs=2, criterion=nn.CrossEntropyLoss
    ),
    "BCEWithLogitsLoss": skorch_net,
    "BCELoss": lambda: skorch_net(criterion=nn.BCELoss, module__end=nn.Sigmoid()),
}


def gap(classifier: Any) -> float:
    """DP of its predictions."""
    return fn.metrics.demographic_parity_difference(
        Y, classifier.predict(X), sensitive_features=GROUP
    )


def repaired(estimator: Any, **options: Any) -> fn.RepairedClassifier:
    """Fitted with all data."""
    return fn.RepairedClassifier(estimator, random_state=0, **options).fit(
        X, Y, sensitive_features=GROUP
    )


@pytest.fixture(scope="module")
def found() -> fn.RepairedClassifier:
    """Of the trained module."""
    return repaired(TRAINED)


@pytest.fixture(scope="module", autouse=True)
def one_core() -> Iterator[None]:
    """Threads would only wait for each other on networks this small."""
    with one_thread():
        yield


@pytest.fixture
def routing() -> Any:
    """Metadata routing, for one test."""
    with sklearn.config_context(enable_metadata_routing=True):
        yield


# Modules


def test_a_module_is_repaired(found: fn.RepairedClassifier) -> None:
    """The gap shrinks; what is handed back is of the same class, and the given one is as it was."""
    before = copy.deepcopy(TRAINED.state_dict())
    given = (TRAINED(torch.from_numpy(X))[:, 0] > 0).numpy().astype(int)
    gap_before = fn.metrics.demographic_parity_difference(Y, given, sensitive_features=GROUP)
    assert gap_before > 0.3
    assert gap(found) < gap_before / 2
    assert found.verdict_.outcome == "improved"
    assert found.verdict_ is found.repair_.verdict
    assert found.audit_.counts.sum() == 100
    assert type(found.module_) is Net
    assert found.module_ is found.estimator_
    assert found.module_.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in TRAINED.state_dict().items())


def test_it_predicts_what_its_module_says(found: fn.RepairedClassifier) -> None:
    """Probabilities are the sigmoid of the module's logits; labels are cut at a half."""
    with torch.no_grad():
        score = found.module_(torch.from_numpy(X))[:, 0].double().sigmoid().numpy()
    np.testing.assert_allclose(found.predict_proba(X), np.stack([1 - score, score], 1), atol=1e-12)
    assert (found.predict(X) == (score >= 0.5)).all()
    assert found.score(X, Y) == (found.predict(X) == Y).mean()


@pytest.mark.parametrize(
    ("end", "outputs"), [(nn.Sigmoid(), 1), (nn.Softmax(dim=1), 2), (nn.LogSoftmax(dim=-1), 2)]
)
def test_a_last_sigmoid_or_softmax_stays(end: nn.Module, outputs: int) -> None:
    """The module is repaired without it, and has it again."""
    net = with_end(end, outputs)
    classifier = repaired(net, **QUICK)
    assert gap(classifier) < 0.2
    assert type(classifier.module_.end) is type(end)
    assert classifier.module_.state_dict().keys() == net.state_dict().keys()
    with torch.no_grad():
        out = classifier.module_(torch.from_numpy(X)).double().numpy()
    own = np.exp(out) if isinstance(end, nn.LogSoftmax) else out
    np.testing.assert_allclose(classifier.predict_proba(X)[:, -1], own[:, -1], atol=1e-6)
    assert (classifier.repair_.model.end.forward(torch.ones(1)) == 1).all()  # it returns logits


def test_a_sigmoid_inside_is_none_of_the_end() -> None:
    """A network with sigmoids as activations is repaired as it is."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 8), nn.Sigmoid(), nn.Linear(8, 1))
    nn.init.constant_(net[2].bias, -0.1)
    nn.init.normal_(net[2].weight)
    classifier = repaired(net, **QUICK)
    assert isinstance(classifier.module_[1], nn.Sigmoid)
    assert isinstance(classifier.repair_.model[1], nn.Sigmoid)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_precision_and_layers(dtype: torch.dtype) -> None:
    """Precision is kept; batch norm and dropout are fine."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 1)
    ).to(dtype)
    classifier = repaired(net, **QUICK)
    assert classifier.module_[0].weight.dtype == dtype
    assert classifier.module_.training == net.training
    assert classifier.predict_proba(X).dtype == np.float64


def test_labels_may_be_texts(found: fn.RepairedClassifier) -> None:
    """Outputs are in the order of the sorted labels."""
    words = np.array(["declined", "paid"])[Y]
    classifier = fn.RepairedClassifier(TRAINED, random_state=0)
    classifier.fit(X, words, sensitive_features=GROUP)
    assert classifier.classes_.tolist() == ["declined", "paid"]
    assert (classifier.predict(X) == np.array(["declined", "paid"])[found.predict(X)]).all()
    assert classifier.score(X, words) > 0.6


def test_labels_the_other_way_round_are_told() -> None:
    """Where the network is mostly wrong, its outputs are probably in another order."""
    with pytest.warns(fn.FairNeuronWarning, match=r"is right on .* 'a'.*\[model-labels\]"):
        fn.RepairedClassifier(TRAINED, **QUICK).fit(
            X, np.array(["a", "B"])[Y], sensitive_features=GROUP
        )


def test_three_classes() -> None:
    """Class logits; a class that is not in the data keeps its output."""
    torch.manual_seed(0)
    labels = np.digitize(X[:, 0] + X[:, 1], [0, 1.5])
    net = Net(3)
    classifier = fn.RepairedClassifier(net, random_state=0, **QUICK)
    classifier.fit(X, labels, sensitive_features=GROUP)
    assert classifier.predict_proba(X).shape == (len(X), 3)
    np.testing.assert_allclose(classifier.predict_proba(X).sum(1), 1)
    two = fn.RepairedClassifier(net, random_state=0, **QUICK)
    assert two.fit(X, Y, sensitive_features=GROUP).classes_.tolist() == [0, 1, 2]


def test_rows_to_choose_by(found: fn.RepairedClassifier) -> None:
    """Those that are marked; a row of weight 0 is nobody."""
    rows = np.arange(len(X)) >= 600
    weight = np.where(np.arange(len(X)) % 300 == 0, 0.0, 1.0)
    classifier = fn.RepairedClassifier(TRAINED, random_state=0, **QUICK)
    classifier.fit(X, Y, sensitive_features=GROUP, sample_weight=weight, validation=rows)
    assert classifier.audit_.counts.sum() == 199
    np.testing.assert_array_equal(
        classifier.audit_.counts.sum((1, 2)),
        [((g == GROUP) & rows & (weight > 0)).sum() for g in "AB"],
    )
    assert found.audit_.counts.sum() == 100


def test_names_of_inputs() -> None:
    """They are kept, told to the repair, and checked in predictions."""
    table = pd.DataFrame(X, columns=list("vwxyz"))
    classifier = fn.RepairedClassifier(TRAINED, random_state=0, **QUICK)
    classifier.fit(table, pd.Series(Y), sensitive_features=pd.Series(GROUP, name="sex"))
    assert classifier.feature_names_in_.tolist() == list("vwxyz")
    assert classifier.audit_.sensitive_names == ("sex",)
    with pytest.raises(ValueError, match="feature names should match"):
        classifier.predict(table[list("zyxwv")])


def test_the_threshold_is_that_of_the_repair() -> None:
    """In the audit and in the predictions."""
    options = QUICK["repair_options"] | {"threshold": 0.8}
    classifier = repaired(TRAINED, repair_options=options)
    assert classifier.repair_.threshold == 0.8
    assert (classifier.predict(X) == (classifier.predict_proba(X)[:, 1] >= 0.8)).all()
    assert (classifier.predict(X) != (classifier.predict_proba(X)[:, 1] >= 0.5)).any()


# skorch


@pytest.mark.parametrize("criterion", FITTED)
def test_a_skorch_classifier_is_repaired(criterion: str) -> None:
    """It comes back in its class with the repaired weights, predicts the same, and trains on."""
    net = FITTED[criterion]()
    before, gap_before = copy.deepcopy(net.module_.state_dict()), gap(net)
    classifier = repaired(net)
    assert gap_before > 0.3
    assert gap(classifier) < gap_before / 2
    mended = classifier.estimator_
    assert type(mended) is type(net)
    assert mended.module_ is classifier.module_
    np.testing.assert_allclose(mended.predict_proba(X), classifier.predict_proba(X), atol=1e-6)
    assert (mended.predict(X) == classifier.predict(X)).mean() > 0.995
    given = net.module_.state_dict()
    assert all(torch.equal(value, before[name]) for name, value in given.items())
    weights = mended.module_.last.weight.clone()
    mended.partial_fit(X, Y.astype(np.float32) if "BCE" in criterion else Y)
    assert not torch.equal(mended.module_.last.weight, weights)
    assert len(mended.history) == 2 * len(net.history)
    assert all(torch.equal(value, before[name]) for name, value in given.items())


def test_the_threshold_of_skorch() -> None:
    """A binary classifier's own one is used, and stays in what is handed back."""
    classifier = repaired(skorch_net(threshold=0.7), **QUICK)
    assert classifier.repair_.threshold == 0.7
    assert classifier.estimator_.threshold == 0.7
    assert (classifier.predict(X) == classifier.estimator_.predict(X)).mean() > 0.995


def test_weights_of_the_criterion_are_kept() -> None:
    """Positives that count eight times are predicted more often; a loss of one's own goes first."""
    plain, heavy = skorch_net(max_epochs=1), skorch_net(max_epochs=1)  # the retraining trains them
    heavy.criterion_.pos_weight = torch.tensor(8.0)
    few = repaired(plain, **QUICK).predict(X).mean()
    assert repaired(heavy, **QUICK).predict(X).mean() > few + 0.1

    def loss(out: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return functional.binary_cross_entropy_with_logits(out, y.to(out.dtype))

    for own in ({"class_weight": {1: 1.0}}, {"loss": loss}):
        found = repaired(heavy, repair_options=QUICK["repair_options"] | own)
        assert found.predict(X).mean() == pytest.approx(few, abs=0.02)


@pytest.mark.parametrize(
    "criterion",
    [
        nn.CrossEntropyLoss(weight=torch.tensor([1.0, 3.0])),
        nn.CrossEntropyLoss(label_smoothing=0.1),
        nn.NLLLoss(weight=torch.tensor([1.0, 3.0])),
        nn.BCEWithLogitsLoss(pos_weight=torch.tensor(2.0)),
    ],
)
def test_the_loss_is_that_of_the_criterion(criterion: nn.Module) -> None:
    """Its value per row; the criterion's own mean is weighted by class."""
    y = torch.tensor([0, 1, 1, 0, 1])
    torch.manual_seed(0)
    out = torch.randn(5, 2) if not isinstance(criterion, nn.BCEWithLogitsLoss) else torch.randn(5)
    rows = _loss_of(criterion)(out, y)
    assert rows.shape == (5,)
    given = out.log_softmax(1) if isinstance(criterion, nn.NLLLoss) else out
    expected = criterion(given, y.float() if out.ndim == 1 else y)
    by_class = torch.ones(5) if criterion.weight is None else criterion.weight[y]
    torch.testing.assert_close(rows.sum() / by_class.sum(), expected)
    assert _loss_of(type(criterion)()) is None


# Copies, searches, pipelines


def test_copies(found: fn.RepairedClassifier) -> None:
    """A clone has the same trained network and is not fitted; a pickle predicts the same."""
    net = skorch_net()
    for one, estimator in ((found, TRAINED), (repaired(net, **QUICK), net)):
        fresh = clone(one)
        assert fresh.estimator is estimator
        assert fresh.get_params(deep=False).keys() == one.get_params(deep=False).keys()
        with pytest.raises(sklearn.exceptions.NotFittedError):
            fresh.predict(X)
        with pytest.raises(sklearn.exceptions.NotFittedError):
            _ = fresh.module_
        again = fresh.fit(X, Y, sensitive_features=GROUP).predict_proba(X)
        assert (again == one.predict_proba(X)).all()
        back = pickle.loads(pickle.dumps(one))  # noqa: S301  # our own
        assert (back.predict_proba(X) == one.predict_proba(X)).all()
        assert back.module_.state_dict().keys() == one.module_.state_dict().keys()


@pytest.mark.usefixtures("routing")
def test_last_in_a_pipeline() -> None:
    """Groups and marks reach it; the step before must not change what the network reads."""
    net = skorch_net()
    last = fn.RepairedClassifier(net, random_state=0, **QUICK)
    last.set_fit_request(sensitive_features=True, validation=True)
    rows = np.arange(len(X)) >= 600
    steps = make_pipeline(FunctionTransformer(), last)
    steps.fit(X, Y, sensitive_features=GROUP, validation=rows)
    assert steps[-1].audit_.counts.sum() == 200
    assert gap(steps) < 0.2
    alone = clone(last).fit(X, Y, sensitive_features=GROUP, validation=rows)
    assert (steps.predict_proba(X) == alone.predict_proba(X)).all()
    scaled = make_pipeline(MinMaxScaler(), clone(last)).fit(X, Y, sensitive_features=GROUP)
    assert scaled[-1].audit_.counts.sum() == 100


@pytest.mark.usefixtures("routing")
def test_a_search_over_limits_keeps_the_trained_network() -> None:
    """Each fold repairs the same network; a wide limit leaves it as it was."""
    asked = fn.RepairedClassifier(skorch_net(), random_state=0, **QUICK)
    asked.set_fit_request(sensitive_features=True)
    grid = GridSearchCV(asked, {"limit": [{"dp": 0.05}, {"dp": 0.99}]}, cv=2)
    grid.fit(X, Y, sensitive_features=GROUP)
    close, wide = grid.cv_results_["mean_test_score"]
    assert wide > close
    assert wide > 0.7
    params = {"sensitive_features": GROUP}
    scores = cross_validate(asked, X, Y, cv=2, params=params)["test_score"]
    assert (scores > 0.55).all()


# Refusals


def code_of(estimator: Any, **given: Any) -> str:
    """The code of the refusal."""
    rows = {"X": X, "y": Y, "sensitive_features": GROUP} | given
    with pytest.raises(fn.FairNeuronError) as caught:
        fn.RepairedClassifier(estimator, **QUICK).fit(**rows)
    assert caught.value.cure
    return caught.value.code


@pytest.mark.parametrize(
    ("estimator", "code"),
    [
        (LogisticRegression(), "model-type"),
        (Net, "model-type"),
        (NeuralNetRegressor(Net), "model-type"),
        (TRAINED.state_dict(), "model-type"),
        (NeuralNetBinaryClassifier(Net), "model-untrained"),
        (nn.Sequential(nn.Linear(7, 1)), "model-width"),
    ],
    ids=str,
)
def test_estimators(estimator: Any, code: str) -> None:
    """What cannot be repaired is refused with a cure."""
    assert code_of(estimator) == code


def test_ends_that_do_not_fit_the_criterion() -> None:
    """skorch would read these as something else than they are."""
    functional_end = skorch_net(NeuralNetClassifier, module=FunctionalEnd, module__outputs=2)
    assert code_of(functional_end) == "model-head"
    twice = skorch_net(NeuralNetClassifier, **SOFTMAX, criterion=nn.CrossEntropyLoss)
    assert code_of(twice) == "model-head"


def test_criteria() -> None:
    """Those whose probabilities we would have to guess are refused."""
    margin = skorch_net(NeuralNetClassifier, module__outputs=2, criterion=nn.MultiMarginLoss)
    assert code_of(margin) == "model-criterion"
    own = skorch_net().set_params(predict_nonlinearity=torch.tanh)
    assert code_of(own) == "model-criterion"


def test_labels_and_outputs() -> None:
    """Labels that the network or skorch does not know."""
    assert code_of(TRAINED, y=np.arange(len(X)) % 3) == "model-output"
    assert code_of(Net(3), y=np.where(Y == 1, 7, 0)) == "model-output"
    assert code_of(skorch_net(), y=np.array(["no", "yes"])[Y]) == "data-labels"


def test_rows() -> None:
    """One group, marks that are none, too few to choose by."""
    assert code_of(TRAINED, sensitive_features=["A"] * len(X)) == "data-single-group"
    assert code_of(TRAINED, validation=np.arange(len(X))) == "data-shape"
    assert code_of(TRAINED, validation=np.zeros(len(X), dtype=bool)) == "data-too-few"


def test_what_scikit_learn_says() -> None:
    """Inputs that are no numbers, lengths, and predictions before fit."""
    classifier = fn.RepairedClassifier(TRAINED)
    with pytest.raises(ValueError, match="could not convert string to float"):
        classifier.fit(np.full((len(X), 5), "a"), Y, sensitive_features=GROUP)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        classifier.fit(X, Y, sensitive_features=GROUP[:-1])
    with pytest.raises(TypeError, match="sensitive_features"):
        classifier.fit(X, Y)
    with pytest.raises(sklearn.exceptions.NotFittedError):
        classifier.predict(X)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"validation_fraction": 0}, "validation_fraction must lie in"),
        ({"limit": {"accuracy": 0.9}}, "limited metric"),
        ({"repair_options": {"gama": 0.9}}, "gamma|Known"),
    ],
)
def test_settings(options: dict[str, Any], match: str) -> None:
    """They are refused before any work."""
    with pytest.raises(fn.FairNeuronError, match=match):
        repaired(TRAINED, **options)

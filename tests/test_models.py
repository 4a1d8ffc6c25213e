"""Models: heads, outputs and what is refused."""

import numpy as np
import pytest
import torch
from torch import nn

import fairneuron as fn
from fairneuron.errors import DataError, ModelError
from fairneuron.models import (
    Network,
    logits,
    mlp,
    positive_score,
    predicted_classes,
    probabilities,
    task_loss,
)

X = torch.tensor([[1.0, -2.0], [0.5, 3.0], [0.0, 0.0]])


def linear(weight: list[list[float]]) -> nn.Linear:
    """A linear layer without bias."""
    layer = nn.Linear(len(weight[0]), len(weight), bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight))
    return layer


def test_one_logit_is_the_probability_of_class_1() -> None:
    """(n, 1) and (n,) heads: sigmoid, and its complement for class 0."""
    head = linear([[2.0, 1.0]])  # logits 0, 4, 0
    expected = 1 / (1 + np.exp([-0.0, -4.0, -0.0]))
    for model in (head, nn.Sequential(head, nn.Flatten(0))):
        p = probabilities(model, X)
        assert p.shape == (3, 2)
        np.testing.assert_allclose(p[:, 1], expected, rtol=1e-6)
        np.testing.assert_allclose(p.sum(1), 1)


def test_class_logits_are_softmaxed() -> None:
    """(n, classes) heads; two logits (0, z) mean the same as one logit z."""
    one, two = linear([[2.0, 1.0]]), linear([[0.0, 0.0], [2.0, 1.0]])
    np.testing.assert_allclose(probabilities(two, X), probabilities(one, X), rtol=1e-6)
    y = torch.tensor([0, 1, 1])
    torch.testing.assert_close(task_loss(logits(one, X), y), task_loss(logits(two, X), y))
    torch.testing.assert_close(positive_score(logits(one, X)), positive_score(logits(two, X)))
    assert probabilities(linear([[1.0, 0], [0, 1.0], [1.0, 1.0]]), X).shape == (3, 3)


def test_batches_do_not_change_probabilities() -> None:
    """One sample at a time gives what all at once give."""
    np.testing.assert_array_equal(
        probabilities(linear([[2.0, 1.0]]), X, batch_size=1), probabilities(linear([[2.0, 1.0]]), X)
    )


def test_every_module_gets_its_own_mode_back() -> None:
    """Predicting is in eval mode; a frozen batch norm in a training network stays frozen."""
    model = nn.Sequential(
        nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout(0.9), nn.Linear(2, 1)
    ).train()
    model[1].eval()
    first, second = probabilities(model, X), probabilities(model, X)
    np.testing.assert_array_equal(first, second)
    assert [m.training for m in model] == [True, False, True, True]


def test_threshold_decides_two_classes_and_the_largest_score_more() -> None:
    """At the threshold counts as class 1."""
    p = np.array([[0.5, 0.5], [0.7, 0.3], [0.1, 0.9]])
    assert predicted_classes(p).tolist() == [1, 0, 1]
    assert predicted_classes(p, 0.3).tolist() == [1, 1, 1]
    assert predicted_classes(np.array([[0.2, 0.3, 0.5]])).tolist() == [2]


class Returns(nn.Module):
    """Returns what it is told."""

    def __init__(self, value: object) -> None:
        super().__init__()
        self.value = value

    def forward(self, _x: torch.Tensor) -> object:
        return self.value


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ((torch.zeros(3), torch.zeros(3)), "model-output"),
        ({"logits": torch.zeros(3)}, "model-output"),
        (torch.zeros(3, 2, 2), "model-output"),
        (torch.zeros(2), "model-output"),
        (torch.tensor([1.0, float("nan"), 0.0]), "model-nonfinite"),
    ],
)
def test_outputs_that_are_not_logits_are_refused(value: object, code: str) -> None:
    """Tuples, dicts, other shapes and NaN."""
    with pytest.raises(ModelError) as caught:
        probabilities(Returns(value), X)
    assert caught.value.code == code


def test_a_width_that_does_not_fit_is_refused_with_both_numbers() -> None:
    """The message says what the model expects and what the data have."""
    with pytest.raises(ModelError, match="expects 3 inputs; got data with 2") as caught:
        probabilities(mlp(3, (4,)), X)
    assert caught.value.code == "model-width"


def test_only_modules_are_networks() -> None:
    """A function is refused."""
    with pytest.raises(ModelError) as caught:
        Network(lambda x: x)
    assert caught.value.code == "model-type"


def test_paper_architecture(parts) -> None:
    """Three hidden layers of ReLU.

    One logit by default, two on request, dropout layers on request.
    """
    train, valid, _ = parts
    quick = fn.Schedule(epochs=1)
    net = fn.train_classifier(train, valid, hidden=(8, 8, 8), schedule=quick)
    assert [type(m).__name__ for m in net] == ["Linear", "ReLU"] * 3 + ["Linear"]
    assert net(train.x).shape == (len(train), 1)
    assert not net.training
    two = fn.train_classifier(train, valid, hidden=(8,), outputs=2, dropout=0.2, schedule=quick)
    assert two(train.x).shape == (len(train), 2)
    assert [type(m).__name__ for m in two] == ["Linear", "ReLU", "Dropout", "Linear"]


def test_training_learns(parts, trained) -> None:
    """Well above the majority class, for both heads."""
    train, valid, test = parts
    two = fn.train_classifier(
        train,
        valid,
        hidden=(12,),
        outputs=2,
        schedule=fn.Schedule(epochs=20, batch_size=32, patience=5),
    )
    assert fn.audit(trained, test).metrics["accuracy"] > 0.75
    assert fn.audit(two, test).metrics["accuracy"] > 0.75


def test_labels_beyond_the_outputs_are_refused(parts) -> None:
    """Before any training."""
    train, valid, _ = parts
    bad = fn.Dataset.from_arrays(train.x, train.y + 1, train.group)
    with pytest.raises(DataError) as caught:
        fn.train_classifier(bad, valid)
    assert caught.value.code == "data-labels"


def test_probabilities_given_as_logits_are_noticed(parts) -> None:
    """A network that ends in a sigmoid or softmax is refused; other outputs in [0, 1] are told."""
    body = (nn.Linear(5, 4), nn.ReLU())
    for end in ((nn.Linear(4, 1), nn.Sigmoid()), (nn.Linear(4, 2), nn.Softmax(1))):
        with pytest.raises(ModelError, match="must return logits") as caught:
            probabilities(nn.Sequential(*body, *end), parts[0].x)
        assert caught.value.code == "model-head"
    probabilities(nn.Sequential(*body, nn.Linear(4, 2), nn.LogSoftmax(1)), parts[0].x)
    model = nn.Sequential(*body, nn.Linear(4, 1), nn.Hardtanh(0, 1))
    with pytest.warns(fn.FairNeuronWarning, match=r"look like probabilities \[model-head\]"):
        probabilities(model, parts[0].x)

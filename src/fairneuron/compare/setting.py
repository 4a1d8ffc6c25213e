"""What every method of a comparison gets: the split of each seed, and the base model on it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from torch import nn

from fairneuron.audit import Audit
from fairneuron.checks import check_model, require_table
from fairneuron.data.builtin import SOURCES, load_dataset
from fairneuron.data.dataset import Dataset
from fairneuron.errors import ModelError, OptionError
from fairneuron.loading import Parts, Table, load_parts, parts_sum
from fairneuron.metrics import definitions as m
from fairneuron.models import mlp
from fairneuron.settings import Schedule
from fairneuron.subject import Subject
from fairneuron.training import reproducible, require_trainable, train
from fairneuron.usercode import given_model
from fairneuron.weights import network_sum, weights_sum

PROTOCOL = 1  # raised when records of before cannot be compared with those of now
SCHEDULE = Schedule(patience=8)  # that of ``train_classifier``
OTHERS = (32, 32, 32)  # hidden layers for data that the paper does not have

MakeModel = Callable[[Dataset], nn.Module]
"""Maps training data to an untrained network for them."""


class Splits(Protocol):
    """Where the splits come from.

    Attributes:
        fixed: Whether all seeds have the same test part.
    """

    @property
    def fixed(self) -> bool:
        """See the class."""
        ...

    def __call__(self, seed: int) -> Parts:
        """Training, validation and test part of a seed."""
        ...


@dataclass(frozen=True, eq=False)
class OneDataset:
    """A dataset that is split 70/10/20 for each seed, stratified on label and group."""

    data: Dataset
    fixed = False

    def __call__(self, seed: int) -> Parts:
        """Another seed, another split."""
        return self.data.split(seed)


@dataclass(frozen=True, eq=False)
class OneSplit:
    """A split that somebody made."""

    parts: Parts
    fixed = True

    def __call__(self, seed: int) -> Parts:
        """The same for every seed."""
        return self.parts


@dataclass(frozen=True, eq=False)
class OfSubject:
    """The data of a command: files are read for each seed.

    Attributes:
        subject: What to read. With a trained model there is one split, that of its seed.
        table: Its table, if it was read before.
    """

    subject: Subject
    table: Table | None = None

    @property
    def fixed(self) -> bool:
        """Whether the user split the data, or has a trained model that saw a part of them."""
        own = self.subject.data.train is not None or self.subject.data.split_column is not None
        return own or self.subject.model.weights is not None

    def __call__(self, seed: int) -> Parts:
        """Another seed, another split, or other rows for validation."""
        if self.subject.model.weights is not None:
            return load_parts(self.subject, self.table)
        with warnings.catch_warnings():  # the network is trained here, on the training part
            warnings.filterwarnings("ignore", r".*\[data-split\]$")
            return load_parts(replace(self.subject, seed=seed), self.table)


@dataclass(frozen=True)
class PaperNetwork:
    """Makes the paper's network (Gao et al., section 4.1): fully connected, ReLU."""

    hidden: tuple[int, ...]
    outputs: int = 1

    def __call__(self, data: Dataset) -> nn.Module:
        """Makes an untrained one for the data's inputs."""
        require_table(data.x)
        return mlp(data.x.shape[1], self.hidden, outputs=self.outputs)


@dataclass(frozen=True)
class Factory:
    """Makes the user's network, by ``module:function``."""

    path: str

    def __call__(self, data: Dataset) -> nn.Module:
        """Makes an untrained one; imports the user's code."""
        return given_model(self.path, None)


@dataclass(frozen=True, eq=False)
class Setting:
    """The splits and the base models.

    Attributes:
        splits: The parts of each seed.
        model: Makes an untrained network, which is trained on each split; or a trained one.
        threshold: On the probability of class 1, where candidates are audited.
    """

    splits: Splits
    model: MakeModel | nn.Module
    threshold: float = 0.5

    def base(self, parts: Parts, seed: int) -> nn.Module:
        """The base model: trained on the split as ``train_classifier`` does, or the given one.

        Raises:
            ModelError: For a network that does not fit the data, or diverges.
        """
        training, valid, _ = parts
        model = self._start(parts, seed)
        if isinstance(self.model, nn.Module):
            return model.eval()
        require_trainable(model, training, valid)
        if not train(model, training, valid, SCHEDULE, seed=seed):
            raise ModelError(
                "model-diverged",
                "Training must keep the loss finite",
                got=f"a learning rate of {SCHEDULE.learning_rate}",
                cure="Scale the inputs.",
            )
        return model.eval()

    def _start(self, parts: Parts, seed: int) -> nn.Module:
        """The network before its training here, found good."""
        training, valid, _ = parts
        training.require_groups()
        with reproducible(seed):
            model = self.model if isinstance(self.model, nn.Module) else self.model(training)
        check_model(model, valid.x, feature_names=valid.feature_names)
        return model

    def describe(self) -> dict[str, Any]:
        """What the records of one comparison agree in, as plain values; no row of the data.

        Raises:
            DataError: For data that cannot be split.
            ModelError: For a network that does not fit the data.
        """
        parts = self.splits(0)
        test = parts[2]
        inputs = {name.partition("=")[0] for name in test.feature_names}
        compared = [n for n, inside in zip(test.group_names, test.compared, strict=True) if inside]
        ours = isinstance(self.model, PaperNetwork)
        return {
            "protocol": PROTOCOL,
            "data": test.name,
            "data_sum": parts_sum(parts),
            "rows": [len(part) for part in parts],
            "features": len(test.feature_names),
            "positive": test.positive,
            "sensitive": list(test.sensitive_names),
            "sensitive_inputs": sorted(inputs & set(test.sensitive_names)),
            "groups": compared,
            "fixed_split": self.splits.fixed,
            "model": _described(self.model),
            **({} if ours else {"model_sum": network_sum(self._start(parts, 0))}),
            "threshold": self.threshold,
        }


def make_setting(
    data: str | Dataset | Parts, model: MakeModel | nn.Module | None, threshold: float = 0.5
) -> Setting:
    """The setting of ``fairneuron.compare``.

    Raises:
        OptionError: For unknown data sets, and a trained model with data that are not split.
    """
    if isinstance(data, str):
        data = load_dataset(data)
    whole = isinstance(data, Dataset)
    if isinstance(model, nn.Module) and whole:
        raise OptionError(
            "option-model",
            "A trained model needs the split that it was trained on",
            got="data that would be split here, with rows of its training among the test data",
            cure="Give (train, valid, test), or a function that makes an untrained network.",
        )
    if model is None:
        name = data.name if isinstance(data, Dataset) else data[0].name
        model = PaperNetwork(SOURCES[name].hidden if name in SOURCES else OTHERS)
    splits: Splits = OneDataset(data) if isinstance(data, Dataset) else OneSplit(data)
    return Setting(splits, model, threshold)


def subject_setting(subject: Subject, table: Table | None = None) -> Setting:
    """The setting of ``fairneuron compare``."""
    choice, kind = subject.model, subject.data.kind
    model: MakeModel | nn.Module
    if choice.weights is not None:
        model = given_model(choice.model, choice.weights)
    elif choice.model is not None:
        model = Factory(choice.model)
    else:
        ours = SOURCES[subject.data.name].hidden if kind == "builtin" else OTHERS
        model = PaperNetwork(choice.hidden or ours, choice.outputs)
    return Setting(OfSubject(subject, table), model, subject.threshold)


def signed_gaps(audited: Audit) -> dict[str, float | None]:
    """Differences of two groups' rates, the second minus the first; none for more groups.

    Equalised odds: the difference with the larger absolute value, of TPR and FPR.
    """
    counts = audited.counts[audited.compared]
    if len(counts) != 2:
        return {}
    selection, tpr, fpr = (
        float(rate[1] - rate[0])
        for rate in (
            m.selection_rate(counts),
            m.true_positive_rate(counts),
            m.false_positive_rate(counts),
        )
    )
    eodds = tpr if abs(tpr) >= abs(fpr) else fpr
    found = {"dp": selection, "eo": tpr, "eodds": tpr + fpr if np.isnan(tpr + fpr) else eodds}
    return {name: float(v) if np.isfinite(v) else None for name, v in found.items()}


def _described(model: MakeModel | nn.Module) -> str:
    """What to call the base model; a trained one by a sum over its weights."""
    if isinstance(model, nn.Module):
        return f"given {type(model).__name__}, weights {weights_sum(model)[:16]}"
    if isinstance(model, PaperNetwork):
        layers = ", ".join(map(str, model.hidden))
        return f"hidden layers of {layers}, {model.outputs} output{'s' * (model.outputs > 1)}"
    if isinstance(model, Factory):
        return model.path
    return getattr(model, "__qualname__", type(model).__qualname__)

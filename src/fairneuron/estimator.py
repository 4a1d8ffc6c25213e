"""A scikit-learn classifier: the paper's network, repaired where groups are given."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import expit, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_consistent_length, check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from fairneuron.audit import Audit, audit
from fairneuron.data.dataset import Dataset, Floats, Ints
from fairneuron.errors import require_range, warn
from fairneuron.forward import evaluation, logits, placed
from fairneuron.limits import DEFAULT_LIMIT, Limit
from fairneuron.models import predicted_classes
from fairneuron.recipes import Settings
from fairneuron.repair import FairNeuron, Repair
from fairneuron.settings import Schedule
from fairneuron.training import train_classifier

BATCH = 8192


class NetworkClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # they are untyped
    """What a classifier says by the logits of its network.

    Subclasses set ``classes_``, ``repair_`` and ``_order``, the class of each output of the network
    (which is its own inverse), and give ``_outputs``.
    """

    classes_: npt.NDArray[Any]
    repair_: Repair | None
    _order: Ints

    def _outputs(self, X: Any) -> Floats:  # noqa: N803
        """Logits ``(n,)`` of the network's class 1, or ``(n, classes)``."""
        raise NotImplementedError

    def decision_function(self, X: Any) -> Floats:  # noqa: N803
        """Logits: ``(n,)`` of ``classes_[1]`` for two classes, ``(n, classes)`` for more.

        Of two class logits it is their difference.
        """
        out = self._outputs(X)
        if out.ndim == 2 and out.shape[1] == 2:
            out = out[:, 1] - out[:, 0]
        if out.ndim == 1:
            return out if self._order[1] == 1 else -out
        return out[:, self._order]

    def predict_proba(self, X: Any) -> Floats:  # noqa: N803
        """Probabilities of ``classes_``, ``(n, classes)``."""
        out = self.decision_function(X)
        one = out.ndim == 1
        return np.stack([expit(-out), expit(out)], axis=1) if one else softmax(out, axis=1)

    def predict(self, X: Any) -> npt.NDArray[Any]:  # noqa: N803
        """Labels ``(n,)``: the most probable ones; of two classes by the repair's threshold."""
        proba = self.predict_proba(X)[:, self._order]
        threshold = 0.5 if self.repair_ is None else self.repair_.threshold
        return self.classes_[self._order[predicted_classes(proba, threshold)]]


class FairNeuronClassifier(NetworkClassifier):
    """Trains the paper's network and, where sensitive features are given, repairs it.

    Inputs are standardised. A part of the rows, stratified on label and group, is for validation:
    to stop early, and to choose among the candidates of the repair. Rows that are equal count as
    one with the sum of their weights in the training of the network, and stand in the same part: a
    weight of 3 is three copies, a weight of 0 no row. The repair and its audits count people. Where
    data are too few for a validation part, all of them train.

    Args:
        hidden: Widths of the hidden layers.
        epochs: At most.
        batch_size: Rows per step.
        learning_rate: Of Adam, at the start.
        patience: Epochs without a lower validation loss before training stops, and the best epoch
            is kept; None to train all epochs.
        validation_fraction: Of the distinct rows, in [0, 1).
        limit: Metric name ("dp", "dpr", "eo", "eodds") to the worst value that is accepted, for the
            repair; {"dp": 0.05} unless given.
        recipe: As in ``repair``.
        repair_options: Further options of ``repair`` by name, for example {"neuron_share": 0.1}.
        pos_label: The class whose rates are compared; ``classes_[1]`` unless given.
        random_state: Of the split, the training and the repair.

    Attributes:
        classes_: The labels.
        n_features_in_: Number of inputs.
        feature_names_in_: Their names, where ``X`` has names that are all texts.
        scaler_: The fitted ``StandardScaler``.
        network_: The network, repaired if there were groups, in double precision. It reads
            standardised inputs; its class 1 is ``pos_label``.
        repair_: What the repair found, a ``Repair``; None without groups.
        audit_: The ``Audit`` of ``network_`` on the validation part, by which it was chosen; None
            without groups.
    """

    def __init__(
        self,
        hidden: Sequence[int] = (32, 32, 32),
        *,
        epochs: int = 50,
        batch_size: int = 128,
        learning_rate: float = 0.01,
        patience: int | None = 8,
        validation_fraction: float = 0.125,
        limit: Limit | None = None,
        recipe: str | Settings = "conflict",
        repair_options: Mapping[str, Any] | None = None,
        pos_label: object = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.hidden = hidden
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.limit = limit
        self.recipe = recipe
        self.repair_options = repair_options
        self.pos_label = pos_label
        self.random_state = random_state

    def fit(
        self,
        X: Any,  # noqa: N803  # scikit-learn's name
        y: Any,
        sensitive_features: Any = None,
        sample_weight: Any = None,
    ) -> FairNeuronClassifier:
        """Trains the network, and repairs it if there are groups.

        Args:
            X: ``(n, features)`` numbers.
            y: ``(n,)`` labels.
            sensitive_features: ``(n,)`` or ``(n, k)`` values of any type, whose intersections are
                the groups; rows with a missing value are not compared.
            sample_weight: ``(n,)``, how much each row counts in training.

        Raises:
            OptionError: For settings out of range.
            DataError: If groups are given and there are fewer than two, or too few rows to compare
                them.
        """
        schedule, mitigator = self._settings()
        x, y = validate_data(self, X, y, dtype=np.float64, ensure_min_samples=2)
        check_classification_targets(y)
        check_consistent_length(x, sensitive_features)
        weight = _check_sample_weight(sample_weight, x, dtype=np.float64, ensure_non_negative=True)
        table, names = columns_of(sensitive_features, len(x))
        kept = weight > 0
        x, weight, table = x[kept], weight[kept], table[kept]
        codes = self._encoded(y[kept])

        people = Dataset.from_arrays(
            np.zeros((len(x), 1)),  # standardised inputs follow
            codes,
            table,
            sensitive_names=names,
            positive=str(self.classes_[self._order[1]]),
            sample_weight=unless_alike(weight),
        )
        rows, ids = _sorted(np.column_stack([x, codes, people.group]))
        first = np.flatnonzero(np.diff(ids, prepend=-1))
        total = unless_alike(np.bincount(ids, weight[rows]).astype(np.float64))
        self.scaler_ = StandardScaler().fit(x[rows[first]], sample_weight=total)
        people = replace(
            people.subset(rows),
            x=torch.from_numpy(self.scaler_.transform(x[rows]).astype(np.float32)),
            feature_names=tuple(
                getattr(self, "feature_names_in_", [f"x{i}" for i in range(x.shape[1])])
            ),
        )
        distinct = replace(people.subset(first), weight=total)
        seed = seed_of(self.random_state)
        part = _split(distinct, self.validation_fraction, seed)
        train = distinct.subset(part == 0)
        network = train_classifier(
            train,
            distinct.subset(part == 1) if part.any() else train,
            hidden=self.hidden,
            outputs=1 if len(self.classes_) == 2 else len(self.classes_),
            seed=seed,
            schedule=schedule,
        )
        self.repair_ = None
        self.audit_: Audit | None = None
        if sensitive_features is None:
            if self.limit is not None:
                warn(
                    "option-limit",
                    "Without sensitive_features nothing is repaired, whatever the limit; behind a "
                    "pipeline or a search they need set_fit_request(sensitive_features=True)",
                )
            self.network_: torch.nn.Module = network.double()
        else:
            parts = (people.subset(part[ids] == code) for code in (0, 1))
            self._repair(mitigator, network, *parts, seed=seed)
        return self

    def _outputs(self, X: Any) -> Floats:  # noqa: N803
        check_is_fitted(self, "network_")
        x = validate_data(self, X, dtype=np.float64, reset=False)
        return outputs_of(self.network_, torch.from_numpy(self.scaler_.transform(x)))

    def _settings(self) -> tuple[Schedule, FairNeuron]:
        """What the parameters say, checked before any work."""
        require_range("validation_fraction", self.validation_fraction, 0, 1, open_high=True)
        schedule = Schedule(
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            patience=self.patience,
        )
        limit = DEFAULT_LIMIT if self.limit is None else self.limit
        return schedule, FairNeuron(self.recipe, limit=limit, **(self.repair_options or {}))

    def _encoded(self, y: npt.NDArray[Any]) -> Ints:
        """Codes of the labels; that of ``pos_label`` is 1."""
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(
                f"{type(self).__name__} needs samples of at least 2 classes, with weights that are "
                f"not zero; got {len(self.classes_)} class"
            )
        self._order = np.arange(len(self.classes_))  # code to class and back
        if self.pos_label is not None:
            place = np.flatnonzero(self.classes_ == self.pos_label)
            if not len(place):
                raise ValueError(
                    f"pos_label={self.pos_label!r} is not one of the classes "
                    f"{self.classes_.tolist()}"
                )
            self._order[[1, place[0]]] = self._order[[place[0], 1]]
        return self._order[codes]

    def _repair(
        self,
        mitigator: FairNeuron,
        network: torch.nn.Module,
        train: Dataset,
        valid: Dataset,
        *,
        seed: int,
    ) -> None:
        self.repair_ = mitigator.repair(network, train, valid, seed=seed)
        self.network_ = copy.deepcopy(self.repair_.model).double()
        self.audit_ = audit(self.network_, valid, threshold=self.repair_.threshold, seed=seed)


def seed_of(random_state: int | np.random.RandomState | None) -> int:
    """A seed from scikit-learn's kind of them."""
    return int(check_random_state(random_state).randint(2**31 - 1))


def outputs_of(network: torch.nn.Module, inputs: torch.Tensor) -> Floats:
    """Logits of all rows, ``(n,)`` or ``(n, classes)``."""
    with evaluation(network):
        batches = [logits(network, placed(network, batch)) for batch in inputs.split(BATCH)]
    found: Floats = torch.cat(batches).double().cpu().numpy()
    return found


def columns_of(sensitive: Any, n: int) -> tuple[npt.NDArray[Any], list[str] | None]:
    """Sensitive features as ``(n, k)`` values, and their names if they have some.

    Without any, all are in one group.
    """
    if sensitive is None:
        return np.zeros((n, 1)), None
    named = getattr(sensitive, "columns", [getattr(sensitive, "name", None)])
    names = [str(name) for name in named if name not in (None, "")]
    table = np.asarray(
        sensitive.to_numpy() if hasattr(sensitive, "to_numpy") else sensitive, dtype=object
    )
    table = table.reshape(len(table), -1)
    return table, names if len(names) == table.shape[1] else None


def _sorted(table: npt.NDArray[Any]) -> tuple[Ints, Ints]:
    """An order of rows in which equal ones are neighbours, and which distinct row each then is."""
    order = np.lexsort(table.T[::-1])
    table = table[order]
    changed = np.any(table[1:] != table[:-1], axis=1)
    return order, np.concatenate([[0], np.cumsum(changed)])


def unless_alike(weight: Floats) -> Floats | None:
    """Weights ``(n,)``; None where they are all the same."""
    return None if (weight == weight[0]).all() else weight


def _split(data: Dataset, fraction: float, seed: int) -> Ints:
    """0 for training, 1 for validation; all 0 where validation would have fewer than two classes.

    Every class stays in training.
    """
    none = np.zeros(len(data), dtype=np.int64)
    part = data.with_validation(none, seed=seed, fraction=fraction)
    part[~np.isin(data.y, data.y[part == 0])] = 0
    return part if len(np.unique(data.y[part == 1])) > 1 else none

"""A scikit-learn classifier that repairs a network which torch or skorch has trained already."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.utils import check_consistent_length
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
from torch import nn
from torch.nn import functional

from fairneuron.audit import Audit
from fairneuron.checks import check_model, copied
from fairneuron.data.dataset import Dataset, Floats, Ints
from fairneuron.errors import DataError, ModelError, require_range, warn
from fairneuron.estimator import (
    NetworkClassifier,
    columns_of,
    outputs_of,
    seed_of,
    unless_alike,
)
from fairneuron.forward import first_line
from fairneuron.heads import HEADS, head_of
from fairneuron.limits import DEFAULT_LIMIT, Limit
from fairneuron.recipes import Settings
from fairneuron.repair import FairNeuron, Repair
from fairneuron.terms import Loss
from fairneuron.verdict import Verdict

_FEW = 64  # rows that tell what a network returns
_ENDS: dict[type[nn.Module], tuple[tuple[type[nn.Module], ...], bool]] = {
    nn.CrossEntropyLoss: ((nn.LogSoftmax,), False),
    nn.BCEWithLogitsLoss: ((), False),
    nn.NLLLoss: ((nn.Softmax,), True),  # skorch takes the logarithm
    nn.BCELoss: ((nn.Sigmoid,), True),
}
"""With which heads a criterion of skorch's goes, and whether there must be one."""


class RepairedClassifier(NetworkClassifier):
    """Repairs a trained network: a torch module, or a fitted skorch classifier.

    What is given is not changed, and a clone has the same trained network. Inputs are given as the
    network reads them: nothing is scaled or encoded here. The rates of ``classes_[1]``, the
    network's class 1, are compared.

    A network that ends in a ``nn.Sigmoid``, ``nn.Softmax`` or ``nn.LogSoftmax`` is repaired without
    it, and has it again afterwards.

    Args:
        estimator: A trained ``torch.nn.Module``, whose outputs are in the order of the sorted
            labels; or a fitted ``NeuralNetClassifier`` or ``NeuralNetBinaryClassifier`` of skorch,
            whose criterion is ``CrossEntropyLoss``, ``BCEWithLogitsLoss``, ``NLLLoss`` or
            ``BCELoss`` and is lowered in the retraining too.
        limit: Metric name ("dp", "dpr", "eo", "eodds") to the worst value that is accepted;
            {"dp": 0.05} unless given.
        recipe: As in ``repair``.
        repair_options: Further options of ``repair`` by name, for example {"neuron_share": 0.1}.
        validation_fraction: Of the rows, in (0, 1), drawn stratified on label and group to choose
            among the candidates, where ``fit`` is not told which.
        random_state: Of the split and the repair.

    Attributes:
        classes_: The labels.
        n_features_in_: Number of inputs.
        feature_names_in_: Their names, where ``X`` has names that are all texts.
        estimator_: What was given, repaired: a module of the same class, or the skorch classifier
            with the repaired weights, its history and its optimiser, to go on with.
        repair_: What the repair found, a ``Repair``; its ``model`` returns logits.
        verdict_: Whether it helped, a ``Verdict`` on the validation part.
        audit_: The ``Audit`` of the repaired network on the validation part, which chose it.
    """

    def __init__(
        self,
        estimator: Any,
        *,
        limit: Limit | None = None,
        recipe: str | Settings = "conflict",
        repair_options: Mapping[str, Any] | None = None,
        validation_fraction: float = 0.125,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.estimator = estimator
        self.limit = limit
        self.recipe = recipe
        self.repair_options = repair_options
        self.validation_fraction = validation_fraction
        self.random_state = random_state

    def __sklearn_clone__(self) -> RepairedClassifier:
        fresh: RepairedClassifier = super().__sklearn_clone__()
        fresh.estimator = self.estimator  # a clone of skorch's would be untrained
        return fresh

    def fit(
        self,
        X: Any,  # noqa: N803  # scikit-learn's name
        y: Any,
        sensitive_features: Any,
        sample_weight: Any = None,
        validation: Any = None,
    ) -> RepairedClassifier:
        """Repairs the network.

        Args:
            X: ``(n, features)`` numbers, as the network reads them; the rows it was trained on, and
                if there are some, others for ``validation``.
            y: ``(n,)`` labels.
            sensitive_features: ``(n,)`` or ``(n, k)`` values of any type, whose intersections are
                the groups; rows with a missing value are not compared.
            sample_weight: ``(n,)``, how much each row counts in the retraining; 0 is no row.
            validation: ``(n,)`` booleans: the rows to choose the repair by. Drawn unless given.

        Raises:
            ModelError: For what is no trained network of a kind that can be repaired, and outputs
                that do not fit the labels.
            OptionError: For settings out of range.
            DataError: For fewer than two groups, labels that the network does not know, or too few
                rows.
        """
        given = _given(self.estimator)
        require_range(
            "validation_fraction", self.validation_fraction, 0, 1, open_low=True, open_high=True
        )
        mitigator = self._mitigator(given)
        x, y = validate_data(self, X, y, dtype=np.float32, ensure_min_samples=2)
        x = np.require(x, requirements="W")  # torch warns of memory that it may not write
        check_classification_targets(y)
        check_consistent_length(x, sensitive_features, validation)
        weight = _check_sample_weight(sample_weight, x, dtype=np.float64, ensure_non_negative=True)
        chooses = None if validation is None else _booleans(validation)
        table, names = columns_of(sensitive_features, len(x))
        network, head = _headless(given, torch.from_numpy(x[:_FEW]))
        codes = self._encoded(y, given, _width(network, x))
        kept = weight > 0
        data = Dataset.from_arrays(
            x[kept],
            codes[kept],
            table[kept],
            sensitive_names=names,
            feature_names=list(getattr(self, "feature_names_in_", ())),
            positive=str(self.classes_[1]),
            sample_weight=unless_alike(weight[kept]),
        )
        seed = seed_of(self.random_state)
        part = (
            data.with_validation(
                np.zeros(len(data), dtype=np.int64), seed=seed, fraction=self.validation_fraction
            )
            if chooses is None
            else chooses[kept].astype(np.int64)
        )
        train, valid = (data.subset(part == code) for code in (0, 1))
        self.repair_: Repair = mitigator.repair(network, train, valid, seed=seed)
        self.verdict_: Verdict = self.repair_.verdict
        self.audit_: Audit | None = self.repair_.chosen.audit
        self.estimator_ = _handed_back(self.estimator, self.repair_.model, head)
        self._doubt_the_order()
        return self

    @property
    def module_(self) -> nn.Module:
        """The repaired network, of the class of the given one and returning what that returns."""
        check_is_fitted(self, "estimator_")
        own = self.estimator_
        return own if isinstance(own, nn.Module) else own.module_

    def _outputs(self, X: Any) -> Floats:  # noqa: N803
        check_is_fitted(self, "estimator_")
        x = validate_data(self, X, dtype=np.float32, reset=False)
        return outputs_of(self.repair_.model, torch.from_numpy(np.require(x, requirements="W")))

    def _mitigator(self, given: _Given) -> FairNeuron:
        """What the parameters say; the criterion, unless a loss or weights of classes are given."""
        own = dict(self.repair_options or {})
        options: dict[str, Any] = {"threshold": given.threshold}
        if not {"loss", "class_weight"} & own.keys():
            options["loss"] = _loss_of(given.criterion)
        limit = DEFAULT_LIMIT if self.limit is None else self.limit
        return FairNeuron(self.recipe, limit=limit, **(options | own))

    def _encoded(self, y: npt.NDArray[Any], given: _Given, outputs: int) -> Ints:
        """The output that each label has; sets ``classes_``."""
        labels = np.unique(y)
        known = labels if given.classes is None else given.classes
        numbers = np.issubdtype(labels.dtype, np.integer) and set(labels) <= set(range(outputs))
        if given.classes is None and len(labels) < outputs and numbers:
            known = np.arange(outputs)  # some are not in the data
        if len(known) != outputs:
            raise ModelError(
                "model-output",
                "A network must have an output per label, or one logit for two labels",
                got=f"outputs for {outputs} classes and the labels {known[:10].tolist()}",
                cure="Give labels 0, 1, … where some are not in the data.",
            )
        strange = [label for label in labels.tolist() if label not in known.tolist()]
        if strange:
            raise DataError(
                "data-labels",
                f"Labels must be among those of the estimator, {known[:10].tolist()}",
                got=f"{strange[:10]}",
                cure="Encode them as for its training.",
            )
        self.classes_, self._order = known, np.arange(outputs)
        place = {label: code for code, label in enumerate(known.tolist())}
        return np.array([place[label] for label in labels.tolist()])[np.searchsorted(labels, y)]

    def _doubt_the_order(self) -> None:
        right, n = self.repair_.trials[0].accuracy, int(self.repair_.verdict.n)
        if len(self.classes_) == 2 and right + 1 / n**0.5 < 0.5:  # by two standard errors
            warn(
                "model-labels",
                f"The given network is right on {right:.0%} of the validation rows: its class 1 "
                f"is taken for {self.classes_.tolist()[1]!r}; is it the other one?",
            )


@dataclass(frozen=True)
class _Given:
    """What is to be repaired, and what skorch says about it."""

    module: nn.Module
    criterion: nn.Module | None = None
    classes: npt.NDArray[Any] | None = None
    threshold: float = 0.5


def _given(estimator: Any) -> _Given:
    if isinstance(estimator, nn.Module):
        return _Given(estimator)
    kind = type(estimator)
    if isinstance(estimator, type) or not hasattr(kind, "classes_") or not hasattr(kind, "infer"):
        raise ModelError(
            "model-type",
            "estimator must be a trained torch.nn.Module, or a fitted NeuralNetClassifier or "
            "NeuralNetBinaryClassifier of skorch",
            got=f"the class {estimator.__name__}" if isinstance(estimator, type) else kind.__name__,
            cure="fn.FairNeuronClassifier trains a network by itself.",
        )
    if not isinstance(getattr(estimator, "module_", None), nn.Module):
        raise ModelError(
            "model-untrained",
            "A skorch classifier must be fitted",
            got=f"a {kind.__name__} without module_",
            cure="Call its fit, or initialize and load_params; a clone of it is not fitted.",
        )
    criterion = getattr(estimator, "criterion_", None)
    custom = getattr(estimator, "predict_nonlinearity", "auto") != "auto"
    if type(criterion) not in _ENDS or custom:
        name = "another predict_nonlinearity" if custom else type(criterion).__name__
        raise ModelError(
            "model-criterion",
            f"The criterion must be one of {', '.join(c.__name__ for c in _ENDS)}, and "
            "predict_nonlinearity 'auto'",
            got=name,
            cure="Give the module alone, estimator=net.module_, and your loss in repair_options.",
        )
    classes = getattr(estimator, "classes_", None)
    return _Given(
        estimator.module_,
        criterion,
        None if classes is None else np.asarray(classes),
        float(getattr(estimator, "threshold", 0.5)),
    )


def _headless(given: _Given, x: torch.Tensor) -> tuple[nn.Module, str | None]:
    """The network that returns logits, and the name of what was left out of it."""
    head = head_of(given.module, x)
    kind = None if head is None else type(given.module.get_submodule(head))
    allowed, needed = (HEADS, False) if given.criterion is None else _ENDS[type(given.criterion)]
    if needed and kind not in allowed:
        raise ModelError(
            "model-head",
            f"With the criterion {type(given.criterion).__name__} the network must end in a "
            f"nn.{allowed[0].__name__} module",
            got="no such end" if kind is None else f"a nn.{kind.__name__}",
            cure="Make the last step a module of its own; it has no weights, so those that were "
            "trained fit.",
        )
    if head is None or kind not in allowed:  # the checks of the repair refuse what is no logits
        return given.module, None
    network = copied(given.module)
    network.set_submodule(head, nn.Identity())
    return network, head


def _width(network: nn.Module, x: npt.NDArray[Any]) -> int:
    """For how many classes a network has outputs."""
    rows = torch.from_numpy(x[:_FEW])
    check_model(network, rows)
    out = outputs_of(network, rows)
    return 2 if out.ndim == 1 else out.shape[1]


def _loss_of(criterion: nn.Module | None) -> Loss | None:
    """A criterion with options as a loss per row of logits; None if it is plain cross entropy."""
    weight = getattr(criterion, "weight", None)
    smoothing = getattr(criterion, "label_smoothing", 0.0)
    balance = getattr(criterion, "pos_weight", None)
    if weight is None and balance is None and not smoothing:
        return None
    if isinstance(criterion, (nn.BCEWithLogitsLoss, nn.BCELoss)):
        return partial(_binary, weight=weight, balance=balance)
    return partial(
        functional.cross_entropy, weight=weight, label_smoothing=smoothing, reduction="none"
    )


def _binary(
    out: torch.Tensor,
    y: torch.Tensor,
    *,
    weight: torch.Tensor | None,
    balance: torch.Tensor | None,
) -> torch.Tensor:
    return functional.binary_cross_entropy_with_logits(
        out, y.to(out.dtype), weight=weight, pos_weight=balance, reduction="none"
    )


def _handed_back(estimator: Any, repaired: nn.Module, head: str | None) -> Any:
    """The repaired network in what was given: with its head, and in skorch's object."""
    skorch = not isinstance(estimator, nn.Module)
    given = estimator.module_ if skorch else estimator
    if skorch:
        twin = object.__new__(type(estimator))
        try:
            vars(twin).update(copy.deepcopy(vars(estimator), {id(estimator): twin}))
        except Exception as error:  # whatever the user's callbacks raise
            raise ModelError(
                "model-copy",
                "The skorch classifier must be a thing that copy.deepcopy copies",
                got=first_line(error),
                cure="Keep files, locks and the like out of its callbacks; or give net.module_.",
            ) from error
        twin.module_.load_state_dict(repaired.state_dict())
        return twin
    if head is None:
        return repaired
    whole = copied(repaired)
    whole.set_submodule(head, copied(given.get_submodule(head)))
    return whole


def _booleans(validation: Any) -> npt.NDArray[np.bool_]:
    rows = np.asarray(validation)
    if rows.dtype != bool or rows.ndim != 1:
        raise DataError(
            "data-shape",
            "validation must be (n,) booleans, True for the rows to choose by",
            got=f"{rows.dtype} of shape {rows.shape}",
            cure="For example np.arange(len(X)) >= rows_of_training.",
        )
    return rows

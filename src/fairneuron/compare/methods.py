"""The methods that can be compared, by name. Free of torch, so that a bad name is refused at once.

A method makes a mitigator from a limit, which says which gap is lowered. All of ours try
``CONFIGURATIONS`` configurations.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

from fairneuron.errors import OptionError, require_known
from fairneuron.settings import Schedule

if TYPE_CHECKING:
    from fairneuron.baselines.protocol import Mitigator

CRITERIA = ("dp", "eo", "eodds")
REFERENCE = "fairneuron"
_LONGEST = 40  # characters of a name, for tables

MakeMitigator = Callable[[dict[str, float]], "Mitigator"]
"""Maps a limit such as {"dp": 0.05} to a mitigator."""


@dataclass(frozen=True)
class Named:
    """A method of ours: its class is imported when it is called.

    Attributes:
        path: ``module:class`` inside the package.
        takes_limit: Whether the class wants to know which gap is lowered.
        options: Further arguments of the class.
        libraries: What it imports of ``fairneuron[peers]`` when it is at work.
    """

    path: str
    takes_limit: bool = True
    options: tuple[tuple[str, Any], ...] = ()
    libraries: tuple[str, ...] = ()

    def __call__(self, limit: dict[str, float]) -> Mitigator:
        """Makes the mitigator for a limit."""
        given: dict[str, Any] = {"limit": limit} if self.takes_limit else {}
        mitigator: Mitigator = self._made(**given, **dict(self.options))
        return mitigator

    @property
    def needs_sensitive(self) -> bool:
        """Whether its predictors read the sensitive attribute, as far as it says so unmade."""
        aware = dict(self.options).get("aware", False)
        return bool(aware or getattr(self._made, "needs_sensitive", False))

    @property
    def _made(self) -> Any:
        module, _, name = self.path.partition(":")
        return getattr(import_module(f"fairneuron.{module}"), name)


PEERS: dict[str, Named] = {
    "fairneuron": Named("repair:FairNeuron"),
    "naive": Named("baselines.dropout:Naive", takes_limit=False),
    "diffdp": Named("baselines.gradient:DiffDP"),
    "fine-tuning": Named("baselines.gradient:FineTuning"),
    "hsic": Named("baselines.hsic:HSIC"),
    "last-layer": Named("baselines.gradient:LastLayer"),
    "reweighing": Named("baselines.reweighing:Reweighing"),
    "fairret": Named("baselines.fairret:Fairret", libraries=("fairret.loss", "fairret.statistic")),
    "linear-post": Named("baselines.linear_post:LinearPost"),
    "linear-post-aware": Named("baselines.linear_post:LinearPost", options=(("aware", True),)),
    "threshold-optimizer": Named(
        "baselines.threshold:ThresholdOptimizer", libraries=("fairlearn.postprocessing",)
    ),
    "reject-option": Named(
        "baselines.reject_option:RejectOption",
        libraries=("aif360.algorithms.postprocessing", "aif360.datasets"),
    ),
    "oxonfair": Named("baselines.oxonfair:OxonFair", libraries=("oxonfair", "oxonfair.utils")),
    "exponentiated-gradient": Named(
        "baselines.reductions:ExponentiatedGradient", libraries=("fairlearn.reductions",)
    ),
    "neuron-dropping": Named("baselines.neuron_search:NeuronDropping"),
}
# As many steps as the 50 epochs of recipe "paper" are on COMPAS; on Census they are 9 epochs. There
# 50 epochs of twelve networks would take some 50 to 90 times as long as the base model.
_AS_PAPER = ("schedule", Schedule(epochs=8, min_steps=1450))
_STOPS = ("stops", (0.9, 0.75, 0.6, 0.45, 0.33, 0.23, 0.15, 0.08, 0.03, -0.03, -0.08, -0.13))
_FEW = (("neuron_share", 0.1), _STOPS)
_RATES = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.65, 0.8)
ABLATIONS: dict[str, Named] = {
    "few-neurons": Named("repair:FairNeuron", options=_FEW),
    "random-neurons": Named("compare.ablations:random_neurons", options=_FEW),
    "weakest-neurons": Named("compare.ablations:weakest_neurons", options=_FEW),
    "all-neurons": Named("repair:FairNeuron", options=(("neuron_share", 1.0), _STOPS)),
    "paper": Named(
        "repair:FairNeuron",
        options=(
            ("recipe", "paper"),
            _AS_PAPER,
            ("gamma", (0.5, 0.7, 0.9)),
            ("theta", (1e-3, 0.1)),
            ("dropout", (0.1, 0.3)),
        ),
    ),
    "outside-path": Named(
        "repair:FairNeuron",
        options=(
            ("recipe", "paper"),
            _AS_PAPER,
            ("drop", "outside_path"),
            ("gamma", (0.5, 0.7, 0.8, 0.9)),
            ("theta", (1e-3, 0.1, 0.3)),
        ),
    ),
    "random-samples": Named("baselines.ablations:RandomSamples", options=(_AS_PAPER,)),
    "pure-dropout": Named(
        "baselines.ablations:RandomSamples",
        options=(_AS_PAPER, ("shares", (1.0,)), ("dropout", _RATES)),
    ),
    "continued-training": Named("baselines.ablations:ContinuedTraining"),
}
"""FairNeuron without some part of it: what each part is good for."""
PAPER: dict[str, Named] = {
    "fad": Named("baselines.adversaries:FAD"),
    "ethical-adversaries": Named("baselines.adversaries:EthicalAdversaries"),
    "equalized-odds": Named("baselines.hardt:EqualizedOdds"),
}
"""The methods that the paper compares with (Gao et al., section 4), where they are no peers yet."""
METHODS = PEERS | ABLATIONS | PAPER
_TAKE_THRESHOLD = frozenset({"repair:FairNeuron"}) | {
    f"compare.ablations:{name}" for name in ("random_neurons", "weakest_neurons")
}
_AT_HALF = frozenset(
    f"baselines.{name}"
    for name in (
        "linear_post:LinearPost",
        "threshold:ThresholdOptimizer",
        "reject_option:RejectOption",
        "oxonfair:OxonFair",
        "reductions:ExponentiatedGradient",
        "neuron_search:NeuronDropping",
        "hardt:EqualizedOdds",
    )
)
"""What decides at a probability of .5; the others of ours are the same at any threshold."""
_SHORT = {
    "peers": tuple(PEERS),
    "ablations": tuple(ABLATIONS),
    "paper-baselines": tuple(PAPER),
}


def methods_named(
    methods: Sequence[str] | Mapping[str, str | MakeMitigator], threshold: float = 0.5
) -> dict[str, MakeMitigator]:
    """The methods to compare, in the order given.

    Args:
        methods: Names of ours, where "peers", "ablations" and "paper-baselines" stand for all of
            the kind; or any name to one of ours or to what makes a mitigator from a limit.
        threshold: On the probability of class 1; those of ours that want to know it are told.

    Raises:
        OptionError: For unknown names, for names that a table cannot show, for none at all, and for
            methods that decide at .5 where the threshold is another one.
    """
    given: Mapping[str, str | MakeMitigator] = (
        methods
        if isinstance(methods, Mapping)
        else {name: name for short in methods for name in _SHORT.get(short, (short,))}
    )
    if not given or isinstance(methods, str):
        raise OptionError(
            "option-methods",
            "The methods must be a list of names, or a mapping of names to mitigators",
            got=repr(methods),
            cure='For example ["naive", "fairneuron"].',
        )
    found: dict[str, MakeMitigator] = {}
    for name, method in given.items():
        if isinstance(method, str):
            require_known("option-methods", "method", method, METHODS)
        elif not callable(method):
            raise OptionError(
                "option-methods",
                f"The method {name!r} must be callable with a limit",
                got=type(method).__name__,
                cure="For example lambda limit: FairNeuron(limit=limit).",
            )
        if not re.fullmatch(rf"[A-Za-z][\w.-]{{,{_LONGEST - 1}}}", str(name), re.ASCII):
            raise OptionError(
                "option-methods",
                f"Names of methods are up to {_LONGEST} letters, digits, dots and hyphens",
                got=repr(name),
                cure="Choose another name.",
            )
        found[name] = METHODS[method] if isinstance(method, str) else method
    return found if threshold == 0.5 else _at(found, threshold)


def _at(methods: Mapping[str, MakeMitigator], threshold: float) -> dict[str, MakeMitigator]:
    """The methods for another threshold than .5; functions of others are left as they are."""
    ours = {name: method for name, method in methods.items() if isinstance(method, Named)}
    fixed = [name for name, method in ours.items() if method.path in _AT_HALF]
    if fixed:
        raise OptionError(
            "option-threshold",
            f"These methods decide at a threshold of 0.5: {', '.join(fixed)}",
            got=f"{threshold:g}",
            cure="Leave them out, or compare at 0.5.",
        )
    told = {
        name: replace(method, options=(*method.options, ("threshold", threshold)))
        for name, method in ours.items()
        if method.path in _TAKE_THRESHOLD
    }
    return {name: told.get(name, method) for name, method in methods.items()}


def criteria_named(criteria: Sequence[str]) -> tuple[str, ...]:
    """The gaps to lower in turn, each once.

    Raises:
        OptionError: For unknown ones, and for none at all.
    """
    listed = [criteria] if isinstance(criteria, str) else list(criteria)
    if not listed:
        raise OptionError(
            "option-criteria",
            "A comparison needs a criterion",
            got="none",
            cure=f"Known: {', '.join(CRITERIA)}.",
        )
    for name in listed:
        require_known("option-criteria", "criterion", name, CRITERIA)
    return tuple(dict.fromkeys(listed))


def reference_named(reference: str | None, methods: Sequence[str]) -> str:
    """The method that the others are compared with: ours if it is among them, else the first.

    Raises:
        OptionError: For one that is not compared.
    """
    if reference is None:
        return REFERENCE if REFERENCE in methods else methods[0]
    require_known("option-reference", "reference", reference, methods)
    return reference

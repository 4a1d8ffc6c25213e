"""The methods of tables 4 and 5, and the job that runs them on one split."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from fairneuron.audit import audit_scores
from fairneuron.compare.methods import METHODS, MakeMitigator, Named
from fairneuron.compare.protocol import Job
from fairneuron.compare.records import Record
from fairneuron.counterfactual import counterfactual_flip_rate
from fairneuron.data.dataset import Dataset
from fairneuron.errors import DataError
from fairneuron.loading import Parts
from fairneuron.models import predict
from fairneuron.reproduce.paper import EA, OURS
from fairneuron.reproduce.setting import DROPOUT, Scale
from fairneuron.trials import Trial

Configuration = dict[str, Any]


def methods_of(scale: Scale) -> dict[str, MakeMitigator]:
    """The methods of table 4, in its order; ours and two more rows come last."""
    schedule = ("schedule", scale.schedule)
    paper = (("recipe", "paper"), schedule, ("gamma", scale.gammas), ("theta", scale.thetas))
    own: dict[str, MakeMitigator] = {
        OURS: Named("repair:FairNeuron", options=(*paper, ("dropout", DROPOUT))),
        "fairneuron": METHODS["fairneuron"],
        "unawareness": Named(
            "reproduce.unawareness:Unawareness", takes_limit=False, options=(schedule,)
        ),
    }
    known = {name: METHODS[name] for name in ("naive", "reweighing", "reject-option", "fad")}
    known[THRESHOLDS] = replace(known["fad"], options=(("thresholds", True),))
    known[EA] = METHODS[EA]
    if scale.quick:
        known |= {name: replace(known[name], options=few) for name, few in _FEW.items()}
    return known | own


THRESHOLDS = "fad-thresholds"
"""FAD with thresholds per group on top, which read the group to predict."""
_STRENGTHS = ("strengths", (0.5, 1.0))
_FEW: dict[str, tuple[tuple[str, Any], ...]] = {
    "reweighing": (_STRENGTHS,),
    "fad": (_STRENGTHS,),
    THRESHOLDS: (_STRENGTHS, ("thresholds", True)),
    EA: (_STRENGTHS, ("iterations", 1)),
}
"""What methods that take long try in a quick run."""


@dataclass(frozen=True, eq=False)
class MethodsJob(Job):
    """Mitigators on one split; records have the test counts and flip rates too."""

    source: str = ""

    def _records(self, parts: Parts) -> Iterator[Record]:
        for record in super()._records(parts):
            yield record | {"source": self.source}

    def _configuration(self, trial: Trial, parts: Parts) -> Configuration:
        found = super()._configuration(trial, parts)
        if found["test"] is None or trial.model is None:
            return found
        return found | tested(trial.model, parts[2])


def tested(model: Any, test: Dataset) -> Configuration:
    """Test counts of a model, and its flip rate or why there is none."""
    counts = audit_scores(predict(model, test), test).counts
    try:
        flips: dict[str, Any] = {"flip_rate": counterfactual_flip_rate(model, test)}
    except DataError as error:
        flips = {"flip_rate": None, "no_flip_rate": error.rule}
    return {"counts": counts.tolist(), **flips}

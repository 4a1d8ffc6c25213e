"""Results in MLflow: settings, figures with their intervals and noise floors, and reports.

MLflow is imported when something is logged. What is logged are aggregates: neither rows nor weights
are. It goes where MLflow's tracking URI says, by default to a store in the current folder; MLflow's
own usage reports stay off unless somebody asked for them.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import singledispatch
from typing import Any

from fairneuron.audit import Audit
from fairneuron.compare.comparison import Comparison
from fairneuron.compare.html import sentence
from fairneuron.data.dataset import Dataset
from fairneuron.errors import OptionError, OutputError
from fairneuron.io import to_json
from fairneuron.markup import Html, el
from fairneuron.metrics.definitions import METRICS
from fairneuron.repair import Repair
from fairneuron.report.audit_page import audit_sentence
from fairneuron.report.page import document
from fairneuron.trials import Trial
from fairneuron.verdict import Change, Verdict

_TELEMETRY = "MLFLOW_DISABLE_TELEMETRY"
_PREFIX = r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)*"
_LONGEST = 100  # characters of a prefix; MLflow takes 250 for a whole name
_NO_GAP = "no seed has a usable configuration whose gap is defined"


@dataclass(frozen=True)
class _Entry:
    """What is logged.

    Attributes:
        params: Settings.
        metrics: Figures; None where ``reasons`` has the reason.
        tags: Texts.
        reasons: Why a metric has no value.
        files: Name to content.
    """

    params: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float | None] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)

    def under(self, prefix: str) -> _Entry:
        """The same with a prefix before all names."""
        fields = (getattr(self, f.name) for f in dataclasses.fields(self))
        return _Entry(*({f"{prefix}/{name}": v for name, v in each.items()} for each in fields))

    @property
    def values(self) -> dict[str, float]:
        """The metrics that have one."""
        return {name: float(v) for name, v in self.metrics.items() if v is not None}

    @property
    def texts(self) -> dict[str, str]:
        """The tags, those of undefined metrics too."""
        undefined = {f"{name}.undefined": self.reasons[name] for name in self.reasons}
        return self.tags | undefined


def log_to_mlflow(
    found: Audit | Verdict | Repair | Comparison,
    *,
    prefix: str = "",
    data: Dataset | None = None,
) -> str:
    """Logs a result to the active MLflow run, or to a new one that is ended again.

    Parameters: settings, limits, seeds, the data's name. Metrics: each figure with the bounds of
    its 95 % interval (``…_low``, ``…_high``) and its noise floor; an undefined one is left out, and
    the tag ``….undefined`` says why. Tags: outcomes and sentences. Artefacts: all figures as JSON,
    and a page but for verdicts. No row of the data, no weights.

    It goes where MLflow's tracking URI says. No server is started. The usage reports of MLflow stay
    off, unless ``MLFLOW_DISABLE_TELEMETRY`` is set or MLflow was imported before.

    Args:
        found: What ``audit``, ``judge``, ``repair`` or ``compare`` returned.
        prefix: Stands before all names, with a slash: "test" gives "test/dp". Names of a verdict,
            and of the one of a repair, have "validation" or "test" in them by themselves.
        data: The data that it is of, whose name, label and columns are logged too.

    Returns:
        The id of the run.

    Raises:
        OptionError: Without MLflow, for something else to log, and for a prefix that MLflow does
            not take.
        OutputError: If MLflow's store does not take it, for example a parameter that the run has
            already with another value.
    """
    if prefix and (not re.fullmatch(_PREFIX, prefix, re.ASCII) or len(prefix) > _LONGEST):
        raise OptionError(
            "option-prefix",
            f"A prefix is up to {_LONGEST} letters, digits, dots, hyphens and single slashes",
            got=repr(prefix),
            cure='For example "test" or "sex/test".',
        )
    entry = _entry(found)
    if data is not None:
        entry.params.update(_described(data))
    return _log(entry.under(prefix) if prefix else entry)


def _log(entry: _Entry) -> str:
    """Hands it to MLflow; the id of the run."""
    mlflow = _mlflow()
    with _told(mlflow), _run(mlflow) as run:
        mlflow.log_params(entry.params)
        mlflow.log_metrics(entry.values)
        mlflow.set_tags(entry.texts)
        for name, content in entry.files.items():
            mlflow.log_text(content.decode("utf-8", "backslashreplace"), name)
        return str(run.info.run_id)


def _mlflow() -> Any:
    """MLflow, which sends no usage reports unless somebody decided that."""
    os.environ.setdefault(_TELEMETRY, "true")
    try:
        import mlflow
    except ImportError as error:
        raise OptionError(
            "option-mlflow",
            "Logging to MLflow needs MLflow",
            got="an environment without it",
            cure="pip install 'fairneuron[mlflow]'",
        ) from error
    return mlflow


@contextmanager
def _run(mlflow: Any) -> Iterator[Any]:
    """The active run, which goes on, or a new one."""
    active = mlflow.active_run()
    if active is not None:
        yield active
    else:
        with mlflow.start_run() as run:
            yield run


@contextmanager
def _told(mlflow: Any) -> Iterator[None]:
    """Says in our way what MLflow did not take."""
    try:
        yield
    except (mlflow.exceptions.MlflowException, OSError) as error:
        text = str(error).strip() or type(error).__name__
        said = re.sub(r"://[^/@\s]*@", "://", text.splitlines()[0])  # no passwords
        raise OutputError(
            "output-mlflow",
            "MLflow must be able to log to where its tracking URI says",
            got=said[:300],
            cure="A run's parameters never change: give another prefix, or start a new run.",
        ) from error


@singledispatch
def _entry(found: object) -> _Entry:
    """What is logged of a result."""
    raise OptionError(
        "option-mlflow",
        "What is logged is an audit, a verdict, a repair or a comparison",
        got=type(found).__name__,
        cure="Give what fn.audit, fn.judge, fn.repair or fn.compare returned.",
    )


@_entry.register
def _(found: Audit) -> _Entry:
    values = found.to_dict()
    metrics: dict[str, float | None] = {}
    for name, value in found.metrics.items():
        metrics[name] = value
        metrics |= _bounds(name, found.intervals[name])
        metrics[f"{name}_noise_floor"] = found.noise_floor.get(name)
    return _Entry(
        params={"sensitive": _listed(found.sensitive_names), "audit_seed": found.seed},
        metrics={"n": found.counts.sum(), **metrics},
        tags={"sentence": audit_sentence(values)},
        reasons=dict(found.undefined),
        files={
            "audit.json": to_json(values),
            "audit.html": _page("Audit", found._repr_html_()),
        },
    )


@_entry.register
def _(found: Verdict) -> _Entry:
    metrics: dict[str, float | None] = {"n": found.n}
    reasons: dict[str, str] = {}
    for name, change in found.changes.items():
        figures = _figures(change)
        metrics |= {f"{name}_{figure}": value for figure, value in figures.items()}
        reasons |= {
            f"{name}_{figure}": METRICS[name].undefined
            for figure in ("before", "after")
            if figures[figure] is None
        }
    entry = _Entry(
        params={f"limit_{change.metric}": change.limit for change in found.limits},
        metrics=metrics,
        tags={
            "outcome": found.outcome,
            "sentence": found.sentence(),
            "worse": _listed(change.metric for change in found.worse),
        },
        reasons=reasons,
        files={"verdict.json": to_json(found.to_dict())},
    )
    return entry.under(re.sub(r"[^A-Za-z0-9]+", "-", found.on).strip("-") or "data")


def _figures(change: Change) -> dict[str, float | None]:
    return {
        "before": change.before,
        "after": change.after,
        "gain": change.gain,
        **_bounds("gain", change.interval),
        "noise_floor": change.noise_floor,
    }


@_entry.register
def _(found: Repair) -> _Entry:
    name = type(found.recipe).__name__.lower()
    chosen = {f"chosen_{k}": v for k, v in found.chosen.settings.items()}
    settings = _flat(dataclasses.asdict(found.recipe))
    judged = _entry(found.verdict)
    return dataclasses.replace(
        judged,
        params={
            "recipe": name,
            **settings,
            **{f"limit_{metric}": bound for metric, bound in found.limit.items()},
            "seed": found.seed,
            "threshold": found.threshold,
        },
        metrics=judged.metrics
        | {"candidates": len(found.trials) - 1, "chosen": found.chosen.number, **chosen},
        tags={
            **judged.tags,
            "explanation": found.explanation.sentence(),
            **({"stopped": found.stopped} if found.stopped else {}),
        },
        files={
            "repair.json": to_json(
                {
                    "recipe": name,
                    "settings": dataclasses.asdict(found.recipe),
                    "limit": found.limit,
                    "seed": found.seed,
                    "threshold": found.threshold,
                    "stopped": found.stopped,
                    "chosen": found.chosen.number,
                    "trials": [_tried(trial) for trial in found.trials],
                    "explanation": found.explanation.to_dict(),
                    "verdict": found.verdict.to_dict(),
                }
            ),
            "repair.html": _page("Repair", found._repr_html_()),
        },
    )


def _tried(trial: Trial) -> dict[str, Any]:
    return {
        "number": trial.number,
        "settings": trial.settings,
        "rejected": trial.rejected,
        "validation": trial.metrics,
        "training": trial.training,
    }


@_entry.register
def _(found: Comparison) -> _Entry:
    result, setup = found.to_dict(), found.setup
    methods = dict.fromkeys(record["method"] for record in found.records)
    entry = _Entry(
        params={
            "data": setup["data"],
            "sensitive": _listed(setup["sensitive"]),
            "features": setup["features"],
            "base_model": setup["model"],
            "methods": _listed(methods),
            "reference": found.reference,
            "seeds": _listed(result["seeds"]),
            "threshold": setup["threshold"],
        },
        files={
            "comparison.json": to_json(result),
            "comparison.md": found.to_markdown().encode(),
            "comparison.html": found.to_html(),
        },
    )
    for figures in result["criteria"]:
        name = figures["criterion"]
        _add_summaries(entry, f"{name}/base", figures["base"])
        entry.metrics[f"{name}/noise_floor"] = figures["base"]["noise_floor"]
        entry.tags[f"{name}/sentence"] = sentence(figures, result)
        for method, values in figures["methods"].items():
            entry.metrics[f"{name}/{method}/hypervolume"] = values["hypervolume"]["mean"]
            entry.metrics[f"{name}/{method}/rank"] = values["rank"]
            entry.metrics[f"{name}/{method}/failed"] = len(values["failed"])
        for at in figures["at"]:
            for method, values in at["methods"].items():
                where = f"{name}/at_{at['epsilon']:g}/{method}"
                _add_summaries(entry, where, values)
                for side in ("is_worse", "reference_is_worse"):
                    if side in values:
                        entry.tags[f"{where}/{side}"] = values[side]["verdict"]
    return entry


def _add_summaries(entry: _Entry, where: str, values: Mapping[str, Any]) -> None:
    """Adds the means over seeds of accuracy and gap, with their intervals."""
    for figure in ("accuracy", "gap"):
        over_seeds = values[figure]
        entry.metrics[f"{where}/{figure}"] = over_seeds["mean"]
        entry.metrics.update(_bounds(f"{where}/{figure}", over_seeds["interval"]))
        if over_seeds["mean"] is None:
            entry.reasons[f"{where}/{figure}"] = _NO_GAP


def _described(data: Dataset) -> dict[str, Any]:
    """What some data are; parts of the same data are alike in it."""
    found = data.describe()
    return {
        "data": found["name"],
        "features": found["features"],
        "positive": found["positive"],
        "sensitive": _listed(found["sensitive"]),
    }


def _bounds(name: str, interval: Any) -> dict[str, float | None]:
    low, high = (None, None) if interval is None else interval
    return {f"{name}_low": low, f"{name}_high": high}


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by name; those inside of others have both names."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}_{inner}": v for inner, v in value.items()}
        else:
            flat[name] = _listed(value) if isinstance(value, tuple) else value
    return flat


def _listed(values: Any) -> str:
    return ", ".join(map(str, values))


def _page(title: str, markup: str) -> bytes:
    """What a notebook shows, as a page of its own that loads and runs nothing."""
    return document(title, [], [el("section", Html(markup))])

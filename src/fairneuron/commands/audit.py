"""The command ``fairneuron audit``; free of torch, so that help is instant."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fairneuron.commands.common import at_work, print_json, table_of
from fairneuron.commands.gating import Annotations, Gate, GateLimits, JUnit, violated
from fairneuron.commands.pages import AuditReport, ReplaceReport, ReportFile
from fairneuron.data.tables import require_file
from fairneuron.errors import OptionError
from fairneuron.options import AsJson, part_of, with_subject
from fairneuron.report.terminal import print_audit, to_stdout
from fairneuron.subject import ModelChoice, Subject


@with_subject
def audit(
    subject: Subject,
    part: Annotated[
        str | None,
        typer.Option(
            help="Which part of the data: train, valid, test or all.", show_default="test"
        ),
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(
            help="A CSV or Parquet file with your model's predictions: a row per row of --data, or "
            "with the label and the sensitive columns in itself.",
            rich_help_panel="Model",
        ),
    ] = None,
    prediction: Annotated[
        str | None,
        typer.Option(
            help="Its column of predicted labels.",
            show_default="prediction",
            rich_help_panel="Model",
        ),
    ] = None,
    score: Annotated[
        str | None,
        typer.Option(
            help="Its column of probabilities of y = 1.",
            show_default="score",
            rich_help_panel="Model",
        ),
    ] = None,
    limit: GateLimits = None,
    junit: JUnit = None,
    annotations: Annotations = False,
    report: ReportFile = None,
    overwrite: ReplaceReport = False,
    as_json: AsJson = False,
) -> None:
    """Measure how unequally a network, or given predictions, treat groups.

    With --limit the exit code is 1 if a limit is violated or its metric undefined.
    """
    gate = Gate.asked(limit, junit, annotations=annotations, as_json=as_json)
    page = AuditReport.asked(report, overwrite=overwrite)
    part = part or ("test" if predictions is None else "all")
    index = part_of(part)
    if predictions is None:
        for option, value in (("--prediction", prediction), ("--score", score)):
            if value is not None:
                raise OptionError(
                    "option-predictions",
                    f"{option} names a column of --predictions",
                    got="no such file",
                    cure="Give --predictions too.",
                )
    else:
        if part != "all" or subject.model != ModelChoice():
            raise OptionError(
                "option-predictions",
                "Predictions are given for all rows, and need no model",
                got="--predictions with --part" if part != "all" else "--predictions and a model",
                cure="Leave that out.",
            )
        require_file(predictions)
    table = table_of(subject, inputs=predictions is None)

    if predictions is not None:
        from fairneuron.predictions import audit_predictions_file

        data, result = audit_predictions_file(
            subject, table, predictions, prediction=prediction, score=score
        )
    else:
        from fairneuron.audit import audit as run_audit
        from fairneuron.loading import load_model, load_parts, part_at

        with at_work() as progress:
            parts = load_parts(subject, table)
            model = load_model(subject, parts, progress)
            data = part_at(parts, index)
            result = run_audit(model, data, threshold=subject.threshold, seed=subject.seed)
    title = f"{subject.data.name}, {'all rows' if part == 'all' else f'{part} part'}"
    found = result.to_dict()
    held = gate.compare(found, title)
    limits = [one.to_dict() for one in held]
    page.write(subject, data, found, part=part, predictions=predictions, limits=limits)
    if as_json:
        from fairneuron.report.parts import reference_accuracy

        described = data.describe() | {"part": part}
        compared = {"limits": limits} if held else {}
        reference = {"most_frequent_class_accuracy": reference_accuracy(found)}
        print_json({"data": described, "seed": subject.seed, **found, **reference, **compared})
    else:
        print_audit(found, title)
        for one in violated(held):
            to_stdout(f"violated: {one.reason}")
    gate.leave(held)

"""The HTML report of an audit, as a file; free of torch, so that help is instant."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairneuron.commands.common import command_words
from fairneuron.errors import OptionError
from fairneuron.io import require_free_file, write_file
from fairneuron.report.terminal import to_stderr
from fairneuron.state import without_option
from fairneuron.subject import Subject

if TYPE_CHECKING:
    from fairneuron.data.dataset import Dataset

ReportFile = Annotated[
    Path | None,
    typer.Option("--report", help="HTML file to write: the audit with figures, in one file."),
]
ReplaceReport = Annotated[
    bool, typer.Option("--overwrite", help="Replace the file of an earlier --report.")
]


@dataclass(frozen=True)
class AuditReport:
    """What was asked for.

    Attributes:
        file: HTML to write, if any.
        overwrite: Whether to replace it.
    """

    file: Path | None
    overwrite: bool

    @classmethod
    def asked(cls, file: Path | None, *, overwrite: bool) -> AuditReport:
        """Reads the options, before any work.

        Raises:
            OptionError: For ``--overwrite`` without a file.
            OutputError: If the file cannot be written.
        """
        if overwrite and file is None:
            raise OptionError(
                "option-report",
                "--overwrite replaces the file of --report",
                got="no such file",
                cure="Give --report too.",
            )
        if file is not None:
            require_free_file(file, overwrite=overwrite)
        return cls(file, overwrite)

    def write(
        self,
        subject: Subject,
        data: Dataset,
        found: dict[str, Any],
        *,
        part: str,
        predictions: Path | None,
        limits: Sequence[dict[str, Any]] = (),
    ) -> None:
        """Writes the page, if it was asked for.

        Args:
            subject: What was audited.
            data: On which part of the data.
            found: What ``Audit.to_dict`` gives.
            part: The name of that part.
            predictions: The file with predictions, if they were audited.
            limits: Those that were asked for, and whether they hold.
        """
        if self.file is None:
            return
        from fairneuron.loading import sums
        from fairneuron.report.html import audit_page
        from fairneuron.report.markdown import shell_word
        from fairneuron.runs import described, used_versions

        files = sums(subject.data)
        if predictions is not None:
            with predictions.open("rb") as file:
                files[str(predictions)] = hashlib.file_digest(file, "sha256").hexdigest()
        words = without_option("--report", command_words())
        page = audit_page(
            {
                **found,
                "data": described(subject, data, files, part=part)
                | {"comes_with": subject.data.kind == "builtin"},
                "model": _audited(subject, predictions),
                "limits": list(limits),
                "command": " ".join(map(shell_word, ["fairneuron", *_kept(words)])),
                "versions": used_versions(),
            }
        )
        write_file(self.file, page, overwrite=self.overwrite)
        to_stderr(f"Report: {self.file}")


def _audited(subject: Subject, predictions: Path | None) -> str:
    if predictions is not None:
        return f"the predictions in {predictions.name}"
    if subject.model.weights is not None:
        return f"the model in {subject.model.weights.name}"
    return "a model trained here"


def _kept(words: Sequence[str]) -> list[str]:
    """The words of a command without what says how its result is shown."""
    return [word for word in words if word not in ("--json", "--overwrite")]

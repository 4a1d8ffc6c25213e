"""The report of an audit, as a page and as JSON; free of torch, so that help is instant."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairneuron.configuration import command_words
from fairneuron.errors import OptionError
from fairneuron.io import require_free_file, to_json, write_file
from fairneuron.report.terminal import to_stderr
from fairneuron.state import without_option
from fairneuron.subject import Subject

if TYPE_CHECKING:
    from fairneuron.data.dataset import Dataset

ReportFile = Annotated[
    Path | None,
    typer.Option(
        "--report",
        help="HTML file to write: the audit with figures, in one file; beside it the same for "
        "programs, as .json.",
    ),
]
ReplaceReport = Annotated[
    bool, typer.Option("--overwrite", help="Replace the files of an earlier --report.")
]


@dataclass(frozen=True)
class AuditReport:
    """What was asked for.

    Attributes:
        file: HTML to write, if any.
        overwrite: Whether to replace it, and the JSON beside it.
    """

    file: Path | None
    overwrite: bool

    @property
    def beside(self) -> Path | None:
        """The JSON file: that of the page with another ending."""
        if self.file is None:
            return None
        html = self.file.suffix.lower() in (".html", ".htm")
        return self.file.with_name((self.file.stem if html else self.file.name) + ".json")

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
        asked = cls(file, overwrite)
        if file is not None and file.suffix.lower() == ".json":
            raise OptionError(
                "option-report",
                "--report names the page, an HTML file",
                got=str(file),
                cure=f"Give {file.with_suffix('.html')}; the JSON is written beside it.",
            )
        for path in (asked.file, asked.beside):
            if path is not None:
                require_free_file(path, overwrite=overwrite)
        return asked

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
        """Writes the page and the JSON beside it, if they were asked for.

        Args:
            subject: What was audited.
            data: On which part of the data.
            found: What ``Audit.to_dict`` gives.
            part: The name of that part.
            predictions: The file with predictions, if they were audited.
            limits: Those that were asked for, and whether they hold.
        """
        if self.file is None or self.beside is None:
            return
        from fairneuron.loading import sums
        from fairneuron.report.audit_page import audit_page, audit_sentence
        from fairneuron.report.command import shell_word
        from fairneuron.report.document import audit_document
        from fairneuron.runs import described, used_versions

        files = sums(subject.data)
        if predictions is not None:
            with predictions.open("rb") as file:
                files[str(predictions)] = hashlib.file_digest(file, "sha256").hexdigest()
        words = without_option("--report", command_words())
        audited = {
            **found,
            "data": described(subject, data, files, part=part)
            | {"comes_with": subject.data.kind == "builtin"},
            "model": _audited(subject, predictions),
            "intended_use": subject.intended_use,
            "limits": list(limits),
            "command": " ".join(map(shell_word, ["fairneuron", *_kept(words)])),
            "versions": used_versions(),
        }
        document = audit_document(audited, audit_sentence(audited, audited["data"]["name"]))
        write_file(self.beside, to_json(document), overwrite=self.overwrite)
        write_file(self.file, audit_page(audited), overwrite=self.overwrite)
        to_stderr(f"Report: {self.file}, {self.beside}")


def _audited(subject: Subject, predictions: Path | None) -> str:
    if predictions is not None:
        return f"the predictions in {predictions.name}"
    if subject.model.weights is not None:
        return f"the model in {subject.model.weights.name}"
    return "a model trained here"


def _kept(words: Sequence[str]) -> list[str]:
    """The words of a command without what says how its result is shown."""
    return [word for word in words if word not in ("--json", "--overwrite")]

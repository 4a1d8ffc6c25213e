"""Comparing mitigators: run what is missing, and hand back records, tables and plots."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from fairneuron.compare.document import comparison_document
from fairneuron.compare.figures import Criterion
from fairneuron.compare.front import comparison_front
from fairneuron.compare.html import comparison_page, notebook
from fairneuron.compare.methods import (
    CRITERIA,
    MakeMitigator,
    criteria_named,
    methods_named,
    reference_named,
)
from fairneuron.compare.plots import front_plot, require_matplotlib
from fairneuron.compare.protocol import Job, versions
from fairneuron.compare.records import FILE, Key, Record, Records, require_folder
from fairneuron.compare.running import require_workers, run_jobs
from fairneuron.compare.setting import MakeModel, Setting, make_setting
from fairneuron.compare.tables import page
from fairneuron.data.dataset import Dataset
from fairneuron.errors import OptionError, require_range, require_whole
from fairneuron.io import to_json, write_file
from fairneuron.loading import Parts
from fairneuron.progress import Progress, quiet
from fairneuron.report.front import FILE as FRONT
from fairneuron.state import State


@dataclass(frozen=True, eq=False)
class Comparison:
    """What a comparison found.

    Attributes:
        setup: Data, splits and base model; see ``records``.
        records: A plain record per seed, method and criterion: figures of the base model and of
            every configuration on validation and test data, times, versions; no row of the data.
        reference: The method that the others are compared with.
    """

    setup: dict[str, Any]
    records: tuple[Record, ...]
    reference: str

    @cached_property
    def _figures(self) -> list[dict[str, Any]]:
        names = dict.fromkeys(record["criterion"] for record in self.records)
        return [
            Criterion(
                name, tuple(r for r in self.records if r["criterion"] == name), self.reference
            ).to_dict()
            for name in names
        ]

    def to_dict(self) -> dict[str, Any]:
        """All figures of the tables and plots, as plain values for JSON."""
        used = {json.dumps(record["versions"], sort_keys=True) for record in self.records}
        return {
            "setup": self.setup,
            "seeds": sorted({record["seed"] for record in self.records}),
            "versions": [json.loads(text) for text in sorted(used)],
            "criteria": self._figures,
        }

    def to_markdown(self) -> str:
        """The page of tables."""
        return page(self.to_dict())

    def to_html(self) -> bytes:
        """The page of tables and plots as one HTML file."""
        return comparison_page(self.to_dict())

    def plot(self, criterion: str) -> bytes:
        """Test accuracy against test gap of every method at each ε, as an SVG file.

        Args:
            criterion: One that was compared.

        Raises:
            OptionError: For another one, or without matplotlib.
        """
        found = {figures["criterion"]: figures for figures in self._figures}
        criteria_named([criterion])
        if criterion not in found:
            raise OptionError(
                "option-criteria",
                "A plot shows a criterion that was compared",
                got=criterion,
                cure=f"Compared: {', '.join(found)}.",
            )
        return front_plot(found[criterion], self.setup["data"])

    def write(
        self, folder: str | os.PathLike[str], *, plots: bool = True, interactive: bool = False
    ) -> None:
        """Writes pages, ``comparison.json``, records and plots, each file at once.

        The pages are ``comparison.md`` and ``report.html``; ``report.json`` is for programs.

        Args:
            folder: A new one, or that of an earlier comparison, whose records must be of the same
                setup; its page is replaced.
            plots: Whether to draw ``front-<criterion>.svg``, which needs matplotlib.
            interactive: Whether to write ``front.html``, too; one that is there is replaced anyway.

        Raises:
            OutputError: If the folder cannot be written.
            OptionError: For records of another comparison, or without matplotlib.
        """
        where = Path(folder)
        require_folder(where)
        with State(where) as run:
            kept = Records(self.setup, versions(), run, where)
            for record in self.records:
                kept.add(record)
            self._write(kept, run, plots=plots, interactive=interactive)

    def _write(self, kept: Records, run: State, *, plots: bool, interactive: bool) -> None:
        """Writes all records that are kept, and the pages of those of this comparison."""
        result = self.to_dict()
        files = {
            FILE: kept.lines(),
            "comparison.json": to_json(result),
            "comparison.md": self.to_markdown().encode(),
            "report.json": to_json(comparison_document(result)),
            "report.html": self.to_html(),
        }
        if interactive or (run.folder / FRONT).exists():
            files[FRONT] = comparison_front(result)
        if plots:
            for figures in self._figures:
                name = figures["criterion"]
                files[f"front-{name}.svg"] = self.plot(name)
        for name, content in files.items():
            write_file(run.folder / name, content, overwrite=True)
        run.done()

    def _repr_html_(self) -> str:
        return notebook(self.to_dict())

    def __repr__(self) -> str:
        names = ", ".join(dict.fromkeys(record["method"] for record in self.records))
        return f"Comparison({self.setup['data']!r}: {names}; {len(self.records)} records)"


def compare(
    data: str | Dataset | Parts,
    *,
    methods: Sequence[str] | Mapping[str, str | MakeMitigator],
    seeds: int | Sequence[int] = 10,
    model: MakeModel | nn.Module | None = None,
    criteria: Sequence[str] = CRITERIA,
    reference: str | None = None,
    threshold: float = 0.5,
    out: str | os.PathLike[str] | None = None,
    plots: bool = True,
    interactive: bool = False,
    workers: int | None = None,
    on: str = "process",
    progress: Progress = quiet,
) -> Comparison:
    """Compares mitigators on the same splits and base models.

    For each seed the data are split 70/10/20, stratified on label and group, and one base model is
    trained; every method then makes up to 12 configurations for every criterion. Configurations are
    chosen by validation figures alone; each is audited on test data once.

    Args:
        data: Name of a data set of ours; unscaled data; or (train, valid, test), which stay as they
            are for every seed.
        methods: Names of ours ("fairneuron", "naive", "reweighing", …), or a mapping of any names
            to them or to functions that make a mitigator from a limit such as {"dp": 0.05}. The
            limit says which gap to lower; what a method tries must not depend on its value.
        seeds: How many, from 0; or which. Tests need 10.
        model: Maps the training data to an untrained network, which is trained as
            ``train_classifier`` does; the paper's network unless given. Or a trained network of the
            given parts: then the seeds vary the methods alone.
        criteria: The gaps that are lowered in turn: "dp", "eo", "eodds".
        reference: The method that the others are compared with; "fairneuron", or the first one.
        threshold: On the probability of class 1, where candidates are audited. Methods of ours that
            decide at .5 are refused at another one; functions that make mitigators get none.
        out: A folder for records, page and plots. Records of the same comparison in it are not
            computed again, and those of a run that was stopped are kept.
        plots: Whether to draw plots into it, which needs matplotlib.
        interactive: Whether to write ``front.html`` into it: the methods, to show, hide and look at
            one by one.
        workers: Processes at once, each on one thread; 1 unless given, which computes in this one.
            More need a script that can be imported (``if __name__ == "__main__":``). On Ray: seeds
            at once; as many as there are CPUs unless given.
        on: "process"; "ray" for the Ray that runs, or one that is started on this machine alone;
            or the "ray://HOST:PORT" of a cluster. Records are the same, but for times.
        progress: Told of each record.

    Returns:
        Records, tables and plots.

    Raises:
        OptionError: For unknown names, values out of range, methods that do not go with the
            threshold, records of another comparison, and a Ray that is missing, does not answer or
            has no CPU.
        OutputError: If the folder cannot be written.
        DataError: For data that cannot be split or compared.
        ModelError: For a network that does not fit the data.
    """
    require_range("threshold", threshold, 0, 1)
    require_workers(workers, on)
    chosen, named = methods_named(methods, threshold), criteria_named(criteria)
    compared_with, numbers = reference_named(reference, list(chosen)), seeds_of(seeds)
    if out is not None:
        require_folder(Path(out))
    setting = make_setting(data, model, threshold)
    with nullcontext() if out is None else State(Path(out)) as run:
        return run_comparison(
            setting,
            methods=chosen,
            seeds=numbers,
            criteria=named,
            reference=compared_with,
            run=run,
            plots=plots,
            interactive=interactive,
            workers=workers,
            on=on,
            progress=progress,
        )


def run_comparison(
    setting: Setting,
    *,
    methods: Mapping[str, MakeMitigator],
    seeds: Sequence[int],
    criteria: Sequence[str],
    reference: str,
    run: State | None,
    plots: bool,
    interactive: bool = False,
    workers: int | None,
    on: str,
    progress: Progress,
) -> Comparison:
    """Computes the records that are missing and writes the folder of the run; see ``compare``."""
    if run is not None:
        run.agree("run", {"command": "compare"})
        if plots:
            require_matplotlib()
    records = Records(setting.describe(), versions(), run, None if run is None else run.folder)
    wanted = [(s, m, c) for s in seeds for m in methods for c in criteria]
    jobs = list(_jobs(setting, methods, records, records.missing(wanted)))
    left = {job.seed: len(job.wanted) for job in jobs}

    def done(record: Record) -> None:
        records.add(record)
        seed = record["seed"]
        left[seed] -= 1
        job = next(job for job in jobs if job.seed == seed)
        progress(f"seed {seed}", len(job.wanted) - left[seed], len(job.wanted))

    run_jobs(jobs, done, workers, on)
    found = Comparison(records.setup, records.of(wanted), reference)
    if run is not None:
        found._write(records, run, plots=plots, interactive=interactive)
    return found


def seeds_of(seeds: int | Sequence[int], first: int = 0) -> tuple[int, ...]:
    """The seeds, each once.

    Args:
        seeds: How many, or which.
        first: The first one, where it says how many.

    Raises:
        OptionError: For none, and for what is no seed.
    """
    given: Any = seeds
    if np.ndim(given) == 0:
        require_whole("seeds", given)
        require_range("seeds", given, 1, 10_000)
        given = range(first, first + int(given))
    numbers = tuple(dict.fromkeys(given))
    if not numbers:
        raise OptionError(
            "option-seeds", "A comparison needs a seed", got="none", cure="10 allow tests."
        )
    for number in numbers:
        require_whole("seeds", number)
        require_range("seeds", number, 0, 2**32 - 1)
    return tuple(int(number) for number in numbers)


def _jobs(
    setting: Setting,
    methods: Mapping[str, MakeMitigator],
    records: Records,
    missing: Sequence[Key],
) -> Iterator[Job]:
    """A job per seed with something to do."""
    for seed in dict.fromkeys(seed for seed, _, _ in missing):
        pairs = tuple((m, c) for s, m, c in missing if s == seed)
        needed = {name: methods[name] for name in dict.fromkeys(m for m, _ in pairs)}
        yield Job(setting, needed, seed, pairs, records.base(seed))

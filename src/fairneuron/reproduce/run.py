"""Runs what is missing of an experiment, and writes its page."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from fairneuron.compare.comparison import seeds_of
from fairneuron.compare.plots import require_matplotlib
from fairneuron.compare.protocol import Job, versions
from fairneuron.compare.records import FILE, Record, Records
from fairneuron.compare.running import require_workers, run_jobs
from fairneuron.data.dataset import Dataset
from fairneuron.errors import OptionError, require_known
from fairneuron.io import to_json, write_file
from fairneuron.progress import Progress, quiet
from fairneuron.reproduce.found import Found
from fairneuron.reproduce.images import CIFAR, IMAGES, require_images
from fairneuron.reproduce.page import page
from fairneuron.reproduce.paper import TITLES
from fairneuron.reproduce.place import require_place
from fairneuron.reproduce.plots import plots_of
from fairneuron.reproduce.published import THRESHOLD
from fairneuron.reproduce.setting import PARTS, PUBLISHED, Scale, setting_of
from fairneuron.reproduce.sources import ALL_PARTS, Source, sources_of
from fairneuron.reproduce.tables import data_sets, sections
from fairneuron.state import State


@dataclass(frozen=True, eq=False)
class Reproduction:
    """One of the paper's tables or figures, with the paper's figures and ours.

    Attributes:
        name: Such as "table4".
        seeds: Whose splits and trainings it is of.
        quick: Whether it only shows that everything runs.
        found: The records, by what they are of.
    """

    name: str
    seeds: tuple[int, ...]
    quick: bool
    found: tuple[Found, ...]

    @cached_property
    def _sections(self) -> list[dict[str, Any]]:
        if self.name == "table1":
            return data_sets(_described(Scale(self.quick)))
        return sections(self.name, self.found)

    def to_dict(self) -> dict[str, Any]:
        """All figures, the paper's too, as plain values for JSON."""
        used = {tuple(r["versions"].items()) for each in self.found for r in each.records}
        return {
            "name": self.name,
            "title": TITLES[self.name],
            "quick": self.quick,
            "seeds": list(self.seeds),
            "sections": self._sections,
            "versions": [dict(each) for each in sorted(used)] or [versions()],
        }

    def to_markdown(self) -> str:
        """The page."""
        return page(self.to_dict())

    def plots(self) -> dict[str, bytes]:
        """File name to SVG, for figures.

        Raises:
            OptionError: Without matplotlib.
        """
        return plots_of(self.name, self.found, self._sections, quick=self.quick)

    def write(self, folder: str | os.PathLike[str], *, plots: bool = True) -> None:
        """Writes ``<name>.md``, ``<name>.json`` and plots, in the place of earlier ones.

        Args:
            folder: A new one, or one of earlier experiments.
            plots: Whether to draw figures, which needs matplotlib.

        Raises:
            OutputError: If the folder cannot be written.
            OptionError: Without matplotlib.
        """
        where = Path(folder)
        require_place(where)
        files = {
            f"{self.name}.json": to_json(self.to_dict()),
            f"{self.name}.md": self.to_markdown().encode(),
            **(self.plots() if plots else {}),
        }
        for name, content in files.items():
            write_file(where / name, content, overwrite=True)

    def __repr__(self) -> str:
        records = sum(len(each.records) for each in self.found)
        return f"Reproduction({self.name!r}, {len(self.seeds)} seeds, {records} records)"


def reproduce(
    name: str,
    *,
    seeds: int | Sequence[int] = 10,
    data: Sequence[str] | None = None,
    sample: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] | None = None,
    quick: bool = False,
    plots: bool = True,
    workers: int | None = None,
    on: str = "process",
    progress: Progress = quiet,
) -> Reproduction:
    """Runs an experiment of the FairNeuron paper, and shows the paper's figures beside ours.

    Data, networks, splits (7:1:2) and training are the paper's. Data are without the leaks of the
    published COMPAS pipeline, which table 4 has as a part of its own. Table 7 is of images, in
    their makers' parts; all of CIFAR-10 needs a CUDA device.

    Args:
        name: "table1" to "table7", "figure4" or "figure5".
        seeds: How many, from 0; or which.
        data: "census", "credit", "compas" or "compas-published", or of table 7 "mnist" or
            "cifar10", to run a part of the experiment; all that it is of unless given.
        sample: A file with some of the images of CIFAR-10 (``.npz``), in the place of all of them:
            a smaller network and two seeds at most, marked as such in what is written.
        out: A folder for records, page and plots. Records in it are not computed again, and those
            of a run that was stopped are kept; experiments can share it, and tables 4 and 5 share
            records.
        quick: One seed, few rows and epochs, to see in seconds that everything runs; marked as such
            in what is written.
        plots: Whether to draw figures into ``out``, which needs matplotlib.
        workers: Processes at once, each on one thread; 1 unless given. With several, costs are too
            high. On Ray: jobs (a seed of a part) at once; as many as there are CPUs unless given.
        on: "process"; "ray" for the Ray that runs, or one that is started on this machine alone;
            or the "ray://HOST:PORT" of a cluster.
        progress: Told of each record.

    Returns:
        Records, page and plots.

    Raises:
        OptionError: For an unknown name, values out of range, records of other settings, and a Ray
            that is missing, does not answer or has no CPU.
        OutputError: If the folder cannot be written.
        DataError: For images that are not on this machine, and all of CIFAR-10 without CUDA.
    """
    require_known("option-reproduce", "experiment", name, TITLES)
    require_workers(workers, on)
    options: dict[str, Any] = {
        "seeds": seeds,
        "data": data,
        "sample": None if sample is None else os.fspath(sample),
        "quick": quick,
        "plots": plots,
        "workers": workers,
        "on": on,
        "progress": progress,
    }
    require_possible([name], data=data, sample=options["sample"], quick=quick)
    if out is None:
        return run_experiment(name, None, **options)
    require_place(Path(out))
    with State(Path(out)) as run:
        return run_experiment(name, run, **options)


def require_possible(
    names: Sequence[str], *, data: Sequence[str] | None, sample: str | None, quick: bool
) -> None:
    """Refuses, before any work, parts that experiments do not have or that cannot be run here.

    Raises:
        OptionError: For unknown parts, and a sample that is of no use.
        DataError: For images that are not on this machine, and all of CIFAR-10 without CUDA.
    """
    for part in data or ():
        require_known("option-data", "part of an experiment", part, ALL_PARTS)
    scale = Scale(quick, sample)
    parts = {source.part for name in names for source in sources_of(name, scale, data)}
    require_images([part for part in IMAGES if part in parts], scale)
    if sample is not None and CIFAR not in parts:
        raise OptionError(
            "option-data",
            f"A sample takes the place of {CIFAR}, which must be among the parts",
            got=f"{', '.join(names)} of {', '.join(sorted(parts)) or 'none'}",
            cure=f"Add --data {CIFAR}, or leave the sample out.",
        )


def run_experiment(
    name: str,
    run: State | None,
    *,
    seeds: int | Sequence[int],
    data: Sequence[str] | None,
    sample: str | None,
    quick: bool,
    plots: bool,
    workers: int | None,
    on: str,
    progress: Progress,
) -> Reproduction:
    """Computes the records that are missing and writes the folder of the run; see ``reproduce``.

    What ``require_possible`` refuses must have been refused before.
    """
    numbers, scale = seeds_of(seeds)[: 1 if quick else None], Scale(quick, sample)
    if run is not None:
        run.agree("run", {"command": "reproduce"})
        if plots and name.startswith("figure"):
            require_matplotlib()
    sources = sources_of(name, scale, data)
    if not sources and name != "table1":
        raise OptionError(
            "option-data",
            f"{name} must be of one of the data sets",
            got=", ".join(data or ()) or "none",
            cure="Leave it out to run all that it is of.",
        )
    kept: dict[str, Records] = {}
    jobs: list[Job] = []
    steps = 0
    for source in sources:
        setting = source.setting(scale)
        records = kept[source.folder] = Records(
            setting.describe(),
            versions(),
            run,
            None if run is None else _place(run, source),
            f"{source.folder}/",
        )
        missing = records.missing(source.keys(numbers))
        jobs += source.jobs(setting, missing, records.base, scale)
        steps += len(missing)
    done = 0

    def keep(record: Record) -> None:
        nonlocal done
        done += 1
        kept[record["source"]].add(record)
        progress(f"{name}: {TITLES[name]}", done, steps)

    run_jobs(jobs, keep, workers, on)
    found = tuple(
        Found(source, kept[source.folder].setup, kept[source.folder].of(source.keys(numbers)))
        for source in sources
    )
    result = Reproduction(name, numbers, quick, found)
    if run is not None:
        for source in sources:
            lines = kept[source.folder].lines()
            write_file(_place(run, source) / FILE, lines, overwrite=True)
        result.write(run.folder, plots=plots)
        run.done()
    return result


def _place(run: State, source: Source) -> Path:
    """Where the records of a source are."""
    return run.folder / "records" / source.folder


def experiments_of(data: Sequence[str] | None = None) -> list[str]:
    """Names of the experiments that are of some of the parts.

    Unless these are given, of those that come with the package: of no images.
    """
    wanted = PARTS if data is None else data
    return [n for n in TITLES if n == "table1" or sources_of(n, Scale(), wanted)]


def _described(scale: Scale) -> list[dict[str, str]]:
    """Table 1: data sets and networks."""
    made = []
    for part in PARTS:
        setting = setting_of(part, scale)
        setup, data = setting.describe(), getattr(setting.splits, "data", None)
        assert isinstance(data, Dataset)  # noqa: S101  # ours are split for each seed
        groups = [
            f"{level} {int((data.sensitive[:, 0] == code).sum())}"
            for code, level in enumerate(data.sensitive_levels[0])
        ]
        positive = data.y > THRESHOLD if part == PUBLISHED else data.y == 1
        made.append(
            {
                "name": part,
                "rows": str(len(data)),
                "parts": " / ".join(map(str, setup["rows"])),
                "features": str(setup["features"]),
                "groups": f"{data.sensitive_names[0]}: {', '.join(groups)}",
                "positive": f"{setup['positive']}, {positive.mean():.1%}",
                "network": setup["model"],
            }
        )
    return made

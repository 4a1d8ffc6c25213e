"""Which records an experiment reads, and which jobs compute those that are missing.

Records are those of ``fairneuron.compare``: a line per seed and method, with the same splits, base
models, clocks and resumption. An experiment reads those of some *parts* (a data set in a protocol).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from fairneuron.compare.methods import MakeMitigator
from fairneuron.compare.protocol import Job
from fairneuron.compare.records import Key
from fairneuron.compare.setting import Setting
from fairneuron.reproduce.images import (
    CIFAR,
    IMAGES,
    MNIST,
    SAMPLE_SEEDS,
    ImagesJob,
    image_methods,
    image_setting,
)
from fairneuron.reproduce.measures import MEASURES, MeasuresJob
from fairneuron.reproduce.methods import MethodsJob, methods_of
from fairneuron.reproduce.paper import EA
from fairneuron.reproduce.published_measures import (
    PUBLISHED_MEASURES,
    PUBLISHED_METHODS,
    PublishedJob,
)
from fairneuron.reproduce.setting import (
    CENSUS,
    COMPAS,
    CREDIT,
    PARTS,
    PUBLISHED,
    PaperSetting,
    Scale,
    setting_of,
)

ALL_PARTS = (*PARTS, *IMAGES)


@dataclass(frozen=True)
class Source:
    """Records of one kind and part.

    Attributes:
        kind: "methods", "measures", "published", "images" or "sample".
        part: One of ``ALL_PARTS``.
        names: Methods or measures.
    """

    kind: str
    part: str
    names: tuple[str, ...]

    @property
    def criterion(self) -> str:
        """Which gap is to be lowered."""
        return "mcd" if self.part in IMAGES else "dp"

    def setting(self, scale: Scale) -> PaperSetting:
        """The splits and base models."""
        make = image_setting if self.part in IMAGES else setting_of
        return make(self.part, scale)

    @property
    def folder(self) -> str:
        """Where its records are, below the output folder."""
        return f"{self.kind}-{self.part}"

    def keys(self, seeds: Sequence[int]) -> list[Key]:
        """Those of its records."""
        some = seeds[:SAMPLE_SEEDS] if self.kind == "sample" else seeds
        return [(seed, name, self.criterion) for seed in some for name in self.names]

    def jobs(
        self, setting: Setting, missing: Sequence[Key], bases: Callable[[int], Any], scale: Scale
    ) -> Iterator[Job]:
        """What computes the records that are missing, a job per seed.

        Args:
            setting: Of the part.
            missing: Their keys.
            bases: Seed to the base model's figures in records of before.
            scale: Of the experiment.
        """
        for seed in dict.fromkeys(seed for seed, _, _ in missing):
            wanted = tuple((name, criterion) for s, name, criterion in missing if s == seed)
            known = self._known(scale)
            methods = {name: known[name] for name, _ in wanted}
            given = (setting, methods, seed, wanted, bases(seed), self.folder)
            if self.part in IMAGES:
                yield ImagesJob(*given)
            elif self.kind == "methods":
                yield MethodsJob(*given)
            else:
                yield (MeasuresJob if self.kind == "measures" else PublishedJob)(*given, scale)

    def _known(self, scale: Scale) -> Mapping[str, MakeMitigator]:
        if self.part in IMAGES:
            return image_methods(self.part, scale)
        if self.kind == "methods":
            return methods_of(scale)
        table = MEASURES if self.kind == "measures" else PUBLISHED_MEASURES
        return cast("Mapping[str, MakeMitigator]", table)  # their job calls them otherwise


DATA_SETS = (CENSUS, CREDIT, COMPAS)


def sources_of(name: str, scale: Scale, data: Sequence[str] | None = None) -> tuple[Source, ...]:
    """The records that a table or figure is made of; tables 4 and 5 share theirs.

    Args:
        name: Of the experiment.
        scale: Of it.
        data: The parts that are wanted; unless given all, in a quick run without the two that have
            the largest networks, Census and CIFAR-10.
    """
    wanted = data
    if wanted is None:
        wanted = (CREDIT, COMPAS, PUBLISHED, MNIST) if scale.quick else ALL_PARTS
    return tuple(each for each in _all_sources(name, scale) if each.part in wanted)


def _all_sources(name: str, scale: Scale) -> tuple[Source, ...]:
    methods = tuple(methods_of(scale))
    measured = {
        "table2": ("clusters", DATA_SETS),
        "table3": ("ablations", DATA_SETS),
        "table6": ("steps", DATA_SETS),
        "figure4": ("paths", (COMPAS,)),
    }
    if name in measured:
        measure, parts = measured[name]
        return tuple(Source("measures", part, (measure,)) for part in parts)
    if name == "table4":
        published = Source("published", PUBLISHED, tuple(PUBLISHED_METHODS))
        return (*(Source("methods", part, methods) for part in DATA_SETS), published)
    if name == "table5":
        costly = tuple(m for m in methods if m != "naive")
        return tuple(Source("methods", part, costly) for part in DATA_SETS)
    if name == "table7":
        return tuple(
            Source(
                "sample" if part == CIFAR and scale.sample is not None else "images",
                part,
                tuple(image_methods(part, scale)),
            )
            for part in IMAGES
        )
    if name == "figure5":
        over = ("theta", "gamma")
        return (
            Source("measures", COMPAS, over),
            Source("methods", COMPAS, (EA,)),
            Source("published", PUBLISHED, over),
        )
    return ()

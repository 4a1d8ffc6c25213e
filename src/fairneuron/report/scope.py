"""What the data of a report let it tell; every form of a report asks here."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from fairneuron.metrics.definitions import METRICS

_OF_ONE_CLASS = ("f1", "auc")  # y = 1 against everything else


@dataclass(frozen=True)
class Scope:
    """What can be told.

    Attributes:
        groups: Whether groups are compared.
        classes: The classes, if the accuracy of each is told: without groups, or if there are more
            than two.
    """

    groups: bool
    classes: tuple[str, ...]

    @property
    def several(self) -> bool:
        """Whether there are more than two classes, so that ``y = 1`` is one among others."""
        return len(self.classes) > 2

    @property
    def alike(self) -> str:
        """What the noise floors take to be treated alike."""
        if not self.groups:
            return "classes"
        return "groups (or classes)" if self.classes else "groups"

    def left_out(self, asked: Collection[str] = ()) -> list[str]:
        """The metrics that say nothing here, but for those that somebody asked for."""
        return [
            name
            for name, metric in METRICS.items()
            if name not in asked
            and ((metric.groupwise and not self.groups) or (name in _OF_ONE_CLASS and self.several))
        ]


def scope_of(audited: dict[str, Any]) -> Scope:
    """What an audit, as ``Audit.to_dict`` gives it, lets a report tell."""
    classes = tuple(one["class"] for one in audited.get("classes", ()))
    return Scope(groups=bool(audited["sensitive"]), classes=classes)

"""Where an experiment is written. Free of torch, so that a bad folder is refused at once."""

from __future__ import annotations

from pathlib import Path

from fairneuron import state
from fairneuron.io import require_new_or_ours
from fairneuron.reproduce.paper import TITLES


def require_place(folder: Path) -> None:
    """Checks, before any work, that a folder is new, or has experiments of ours alone.

    Raises:
        OutputError: If it is neither, or cannot be written.
    """
    require_new_or_ours(folder, _ours, "earlier experiments")


def _ours(folder: Path) -> bool:
    names = {path.name for path in folder.iterdir()} - state.FILES
    return all(n == "records" or n.split(".")[0].split("-")[0] in TITLES for n in names)

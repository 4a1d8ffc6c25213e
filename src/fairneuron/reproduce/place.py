"""Where an experiment is written. Free of torch, so that a bad folder is refused at once."""

from __future__ import annotations

import os
from pathlib import Path

from fairneuron.errors import OutputError
from fairneuron.io import require_free
from fairneuron.reproduce.paper import TITLES


def require_place(folder: Path) -> None:
    """Checks, before any work, that a folder is new, or has experiments of ours alone.

    Raises:
        OutputError: If it is neither, or cannot be written.
    """
    if not os.path.lexists(folder):
        require_free(folder)
        return
    if not folder.is_dir() or not all(map(_ours, folder.iterdir())):
        raise OutputError(
            "output-exists",
            "The output folder must be new, or one of earlier experiments to go on with",
            got=str(folder),
            cure="Choose another name.",
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(
            "output-readonly",
            "The output folder must be writable",
            got=str(folder),
            cure="Choose another place.",
        )


def _ours(path: Path) -> bool:
    return path.name == "records" or path.name.split(".")[0].split("-")[0] in TITLES

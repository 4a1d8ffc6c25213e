"""Images of the user's: a folder of files by class, by group and class, or with a table; arrays."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from fairneuron.data.arrays import COLOURS
from fairneuron.data.columns import require_columns
from fairneuron.data.groups import require_groups
from fairneuron.data.imagefile import ENDINGS, Pixels, read_image
from fairneuron.data.named_arrays import dataset_of_arrays
from fairneuron.data.npz import read_npz
from fairneuron.data.parts import part_of_words
from fairneuron.data.tables import read_table
from fairneuron.errors import DataError, OptionError, Problems, did_you_mean, printable, warn

if TYPE_CHECKING:
    from fairneuron.data.dataset import Dataset, Ints

TABLE = "labels.csv"
_FILE, _LABEL, _SPLIT = "file", "label", "split"
_MOST_FILES = 1 << 22
_MOST_VALUES = 1 << 31
_DEEPEST, _DEEPEST_LISTED = 3, 16  # levels; the latter where a table names the files


@dataclass(frozen=True, eq=False)
class _Listed:
    """Which images there are, and what is known of each: labels, columns of groups, parts."""

    files: list[str]
    labels: list[str]
    groups: dict[str, list[Any]]
    part: Ints | None = None


def read_images(
    path: str | Path,
    *,
    sensitive: str | Sequence[str] = (),
    positive: str | None = None,
    size: int | tuple[int, int] | None = None,
    name: str | None = None,
) -> Dataset:
    """Reads labelled images: PNG and JPEG files in a folder (needs ``[images]``), or a ``.npz``.

    A folder is ``CLASS/FILE``, or ``GROUP/CLASS/FILE``; the names of its folders are the labels and
    groups. Or a table ``labels.csv`` in it has a row per image: the columns ``file`` (its path in
    the folder, up to 16 levels deep) and ``label`` (the folder it lies in unless there is such a
    column), if wanted ``split``, and sensitive columns.

    Args:
        path: The folder, or a file of arrays; see ``docs/images.md``.
        sensitive: Which sensitive columns of the table or the arrays to compare; all unless given.
            There need not be any: then gaps between classes alone can be audited.
        positive: The label of ``y = 1``, needed for two classes other than 0 and 1. Otherwise
            labels are numbered in their order.
        size: Height and width to resize files to; they must be of one size unless given.
        name: What to call the data in reports; its path unless given.

    Returns:
        ``x (n, channels, height, width)`` with values from 0 to 1, one channel if all are grey.

    Raises:
        DataError: For images that cannot be read, links out of the folder, and tables that do not
            fit.
        OptionError: For a size that is none, and without Pillow.
    """
    path = Path(path)
    chosen = [sensitive] if isinstance(sensitive, str) else list(sensitive)
    title = str(path) if name is None else name
    wanted = _size(size)
    if not path.is_dir():
        if wanted is not None:
            raise OptionError(
                "option-size", "Arrays have a size", got=f"size={size}", cure="Leave it out."
            )
        return dataset_of_arrays(read_npz(path), sensitive=chosen, positive=positive, name=title)
    listed = _listed(path, chosen)
    y, classes = _classes(listed.labels, positive)
    known = {name: pd.Series(values).dropna() for name, values in listed.groups.items()}
    require_groups({f"Column {name!r}": column.unique() for name, column in known.items()})
    from fairneuron.data.dataset import Dataset

    x = _pixels(path, listed.files, wanted)
    table = np.empty((len(y), len(listed.groups)), dtype=object)
    for k, values in enumerate(listed.groups.values()):
        table[:, k] = values
    data = Dataset.from_arrays(
        x,
        y,
        table if listed.groups else None,
        sensitive_names=list(listed.groups),
        feature_names=COLOURS[x.shape[1]],
        class_names=classes,
        positive=classes[1],
        name=title,
    )
    return replace(data, part=listed.part)


def read_unlabelled(folder: Path) -> tuple[Pixels, list[str]]:
    """Images to predict, with their paths in the folder.

    Args:
        folder: As for ``read_images``, or one that holds files alone. ``labels.csv``, if it is
            there, says which, and in which order; it needs no column but ``file``.

    Returns:
        ``(n, 1 or 3, height, width)``, and the files.

    Raises:
        DataError: For images that cannot be read, and links out of the folder.
        OptionError: Without Pillow.
    """
    files, table = image_files(folder), _table(folder)
    if table is not None:
        files = _named_files(table, files)
    return _pixels(folder, files, None), files


def _size(size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    if size is None:
        return None
    pair = tuple(size) if isinstance(size, (tuple, list)) else (size, size)
    if len(pair) != 2 or not all(isinstance(side, int) and 0 < side <= 1 << 14 for side in pair):
        raise OptionError(
            "option-size",
            "A size must be the height and width in pixels, 1 to 16384",
            got=repr(size),
            cure="For example 64, or (48, 64).",
        )
    return pair[0], pair[1]


# Which images


def image_files(folder: Path) -> list[str]:
    """The images below a folder, sorted, as paths in it with slashes; nothing is opened.

    Raises:
        DataError: For other files, links to folders and out of the folder, and more than three
            levels, or 16 where ``labels.csv`` names the files.
    """
    deepest = _DEEPEST_LISTED if (folder / TABLE).is_file() else _DEEPEST
    found = sorted(_walk(folder, folder.resolve(), (), deepest))
    if not found:
        raise DataError(
            "data-empty",
            "The folder must have images",
            got=f"none in {printable(str(folder))}",
            cure=f"Put them there as CLASS/FILE{ENDINGS[0]}.",
        )
    if len(found) > _MOST_FILES:
        raise _strange(folder, f"{len(found)} files", f"Give at most {_MOST_FILES}.")
    return found


def _walk(folder: Path, root: Path, above: tuple[str, ...], deepest: int) -> Iterator[str]:
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        raise _strange(folder, error.strerror or "unreadable", "Check its rights.") from error
    for entry in entries:
        here = (*above, entry.name)
        if entry.name.startswith(".") or entry.name == "Thumbs.db" or here == (TABLE,):
            continue
        place = Path(entry.path)
        if place.is_dir():
            if entry.is_symlink():
                raise _strange(place, "a link to a folder", "Copy the images there.")
            if len(here) >= deepest:
                raise _strange(
                    place,
                    "a folder too deep",
                    f"The deepest is GROUP/CLASS/FILE, or {_DEEPEST_LISTED} levels where {TABLE} "
                    "names the files.",
                )
            yield from _walk(place, root, here, deepest)
            continue
        if not entry.name.lower().endswith(ENDINGS):
            raise _strange(place, "another file", f"Keep {', '.join(ENDINGS)} alone in there.")
        if _leaves(place, root):
            raise _strange(place, "a link out of the folder", "Copy the image there.")
        yield "/".join(here)


def _leaves(place: Path, root: Path) -> bool:
    """Whether it is a link to somewhere else; a circle of links leads nowhere."""
    return place.is_symlink() and not Path(os.path.realpath(place)).is_relative_to(root)


def _strange(path: Path, got: str, cure: str) -> DataError:
    return DataError(
        "data-folder",
        "A folder of images must hold images by class",
        got=f"{printable(str(path))}, {got}",
        cure=cure,
    )


def _listed(folder: Path, sensitive: Sequence[str]) -> _Listed:
    files = image_files(folder)
    table = _table(folder)
    if table is not None:
        return _by_table(table, files, sensitive)
    paths = [file.split("/") for file in files]
    depths = {len(parts) for parts in paths}
    if len(depths) > 1 or depths == {1}:
        odd = min(files, key=lambda file: file.count("/"))
        raise _strange(folder / odd, "in no folder of a class", f"Move it, or write {TABLE}.")
    groups: dict[str, list[Any]] = {}
    if depths == {_DEEPEST}:
        groups = {"group": [parts[0] for parts in paths]}
    for column in sensitive:
        if column not in groups:
            raise DataError(
                "data-no-column",
                f"Sensitive columns of images are named in {TABLE}, or are their folders",
                got=repr(column),
                cure=did_you_mean(column, groups) if groups else f"Write {TABLE}.",
            )
    return _Listed(files, [parts[-2] for parts in paths], groups)


def _table(folder: Path) -> pd.DataFrame | None:
    """``labels.csv`` of a folder, if it has one."""
    if not (folder / TABLE).is_file():
        return None
    if _leaves(folder / TABLE, folder.resolve()):
        raise _strange(folder / TABLE, "a link out of the folder", "Copy the table there.")
    return read_table(folder / TABLE, text={_FILE, _LABEL, _SPLIT})


def _by_table(table: pd.DataFrame, files: Sequence[str], sensitive: Sequence[str]) -> _Listed:
    own = [str(c) for c in table.columns if c not in {_FILE, _LABEL, _SPLIT}]
    chosen = list(dict.fromkeys(sensitive)) or own
    given = _named_files(table, files, chosen)
    return _Listed(
        given,
        _labels_of(table, given),
        {column: table[column].tolist() for column in chosen},
        part_of_words(table[_SPLIT]) if _SPLIT in table else None,
    )


def _named_files(
    table: pd.DataFrame, files: Sequence[str], columns: Sequence[str] = ()
) -> list[str]:
    """The images that a table names, in its order; it must have these columns, too."""
    require_columns(table, [_FILE, *columns])
    known, given = set(files), [str(file) for file in table[_FILE]]
    lost = [file for file in given if file not in known]
    if lost:
        raise DataError(
            "data-file",
            f"Each file in {TABLE} must be an image in its folder",
            got=f"{lost[0]!r} and {len(lost) - 1} others" if len(lost) > 1 else repr(lost[0]),
            cure=did_you_mean(lost[0], files),
        )
    if len(set(given)) < len(given):
        twice = table[_FILE][table[_FILE].duplicated()].iloc[0]
        raise DataError(
            "data-file",
            f"Each file must be in {TABLE} once",
            got=repr(twice),
            cure="Drop the second row.",
        )
    if len(given) < len(files):
        warn("data-unlisted", f"{len(files) - len(given)} images are not in {TABLE}: left out")
    return given


def _labels_of(table: pd.DataFrame, files: Sequence[str]) -> list[str]:
    if _LABEL not in table:
        if not all("/" in file for file in files):
            require_columns(table, [_LABEL])
        return [file.split("/")[-2] for file in files]
    missing = int(table[_LABEL].isna().sum())
    if missing:
        raise DataError(
            "data-label-missing",
            "Every image needs a label",
            got=f"{missing} missing in {TABLE}",
            cure="Drop these rows.",
        )
    return [str(label) for label in table[_LABEL]]


# What they are


def _classes(labels: Sequence[str], positive: str | None) -> tuple[Ints, list[str]]:
    """The label of each image as a number, and their names in that order."""
    names = sorted(set(labels), key=lambda name: (not name.isdecimal(), len(name), name))
    if not all(name.isdecimal() for name in names):
        names = sorted(names)
    if len(names) < 2:
        raise DataError(
            "data-labels",
            "Images must have two classes or more",
            got=f"only {names}",
            cure="Give images of both classes.",
        )
    if positive is None and len(names) == 2 and names != ["0", "1"]:
        raise DataError(
            "data-positive",
            "The positive label must be named",
            got=f"values {names[0]} and {names[1]}",
            cure=f"For example --positive {shlex.quote(names[1])}, in Python "
            f"positive={names[1]!r}.",
        )
    if positive is not None:
        if len(names) != 2 or positive not in names:
            raise DataError(
                "data-positive",
                "The positive label must be one of two classes",
                got=repr(positive),
                cure=did_you_mean(positive, names),
            )
        names = [*(name for name in names if name != positive), positive]
    places = {name: k for k, name in enumerate(names)}
    return np.array([places[label] for label in labels], dtype=np.int64), names


def _pixels(folder: Path, files: Sequence[str], size: tuple[int, int] | None) -> Pixels:
    """``(n, 1 or 3, height, width)``; what cannot be read is told together."""
    problems, read, values = Problems(), list[Pixels](), 0
    for file in files:
        with problems.collected():
            pixels = read_image(folder / file, size=size)
            if read and pixels.shape[1:] != read[0].shape[1:]:
                raise _other_size(files[0], read[0], file, pixels)
            read.append(pixels)
            values += pixels.size
        if len(problems.found) >= Problems.MOST:
            break
        if values > _MOST_VALUES:
            raise DataError(
                "data-too-large",
                f"Images can have at most {_MOST_VALUES >> 20} million numbers together",
                got=f"{len(files)} images of {' × '.join(map(str, read[0].shape))}",
                cure="Give fewer, or smaller ones; in Python size= makes them smaller.",
            )
    problems.settle()
    channels = max(pixels.shape[0] for pixels in read)
    x: Pixels = np.empty((len(read), channels, *read[0].shape[1:]), dtype=np.uint8)
    for i in range(len(read)):
        x[i], read[i] = read[i], _NOTHING  # a grey one in all three channels
    return x


_NOTHING: Pixels = np.empty(0, dtype=np.uint8)


def _other_size(first: str, before: Pixels, file: str, now: Pixels) -> DataError:
    return DataError(
        "data-shape",
        "All images must be of one size",
        got=f"{printable(first)} of {' × '.join(map(str, before.shape[1:]))}, "
        f"{printable(file)} of {' × '.join(map(str, now.shape[1:]))}",
        cure="Resize the files, or in Python read_images(..., size=64).",
    )

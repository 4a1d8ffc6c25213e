"""Reads what a subject names: tables, arrays, splits, and the model.

The table is read and checked without torch; only then is anything encoded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fairneuron.data.builtin import KNOWN, SOURCES, load_dataset
from fairneuron.data.columns import require_columns
from fairneuron.data.imagefile import ENDINGS
from fairneuron.data.imagefolder import TABLE, image_files, read_images
from fairneuron.data.named_arrays import dataset_of_arrays
from fairneuron.data.npz import read_npz
from fairneuron.data.parts import part_of_words
from fairneuron.data.schema import Schema
from fairneuron.data.tables import read_table
from fairneuron.errors import (
    DataError,
    ModelError,
    OptionError,
    did_you_mean,
    warn,
)
from fairneuron.subject import DataChoice, Subject
from fairneuron.usercode import given_model, own_inputs

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

    from fairneuron.data.dataset import Dataset, Ints
    from fairneuron.progress import Progress
    from fairneuron.training import Keep

Parts = tuple["Dataset", "Dataset", "Dataset"]
SPLIT = "fairneuron.split"  # entry in the header of weights


@dataclass(frozen=True, eq=False)
class Table:
    """A table of the user's, read and found good.

    Attributes:
        frame: Its rows.
        schema: What its columns mean.
        part: ``(n,)`` 0 for training, 1 for validation, 2 for test; None if nobody split it.
    """

    frame: pd.DataFrame
    schema: Schema
    part: Ints | None

    @property
    def texts(self) -> tuple[str, ...]:
        """The columns that were read as texts."""
        kinds = self.frame.dtypes
        return tuple(str(name) for name in self.frame.columns if kinds[name].kind not in "biufc")


def read_own_table(choice: DataChoice, *, inputs: bool = True) -> Table:
    """Reads and checks the user's table or tables, without torch.

    Args:
        choice: Which, and what its columns mean.
        inputs: Whether its other columns are inputs; not where predictions are at hand.

    Raises:
        DataError: For everything that is wrong with them.
    """
    declared = {name for name, kind in choice.types.items() if kind == "category"}
    frames = _read_alike(choice, {*declared, str(choice.split_column)})
    frame, part = _joined(frames, choice)
    if choice.split_column is not None:
        require_columns(frame, [choice.split_column])
        part = part_of_words(frame.pop(choice.split_column))
    sensitive = resolved(choice.sensitive, frame)
    drop = resolved(choice.drop, frame)
    options: dict[str, Any] = {
        "target": str(choice.target),
        "positive": choice.positive,
        "sensitive": sensitive,
        "types": dict(choice.types),
        "weight": choice.weight,
    }
    if choice.encode is not None or not inputs:
        require_columns(frame, drop)
        schema = Schema.fit(frame, inputs=(), **options)
        left = {schema.target: "target"} | dict.fromkeys(drop, "dropped")
        schema = replace(schema, unused=tuple(left.items()))  # the others may be inputs
    else:
        schema = Schema.of_table(
            frame, include_sensitive=choice.include_sensitive, drop=drop, **options
        )
    if part is not None:
        _warn_shared(frame, part)
    return Table(frame, schema, part)


def _read_alike(choice: DataChoice, texts: set[str]) -> list[pd.DataFrame]:
    """Reads all files; a column that is a text in one of them is a text in each."""
    delimiter = choice.delimiter or ","
    frames = [read_table(path, delimiter=delimiter, text=texts) for path in choice.files]
    found = [{str(n) for n in f.columns if f[n].dtype.kind not in "biufc"} for f in frames]
    every = set.union(*found)
    return [
        frame
        if texts_here >= every & set(map(str, frame.columns))
        else read_table(path, delimiter=delimiter, text=texts | every)
        for path, frame, texts_here in zip(choice.files, frames, found, strict=True)
    ]


def load_parts(subject: Subject, table: Table | None = None) -> Parts:
    """Training, validation and test part of the data.

    Args:
        subject: What to load.
        table: What ``read_own_table`` gave, if it was called before.

    Raises:
        DataError: For data that cannot be used.
    """
    data, part = _load(subject.data, table)
    if part is not None:
        if not (part == 1).any():
            part = data.with_validation(part, seed=subject.seed)
        return data.split_by(part, scale=subject.scaled)
    parts = data.split(subject.seed, scale=subject.scaled)
    if subject.model.given and _trained_on(subject.model.weights) != split_name(subject, parts):
        warn(
            "data-split",
            "The data are split here: rows that the model was trained on may be among the test "
            f"data; give your own split ({_own_split(subject.data)}) if you can",
        )
    return parts


def _own_split(choice: DataChoice) -> str:
    """How the user's own split is given, for such data."""
    if choice.kind == "arrays":
        return "an array split with train, valid and test"
    if choice.kind == "images" and choice.data not in KNOWN:
        return f"a column split with train, valid and test in {TABLE}"
    return "--train/--test, --split-column"


def part_at(parts: Parts, index: int) -> Dataset:
    """The training (0), validation (1) or test part (2), or all rows of them (3)."""
    return parts[index] if index < len(parts) else parts[0].joined(*parts[1:])


def load_whole(subject: Subject, table: Table | None = None) -> Dataset:
    """All rows, in their order, with labels and groups; a table's inputs are left out.

    Args:
        subject: What to load.
        table: What ``read_own_table`` gave, if it was called before.
    """
    choice = subject.data
    if choice.kind != "table":
        return _load(choice, None)[0]
    table = table or read_own_table(choice, inputs=False)
    nothing = np.zeros((len(table.frame), 0), dtype=np.float32)
    return table.schema.with_inputs(table.frame, nothing, (), name=choice.name)


def _load(choice: DataChoice, table: Table | None) -> tuple[Dataset, Ints | None]:
    """The data, unscaled, and the part of each row if somebody split them."""
    if choice.kind == "builtin":
        chosen = choice.sensitive or None
        include = choice.include_sensitive
        return load_dataset(str(choice.data), sensitive=chosen, include_sensitive=include), None
    if choice.kind == "arrays":
        return _load_arrays(choice)
    if choice.kind == "images":
        return _load_images(choice)
    table = table or read_own_table(choice)
    return encode_table(table.frame, table.schema, choice), table.part


def encode_table(frame: pd.DataFrame, schema: Schema, choice: DataChoice) -> Dataset:
    """A table as a dataset: in our encoding, or in the user's own."""
    if choice.encode is None:
        return schema.encode(frame, name=choice.name)
    x, names = own_inputs(choice.encode, frame, dict(schema.unused))
    return schema.with_inputs(frame, x, names, name=choice.name)


def load_model(
    subject: Subject, parts: Parts, progress: Progress, keep: Keep | None = None
) -> nn.Module:
    """The model: the user's, one that fairneuron wrote, or trained on the training part.

    Args:
        subject: What to load.
        parts: Its data.
        progress: Told of its training.
        keep: Called around its training.

    Raises:
        ModelError: For a model that cannot be loaded or does not fit the data.
    """
    from fairneuron.checks import check_model
    from fairneuron.training import at_once, train_classifier

    train, valid, _ = parts
    choice = subject.model
    if train.x.ndim > 2 and not choice.given:
        raise OptionError(
            "option-model",
            "Images need a trained network of yours",
            got="none: those that are trained here read tables",
            cure="Give --model MODULE:FUNCTION and --weights FILE.",
        )
    if choice.given:
        model = given_model(choice.model, choice.weights)
        left_out = [f"{name} ({why})" for name, why in train.schema.unused] if train.schema else []
        check_model(model, train.x, feature_names=train.feature_names, left_out=left_out)
        if choice.weights is None:
            warn(
                "model-weights",
                f"The weights are those that {choice.model} returns; give --weights if they are in "
                "a file",
            )
        return model.eval()
    ours = SOURCES[subject.data.name].hidden if subject.data.kind == "builtin" else (32, 32, 32)
    return train_classifier(
        train,
        valid,
        hidden=choice.hidden or ours,
        outputs=choice.outputs,
        seed=subject.seed,
        keep=keep or at_once,
        progress=progress,
    )


def sums(choice: DataChoice) -> dict[str, str]:
    """The sha256 sums of the user's data files, by path as it was given."""
    if choice.kind == "builtin":
        return {}
    found = {}
    for path in choice.files:
        if path.is_dir():
            found[str(path)] = _folder_sum(path)
            continue
        with path.open("rb") as file:
            found[str(path)] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def _folder_sum(folder: Path) -> str:
    """A sum over the names and contents of images, and of their table."""
    total, table = hashlib.sha256(), [TABLE] if (folder / TABLE).is_file() else []
    for name in (*table, *image_files(folder)):
        with (folder / name).open("rb") as file:
            each = hashlib.file_digest(file, "sha256").hexdigest()
        total.update(f"{each}  {name}\n".encode("utf-8", "surrogateescape"))
    return total.hexdigest()


def parts_sum(parts: Parts) -> str:
    """A sum over all that the parts hold."""
    found = hashlib.sha256()
    for part in parts:
        for column in (part.x.cpu().numpy(), part.y, part.sensitive, part.weight):
            found.update(b"" if column is None else np.ascontiguousarray(column).tobytes())
    return found.hexdigest()


def split_name(subject: Subject, parts: Parts, files: Mapping[str, str] | None = None) -> str:
    """Says which rows are in which part, as a sum over what that follows from; for weights.

    The labels and groups of the parts stand for the target, its positive label and the sensitive
    columns, which a split of ours is stratified on.
    """
    choice = subject.data
    name = choice.data if choice.data in KNOWN else None
    files = sums(choice) if files is None else files
    facts = [name, *files.values(), subject.seed, choice.split_column]
    split = hashlib.sha256(json.dumps(facts).encode())
    for data in parts:
        split.update(data.y.tobytes() + data.group.tobytes())
    return split.hexdigest()


def _trained_on(weights: Path | None) -> str | None:
    """The split whose training part weights of ours were trained on."""
    if weights is None:
        return None
    from fairneuron.checkpoints import read_tensors

    return read_tensors(weights)[0].get(SPLIT)


def _joined(frames: Sequence[pd.DataFrame], choice: DataChoice) -> tuple[pd.DataFrame, Ints | None]:
    """The tables one below the other, with the part of each row."""
    import pandas as pd

    if choice.data is not None:
        return frames[0], None
    columns = list(frames[0].columns)
    for path, frame in zip(choice.files, frames, strict=True):
        lost = [name for name in columns if name not in frame.columns]
        if lost:
            raise DataError(
                "data-no-column",
                f"{path} must have the columns of {choice.files[0]}",
                got=f"no {lost[0]!r}",
                cure=did_you_mean(lost[0], frame.columns),
            )
    codes = [0, 1, 2] if choice.valid is not None else [0, 2]
    part = np.repeat(codes, [len(frame) for frame in frames]).astype(np.int64)
    return pd.concat([frame[columns] for frame in frames], ignore_index=True), part


def resolved(given: Sequence[str], frame: pd.DataFrame) -> list[str]:
    """Column names: each text is one, or several with commas between."""
    names = [
        name
        for text in given
        for name in ([text] if text in frame.columns else [p.strip() for p in text.split(",")])
    ]
    return list(dict.fromkeys(names))


def _warn_shared(frame: pd.DataFrame, part: Ints) -> None:
    """Warns of test rows that stand in the other parts too."""
    import pandas as pd

    rows = pd.util.hash_pandas_object(frame.astype(str), index=False).to_numpy()
    shared = int(np.isin(rows[part == 2], rows[part != 2]).sum())
    if shared:
        warn(
            "data-shared-rows",
            f"{shared} of {int((part == 2).sum())} test rows are equal to rows of the training or "
            "validation part: copies make the test too easy",
        )


def _load_arrays(choice: DataChoice) -> tuple[Dataset, Ints | None]:
    loaded = [read_arrays(path) for path in choice.files]
    datasets = [
        dataset_of_arrays(
            arrays,
            sensitive=[n.strip() for text in choice.sensitive for n in text.split(",")],
            positive=choice.positive,
            name=choice.name,
        )
        for arrays in loaded
    ]
    if choice.data is None:
        return _joined_arrays(datasets, choice)
    return datasets[0], datasets[0].part


def _load_images(choice: DataChoice) -> tuple[Dataset, Ints | None]:
    if choice.data in KNOWN:
        data = load_dataset(str(choice.data))
    else:
        chosen = [n.strip() for text in choice.sensitive for n in text.split(",")]
        data = read_images(
            str(choice.data), sensitive=chosen, positive=choice.positive, name=choice.name
        )
    return data, data.part


def _joined_arrays(datasets: Sequence[Dataset], choice: DataChoice) -> tuple[Dataset, Ints]:
    first = datasets[0]
    for path, other in zip(choice.files, datasets, strict=True):
        if other.feature_names != first.feature_names or (
            (other.sensitive_names, other.sensitive_levels, other.positive)
            != (first.sensitive_names, first.sensitive_levels, first.positive)
        ):
            raise DataError(
                "data-shape",
                f"{path} must have the features and groups of {choice.files[0]}",
                got=f"{len(other.feature_names)} features, groups {list(other.group_names)}",
                cure="Put them into one file with an array named split.",
            )
    codes = [0, 1, 2] if choice.valid is not None else [0, 2]
    part = np.repeat(codes, [len(data) for data in datasets]).astype(np.int64)
    return first.joined(*datasets[1:]), part


def read_arrays(path: Path) -> dict[str, Any]:
    """The named arrays of a ``.npz`` file, or of a file of tensors."""
    if path.suffix.lower() == ".npz":
        return read_npz(path)
    from fairneuron.checkpoints import read_tensors

    try:
        _, tensors = read_tensors(path)
    except ModelError as error:
        raise DataError(
            "data-file",
            "Arrays must be in a .npz file, or in a .safetensors or .pt file of tensors",
            got=str(error.got),
            cure="Give the folder that the image is in."
            if path.suffix.lower() in ENDINGS
            else "Save the tensors in a dictionary: x, y, sensitive.",
        ) from error
    return {
        name: (value.float() if str(value.dtype) == "torch.bfloat16" else value).numpy()
        for name, value in tensors.items()
    }

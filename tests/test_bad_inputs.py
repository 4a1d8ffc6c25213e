"""Everything that can be wrong with data, labels, groups, predictions and options.

One table, in the order of the project's list of bad inputs: what is given, and what must come of
it. Models and weights are in ``test_bad_models.py`` and ``test_weights.py``, runs in
``test_bad_runs.py``.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse

import fairneuron as fn
from fairneuron.data.dataset import Dataset
from fairneuron.data.named_arrays import dataset_of_arrays
from fairneuron.data.schema import Schema
from fairneuron.data.tables import read_table
from fairneuron.errors import FairNeuronError, FairNeuronWarning
from fairneuron.loading import load_parts, read_arrays, read_own_table
from fairneuron.predictions import audit_predictions_file
from fairneuron.subject import DataChoice, Subject
from tests import test_bad_models, test_bad_runs, test_weights
from tests.conftest import Says
from tests.test_cli import Outcome, environment, run_main

ROLES = ("--target", "y", "--sensitive", "sex")
N = 24
COLUMNS: dict[str, Sequence[object]] = {
    "age": [20 + 7 * i % 40 for i in range(N)],
    "job": ["cook", "nurse", "actor"] * 8,
    "sex": ["m", "f", "f", "m"] * 6,
    "y": [0, 1, 1, 0, 1, 0] * 4,
}


def columns(**changes: Sequence[object] | None) -> dict[str, Sequence[object]]:
    """The columns of a good table, some of them other ones; None leaves one out."""
    return {name: v for name, v in (COLUMNS | changes).items() if v is not None}


def text(delimiter: str = ",", **changes: Sequence[object] | None) -> str:
    """The table as CSV."""
    chosen = columns(**changes)
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
    writer.writerows([[*chosen], *zip(*chosen.values(), strict=True)])
    return file.getvalue()


def first(value: object, column: str, others: Sequence[object] | None = None) -> list[object]:
    """A column of the table with another value in its first row."""
    return [value, *(others or COLUMNS[column])[1:]]


def packed(**arrays: object) -> bytes:
    """Arrays as an ``.npz`` file, those of the table unless given."""
    given = {"x": X, "y": COLUMNS["y"], "sensitive": COLUMNS["sex"]} | arrays
    file = io.BytesIO()
    np.savez(file, **{name: np.asarray(v) for name, v in given.items() if v is not None})
    return file.getvalue()


X = np.stack([np.arange(N) % 7, np.arange(N) % 5 - 0.5], axis=1)


def parquet(table: pa.Table) -> bytes:
    """A table as a Parquet file."""
    file = io.BytesIO()
    pq.write_table(table, file, store_schema=False)
    return file.getvalue()


def one_text_in_all_rows(size: int, rows: int) -> pa.Table:
    """A table whose text a Parquet file stores once."""
    texts = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), ["x" * size])
    return pa.table({"a": texts})


def lying_array() -> bytes:
    """A NumPy file whose header announces more than there is."""
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (9999999999,)}".ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00v\x00" + header


def sparse() -> bytes:
    """A sparse matrix as SciPy saves it."""
    file = io.BytesIO()
    scipy.sparse.save_npz(file, scipy.sparse.csr_matrix(X))
    return file.getvalue()


def zipped(name: str, content: bytes) -> bytes:
    """A compressed archive of one file."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return file.getvalue()


Content = str | bytes | Callable[[], bytes]  # large ones are made when they are needed


@dataclass(frozen=True)
class File:
    """A file given as --data, and what its columns mean."""

    content: Content
    options: tuple[str, ...] = ROLES
    name: str = "data.csv"
    more: dict[str, Content] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Puts it into a folder, with the others that it needs."""
        for name, content in {self.name: self.content, **self.more}.items():
            made = content() if callable(content) else content
            (folder / name).write_bytes(made.encode() if isinstance(made, str) else made)

    @property
    def words(self) -> tuple[str, ...]:
        """The command that audits it."""
        return ("audit", "--data", self.name, *self.options)

    def __call__(self) -> Any:
        given = dict(zip(self.options[::2], self.options[1::2], strict=True))
        types = dict([given["--type"].split("=")]) if "--type" in given else {}
        choice = DataChoice(
            data=self.name,
            target=given.get("--target"),
            positive=given.get("--positive"),
            sensitive=tuple(given["--sensitive"].split(",")) if "--sensitive" in given else (),
            split_column=given.get("--split-column"),
            weight=given.get("--weight-column"),
            drop=(given["--drop"],) if "--drop" in given else (),
            types=types,
            delimiter=given.get("--delimiter"),
        )
        if choice.split_column is not None:
            return load_parts(Subject(choice))
        if choice.kind == "arrays":
            return dataset_of_arrays(read_arrays(Path(self.name)), positive=choice.positive)
        table = read_own_table(choice)
        return table.schema.encode(table.frame)


def arrays(options: tuple[str, ...] = (), **given: object) -> File:
    """Ready arrays."""
    return File(packed(**given), options, "data.npz")


@dataclass(frozen=True)
class Predicted(File):
    """A file of predictions for the good table."""

    def __init__(self, content: str, *options: str) -> None:
        super().__init__(content, options, "predictions.csv", {"data.csv": text()})

    @property
    def words(self) -> tuple[str, ...]:
        """The command that audits them."""
        return ("audit", "--data", "data.csv", *ROLES, "--predictions", self.name, *self.options)

    def __call__(self) -> Any:
        given = {k.removeprefix("--"): v for k, v in zip(*[iter(self.options)] * 2, strict=True)}
        subject = Subject(
            DataChoice("data.csv", target="y", sensitive=("sex",)),
            threshold=float(given.pop("threshold", 0.5)),
        )
        return audit_predictions_file(subject, None, Path(self.name), **given)[1]


@dataclass(frozen=True)
class Parts(File):
    """A table for training and another one for testing."""

    @property
    def words(self) -> tuple[str, ...]:
        """The command that audits them."""
        return ("audit", "--train", self.name, "--test", "test.csv", *ROLES)

    def __call__(self) -> Any:
        choice = DataChoice(
            train=Path(self.name), test=Path("test.csv"), target="y", sensitive=("sex",)
        )
        return load_parts(Subject(choice))


@dataclass(frozen=True)
class Words:
    """A command."""

    words: tuple[str, ...]

    def write(self, folder: Path) -> None:
        """Files that it may name."""
        (folder / "folder.csv").mkdir()
        os.mkfifo(folder / "pipe.csv")
        (folder / "data.csv").write_text(text(), encoding="utf-8")


def words(line: str) -> Words:
    """A command as it is typed."""
    return Words(tuple(line.split()))


def frame(*, sensitive: str | list[str] = "sex", **changes: Any) -> Callable[[], Dataset]:
    """The same table in Python."""
    roles = {k: changes.pop(k) for k in ("positive", "types") if k in changes}
    return lambda: Dataset.from_frame(
        pd.DataFrame(columns(**changes)), target="y", sensitive=sensitive, **roles
    )


def later(**changes: Sequence[object] | None) -> Callable[[], object]:
    """Inputs for a prediction, after a schema was fitted on the good table."""
    return lambda: Schema.of_table(pd.DataFrame(COLUMNS), target="y", sensitive=["sex"]).inputs_of(
        pd.DataFrame(columns(**changes))
    )


def predictions(labels: object = None, scores: object = None, **more: Any) -> Callable[[], Any]:
    """An audit of arrays of predictions."""
    return lambda: fn.audit_predictions(
        Dataset.from_frame(pd.DataFrame(COLUMNS), target="y", sensitive="sex"),
        labels,
        scores,
        **more,
    )


def column(name: str, values: Sequence[object]) -> str:
    """A file of one column."""
    return "\n".join([name, *map(str, values), ""])


Holds = Callable[[Any], object]


@dataclass(frozen=True)
class Warns:
    """Goes on with a warning of this code, and this holds of the outcome."""

    code: str
    holds: Holds = lambda data: len(data) == N


def names(*expected: str) -> Callable[[Dataset], bool]:
    """Whether these are the inputs."""
    return lambda data: data.feature_names == expected


def groups(*expected: str) -> Callable[[Dataset], bool]:
    """Whether these are the groups."""
    return lambda data: data.group_names == expected


JOBS = ("job=actor", "job=cook", "job=nurse")
USUAL = names("age", *JOBS)
HOSTILE = ("<script>", "[/x]", "$_{", "\x1b[31m", "two\nlines", "=cmd", "{{7*7}}")

# row of the list, what is given, and its outcome: a code is a refusal, a condition is success
ROWS: list[tuple[int, str, Any, str | Warns | Holds]] = [
    # Data
    (1, "empty field", File(text(age=first("", "age"))), "data-nonfinite"),
    (1, "nan", File(text(age=first("nan", "age"))), "data-nonfinite"),
    (1, "NaN of pandas", frame(age=first(np.nan, "age")), "data-nonfinite"),
    (1, "NaN of arrays", arrays(x=np.where(X == 3, np.nan, X)), "data-nonfinite"),
    (1, "later", later(age=first(None, "age")), "data-nonfinite"),
    (2, "-inf", File(text(age=first("-inf", "age"))), "data-nonfinite"),
    (2, "Infinity", File(text(age=first("Infinity", "age"))), "data-nonfinite"),
    (2, "infinite in pandas", frame(age=first(np.inf, "age")), "data-nonfinite"),
    (2, "infinite in arrays", arrays(x=np.where(X == 3, np.inf, X)), "data-nonfinite"),
    (3, "1e400", File(text(age=first("1e400", "age"))), "data-nonfinite"),
    (3, "beyond float32", File(text(age=first("1e39", "age"))), "data-nonfinite"),
    (4, "empty", File(b""), "data-empty"),
    (4, "a BOM", File(b"\xef\xbb\xbf"), "data-empty"),
    (4, "empty lines", File("\n\n"), "data-empty"),
    (4, "empty arrays", File(b"", (), "data.npz"), "data-empty"),
    (4, "empty gzip", File(gzip.compress(b"")), "data-empty"),
    (5, "header only", File("age,job,sex,y\n"), "data-empty"),
    (5, "no rows in pandas", lambda: Dataset.from_frame(
        pd.DataFrame(COLUMNS).iloc[:0], target="y", sensitive="sex"), "data-empty"),
    (5, "no rows in arrays", arrays(x=X[:0], y=[], sensitive=[]), "data-shape"),
    (6, "a field more per line", File("age,sex,y\n" + "20,m,0,9\n30,f,1,8\n" * 12), "data-ragged"),
    (7, "a field more", File(text() + "20,cook,m,0,9\n"), "data-ragged"),
    (7, "a field less", File(text() + "20,cook,m\n"), "data-ragged"),
    (7, "a header of more", File("age,job,sex,y,\n" + text().partition("\n")[2]), "data-ragged"),
    (8, "unclosed quote", File(text() + '20,"cook,m,0\n'), "data-quote"),
    (8, "text after a quote", File(text() + '20,"co"ok,m,0\n'), "data-quote"),
    (9, "semicolons", File(text(";")), "data-delimiter"),
    (9, "tabs", File(text("\t")), "data-delimiter"),
    (9, "semicolons, as is said", File(text(";"), (*ROLES, "--delimiter", ";")), USUAL),
    (10, "BOM", File(b"\xef\xbb\xbf" + text().encode()), USUAL),
    (11, "UTF-16", File(text().encode("utf-16")), "data-encoding"),
    (11, "UTF-16 without a mark", File(text().encode("utf-16-le")), "data-encoding"),
    (11, "UTF-32", File(text().encode("utf-32-be")), "data-encoding"),
    (11, "latin-1", File(text(job=first("café", "job")).encode("latin-1")), "data-encoding"),
    (12, "NUL", File(text(job=first("co\0ok", "job"))), "data-nul"),
    (12, "NUL, packed", File(gzip.compress(text(job=first("\0", "job")).encode())), "data-nul"),
    (13, "a name twice", File("age,job,sex,y,age\n" + "20,a,m,0,1\n30,b,f,1,1\n" * 9),
     "data-duplicate-column"),
    (13, "twice but for spaces", File("age, age ,sex,y\n" + "2,1,m,0\n3,1,f,1\n" * 9),
     "data-duplicate-column"),
    (13, "twice in pandas", lambda: Dataset.from_frame(pd.concat(
        [pd.DataFrame(COLUMNS), pd.DataFrame({"age": COLUMNS["age"]})], axis=1),
        target="y", sensitive="sex"), "data-duplicate-column"),
    (13, "twice in Parquet", File(parquet(pa.table(
        [[1, 2], ["m", "f"], [0, 1], [3, 4]], names=["age", "sex", "y", "age"]))),
     "data-duplicate-column"),
    (13, "twice in arrays", arrays(feature_names=["a", "a"]), "data-duplicate-column"),
    (14, "trailing delimiter", File(text().replace("\n", ",\n")), Warns("data-trailing", USUAL)),
    (14, "but not in the header", File(text().replace("\n", ",\n").replace("y,", "y", 1)),
     Warns("data-trailing", USUAL)),
    (14, "with a value far below", File(
        "age,sex,y,\n" + "20,m,0,\n30,f,1,\n40,f,0,\n" * 999 + "20,m,0,lost\n"), "data-unnamed"),
    (15, "2^60", File(text(age=first(2**60, "age"))), "data-huge-integer"),
    (15, "10^30", File(text(age=first(10**30, "age"))), "data-huge-integer"),
    (15, "10^30 beside a gap", File(text(age=["", *first(10**30, "age")[:-1]])),
     "data-huge-integer"),
    (15, "10^400", File(text(age=first("1" + "0" * 400, "age"))), "data-huge-integer"),
    (15, "2^60 in pandas", frame(age=first(2**60, "age")), "data-huge-integer"),
    (15, "-2^63 in pandas", frame(age=first(-(2**63), "age")), "data-huge-integer"),
    (15, "objects in pandas", frame(age=pd.Series(first(10**400, "age"), dtype=object)),
     "data-huge-integer"),
    (16, "1,234 in every row", File(text(age=[f"{a},234" for a in COLUMNS["age"]])),
     "data-number-format"),
    (16, "1,234 in a row", File(text(age=first("1,234", "age"))), "data-number-format"),
    (16, "5 %", File(text(age=[f"{a} %" for a in COLUMNS["age"]])), "data-number-format"),
    (17, "leading zeros", File(text(age=["007", "7", "01234"] * 8)), Warns(
        "data-leading-zeros", names("age=007", "age=01234", "age=7", *JOBS))),
    (17, "leading zeros and spaces", File(text(age=["007 ", "7 ", "08 "] * 8)), Warns(
        "data-leading-zeros", names("age=007 ", "age=08 ", "age=7 ", *JOBS))),
    (17, "leading zeros of codes", File(text(age=["01.10", "01.1", "1.1"] * 8)), Warns(
        "data-leading-zeros", names("age=01.1", "age=01.10", "age=1.1", *JOBS))),
    (18, "one number", File(text(age=[3] * N)), Warns("data-constant", USUAL)),
    (18, "one text", File(text(job=["cook"] * N)), Warns("data-constant",
                                                             names("age", "job=cook"))),
    (18, "nothing at all", frame(job=[None] * N), Warns("data-constant",
                                                        names("age", "job=unknown"))),
    (19, "a copy", File(text(label=COLUMNS["y"])), "data-target-used"),
    (19, "a copy in words", File(text(label=["no" if v else "yes" for v in COLUMNS["y"]])),
     "data-target-used"),
    (19, "sensitive", File(text(), ("--target", "y", "--sensitive", "y")), "data-target-used"),
    (19, "weight", File(text(), (*ROLES, "--weight-column", "y")), "data-target-used"),
    (19, "a copy in arrays", arrays(x=np.column_stack([X, COLUMNS["y"]])), "data-target-used"),
    (20, "names", File(text(job=[f"p{i}" for i in range(N)])), Warns("data-identifier",
                                                                    names("age"))),
    (20, "names, declared", File(text(job=[f"p{i}" for i in range(N)]),
                                 (*ROLES, "--type", "job=category")),
     lambda data: data.x.shape[1] == N + 1),
    (21, "texts among numbers", File(text(age=first("old", "age"))), "data-mixed"),
    (21, "NA among numbers", File(text(age=first("NA", "age"))), "data-mixed"),
    (21, "a text in pandas", frame(age=first("old", "age")), "data-mixed"),
    (21, "lists", frame(age=[[a] for a in COLUMNS["age"]]), "data-type"),
    (21, "dates", frame(age=pd.date_range("2020", periods=N)), "data-type"),
    (22, "complex", frame(age=np.array(COLUMNS["age"]) * 1j), "data-complex"),
    (22, "complex arrays", arrays(x=X * 1j), "data-type"),
    (22, "sparse", frame(age=pd.arrays.SparseArray(COLUMNS["age"])), "data-sparse"),
    (22, "sparse arrays", File(sparse(), (), "data.npz"), "data-no-column"),
    (23, "fewer labels", arrays(y=COLUMNS["y"][1:]), "data-lengths"),
    (23, "fewer groups", arrays(sensitive=COLUMNS["sex"][1:]), "data-lengths"),
    (23, "fewer predictions", Predicted(column("prediction", COLUMNS["y"][1:])), "data-lengths"),
    (23, "predictions of two dimensions", predictions(np.eye(N)), "data-lengths"),
    (24, "test rows in training", Parts(text(), more={"test.csv": text()}), Warns(
        "data-shared-rows", lambda parts: len(parts[2]) == N)),
    (25, "gzip", File(lambda: gzip.compress(b"a,b\n" + b"1,2\n" * (20 << 20))), "data-bomb"),
    (25, "zip", File(lambda: zipped("x.npy", bytes(80 << 20)), (), "data.npz"), "data-bomb"),
    (25, "Parquet", File(lambda: parquet(one_text_in_all_rows(20_000, 30_000))), "data-bomb"),
    (25, "header of an array", File(zipped("x.npy", lying_array()), (), "data.npz"), "data-bomb"),
    (26, "a folder", words("audit --data folder.csv --target y --sensitive sex"), "data-file"),
    (26, "a pipe", words("audit --data pipe.csv --target y --sensitive sex"), "data-file"),
    (26, "a device", words("audit --data /dev/zero --target y --sensitive sex"), "data-file"),
    (26, "nothing", words("audit --data ./none.csv --target y --sensitive sex"), "data-file"),
    (26, "a pipe of predictions", words(
        "audit --data data.csv --target y --sensitive sex --predictions pipe.csv"), "data-file"),
    (27, "hostile categories", File(text(job=[HOSTILE[i % 7] for i in range(N)])),
     lambda data: set(data.feature_names[1:]) == {f"job={name}" for name in HOSTILE}),
    (27, "hostile columns", File(text(**{n: [i * k % 5 + i // 9 for i in range(N)]
                                         for k, n in enumerate(HOSTILE, 1)})),
     lambda data: set(HOSTILE) <= set(data.feature_names)),
    (27, "hostile groups", File(text(sex=[HOSTILE[i % 7] for i in range(N)])),
     lambda data: set(data.group_names) == set(HOSTILE)),
    # Labels and groups
    (28, "no label", File(text(y=first("", "y"))), "data-label-missing"),
    (28, "NaN of arrays", arrays(y=first(np.nan, "y")), "data-label-missing"),
    (28, "None of pandas", frame(y=first(None, "y")), "data-label-missing"),
    (29, "one class", File(text(y=[1] * N)), "data-labels"),
    (29, "one class in arrays", arrays(y=[1] * N), "data-labels"),
    (30, "words", File(text(y=["yes" if v else "no" for v in COLUMNS["y"]])), "data-positive"),
    (30, "words, as is said", File(text(y=["no" if v else "yes" for v in COLUMNS["y"]]),
                                   (*ROLES, "--positive", "no")),
     lambda data: data.y.tolist() == COLUMNS["y"]),
    (30, "words, as is wrongly said", File(text(y=["no" if v else "yes" for v in COLUMNS["y"]]),
                                           (*ROLES, "--positive", "No")), "data-positive"),
    (30, "words in arrays", arrays(y=["yes" if v else "no" for v in COLUMNS["y"]]),
     "data-positive"),
    (30, "bytes in arrays, as is said", arrays(
        ("--positive", "yes"), y=[b"yes" if v else b"n\xff" for v in COLUMNS["y"]]),
     lambda data: data.y.tolist() == COLUMNS["y"]),
    (31, "1 and 2", File(text(y=[v + 1 for v in COLUMNS["y"]])), "data-positive"),
    (31, "-1 and 1", File(text(y=[2 * v - 1 for v in COLUMNS["y"]])), "data-positive"),
    (31, "1 and 2 in arrays", arrays(y=np.array(COLUMNS["y"]) + 1), "data-positive"),
    (31, "-1 and 1 in arrays", arrays(y=2 * np.array(COLUMNS["y"]) - 1), "data-positive"),
    (31, "1.0 and 2.0 in arrays, as is said", arrays(
        ("--positive", "1"), y=2.0 - np.array(COLUMNS["y"])),
     lambda data: data.y.tolist() == COLUMNS["y"]),
    (32, "amounts", File(text(y=np.arange(N) / 7)), "data-labels"),
    (32, "amounts in arrays", arrays(y=np.arange(N) / 7), "data-labels"),
    (33, "three", File(text(y=first(7, "y"))), "data-labels"),
    (33, "below 0", arrays(y=[-1, 1, 2] * 8), "data-labels"),
    (33, "beyond the classes", arrays(y=first(1 << 40, "y")), "data-labels"),
    (33, "beyond the model", lambda: fn.audit(Says(np.full(N, 0.3)), Dataset.from_arrays(
        X, first(2, "y"), COLUMNS["sex"])), "data-labels"),
    (34, "one group", File(text(sex=["f"] * N)), "data-single-group"),
    (34, "one that is known", File(text(sex=["f", ""] * 12)), "data-single-group"),
    (34, "one in arrays", arrays(sensitive=["f"] * N), "data-single-group"),
    (34, "no values", arrays(sensitive=[np.nan] * N), "data-single-group"),
    (35, "None and NA", File(text(sex=["None", "NA", "nan", "NA"] * 6)),
     groups("NA", "None", "nan")),
    (35, "in arrays", arrays(sensitive=["None", "NA", "nan", "NA"] * 6),
     groups("NA", "None", "nan")),
    (36, "no group", File(text(sex=first("", "sex"))), Warns(
        "data-group-missing", lambda data: data.group_counts.tolist() == [12, 11, 1]
        and data.group_names == ("f", "m", "unknown"))),
    (36, "in pandas", frame(sex=first(None, "sex")), Warns(
        "data-group-missing", groups("f", "m", "unknown"))),
    (36, "in arrays", arrays(sensitive=[0, 1, np.nan] * 8), Warns(
        "data-group-missing", groups("0.0", "1.0", "unknown"))),
    (37, "Male and male", File(text(sex=["Male", "male", "Female", "Male"] * 6)), Warns(
        "data-alike", groups("Female", "Male", "male"))),
    (37, "with a space", frame(sex=["Male", " Male", "Female", "Male"] * 6), Warns(
        "data-alike", groups(" Male", "Female", "Male"))),
    (38, "absent from a part", File(
        text(part=["test" if s == "m" and i > 11 else "train"
                   for i, s in enumerate(COLUMNS["sex"])]),
        (*ROLES, "--split-column", "part")), "data-group-absent"),
    (38, "of two people, split here", lambda: Dataset.from_frame(
        pd.DataFrame(columns(sex=["f"] * 10 + ["m"] * 10 + ["d"] * 2 + ["f"] * 2)),
        target="y", sensitive="sex").split(0), Warns(
        "data-group-absent", lambda parts: sum(map(len, parts)) == N)),
    (39, "no positives in a group", lambda: fn.audit(Says(np.full(N, 0.3)), Dataset.from_arrays(
        X, [1, 0] * 12, ["a", "b"] * 12)),
     lambda audit: audit.metrics["eo"] is None and "eo" in audit.undefined
     and audit.metrics["dp"] == 0),
    (40, "3 people", lambda: fn.audit(Says(np.full(N, 0.3)), Dataset.from_arrays(
        X, COLUMNS["y"], ["rare"] * 3 + ["f"] * 21)), Warns(
        "data-group-tiny", lambda audit: audit.groups[1]["selection_interval"][1] > 0.3)),
    (41, "amounts", File(text(sex=[f"{i}.5" for i in range(N)])), "data-sensitive-continuous"),
    (41, "ages", File("age,x,y\n" + "".join(f"{20 + i % 50},{i % 7},{i % 3 % 2}\n"
                                            for i in range(500)),
                      ("--target", "y", "--sensitive", "age")), "data-sensitive-continuous"),
    (41, "ages in pandas", frame(sex=range(N)), "data-sensitive-continuous"),
    (41, "ages in arrays", arrays(sensitive=range(N)), "data-sensitive-continuous"),
    (41, "names", File(text(sex=[f"p{i}" for i in range(N)])), "data-sensitive-continuous"),
    (42, "nobody", lambda: fn.audit_predictions(Dataset.from_arrays(
        np.tile(X, (2, 1)), COLUMNS["y"] * 2, np.stack([["a", "a", "b"] * 16, ["x", "y", "x"] * 16],
        1)), COLUMNS["y"] * 2),
     lambda audit: [(g["group"], g["n"]) for g in audit.groups]
     == [("a & x", 16), ("a & y", 16), ("b & x", 16), ("b & y", 0)]),
    (42, "too many", frame(sex=["f", "m", "d"] * 8, sensitive=["sex", *"bcdef"],
                           **{k: ["f", "m", "d"] * 8 for k in "bcdef"}), "data-too-many-groups"),
    (43, "new category", later(job=first("pilot", "job")), "data-unseen-category"),
    (43, "new gap", later(job=first(None, "job")), "data-unseen-category"),
    (44, "target", File(text(), ("--target", "why", "--sensitive", "sex")), "data-no-column"),
    (44, "sensitive", File(text(), ("--target", "y", "--sensitive", "sx")), "data-no-column"),
    (44, "drop", File(text(), (*ROLES, "--drop", "jobs")), "data-no-column"),
    (44, "type", File(text(), (*ROLES, "--type", "jobs=category")), "data-no-column"),
    (44, "later", later(job=None), "data-no-column"),
    (44, "prediction", Predicted(column("p", COLUMNS["y"]), "--prediction", "pp"),
     "data-no-column"),
    (44, "arrays", File(packed(sensitive=None, sensitve=COLUMNS["sex"]), (), "data.npz"),
     "data-no-column"),
    # Predictions
    (45, "all 0", Predicted(column("prediction", [0] * N)),
     lambda audit: audit.metrics["dp"] == 0 and "dpr" in audit.undefined),
    (46, "0 / x", Predicted(column("prediction", [int(s == "f") for s in COLUMNS["sex"]])),
     lambda audit: (audit.metrics["dp"], audit.metrics["dpr"]) == (1, 0)),
    (46, "0 / 0", lambda: fn.audit_predictions(Dataset.from_arrays(
        X, [1, 0] * 12, ["a", "b"] * 12), [0] * N),
     lambda audit: {"dpr", "eo", "eodds"} <= set(audit.undefined)),
    (47, "gap", Predicted(column("prediction,row", ["1,0", ",1", *["0,2"] * (N - 2)])),
     "data-predictions"),
    (47, "nan", Predicted(column("score", first("nan", "y"))), "data-predictions"),
    (47, "NaN", predictions(scores=first(np.nan, "y")), "data-predictions"),
    (47, "NaN as a label", predictions(first(np.nan, "y")), "data-predictions"),
    (48, "probabilities", Predicted(column("prediction", [0.3] * N)), "data-predictions"),
    (48, "in arrays", predictions([0.3] * N), "data-predictions"),
    (48, "other labels", Predicted(column("prediction", ["yes"] * N)), "data-predictions"),
    (49, "logits", Predicted(column("score", [-3.1, 2.2] * 12)), "data-predictions"),
    (49, "in arrays", predictions(scores=[-3.1, 2.2] * 12), "data-predictions"),
    (49, "words", Predicted(column("score", ["high"] * N)), "data-predictions"),
    (50, "threshold 1.5", Predicted(column("score", [0.3] * N), "--threshold", "1.5"),
     "option-range"),
    (50, "threshold NaN", Predicted(column("score", [0.3] * N), "--threshold", "nan"),
     "option-range"),
    (50, "threshold in Python", predictions(scores=[0.3] * N, threshold=-0.1), "option-range"),
    # Options
    (76, "gamma", words("repair --data credit --out out --recipe paper --gamma 0"), "option-range"),
    (76, "gamma of paths", words("paths --data credit --gamma 1.1"), "option-range"),
    (76, "theta", words("repair --data credit --out out --recipe paper --theta 1.1"),
     "option-range"),
    (76, "theta of paths", words("paths --data credit --theta nan"), "option-range"),
    (77, "two rows", File("age,sex,y,part\n1,m,0,train\n2,f,1,test\n3,m,1,test\n4,f,0,test\n",
                          (*ROLES, "--split-column", "part")), "data-group-absent"),
    (77, "four rows", lambda: Dataset.from_arrays(X[:4], [0, 1, 1, 0], list("abab")).split(0),
     "data-too-few"),
    (81, "limit", words("repair --data credit --out out --limitt dp=0.1"), "usage"),
    (81, "command", words("repar --data credit"), "usage"),
    (81, "metric", words("repair --data credit --out out --limit dpp=0.1"), "option-limit"),
]  # fmt: skip


# Rows from 51 that have no entry in a table, and the test that has it.
ELSEWHERE = {
    52: test_bad_models.test_float64_data_are_cast,
    53: test_weights.test_cuda_checkpoint_is_read_on_the_cpu,
    58: test_bad_models.test_shared_weights_stay_shared,
    63: test_weights.test_prefixes_of_wrappers,
    67: test_weights.test_other_module,
    73: test_weights.test_other_files,
    74: test_bad_runs.test_nobody_of_a_cluster_is_said,
    75: test_bad_runs.test_a_last_batch_of_one,
    78: test_bad_runs.test_resources_that_no_machine_has,
    79: test_bad_runs.test_what_exists_is_refused,
    80: test_bad_runs.test_a_full_disk_leaves_nothing,
}


def entries(*kinds: type) -> list[Any]:
    """The refusals among the table's rows of these kinds, as parameters."""
    return [
        pytest.param(given, code, id=f"{row} {what}")
        for row, what, given, code in ROWS
        if isinstance(code, str) and isinstance(given, kinds)
    ]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which is the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_row_of_the_list_has_an_entry() -> None:
    """All 81 rows: here, or in the tests of models, weights and runs."""
    here, models = {row for row, *_ in ROWS}, {row for row, *_ in test_bad_models.BAD}
    assert here == {*range(1, 51), 76, 77, 81}
    assert here | models | set(ELSEWHERE) == set(range(1, 82))
    assert [row for row, *_ in ROWS] == sorted(row for row, *_ in ROWS)


@pytest.mark.parametrize(
    ("given", "outcome"),
    [
        pytest.param(given, outcome, id=f"{row} {what}")
        for row, what, given, outcome in ROWS
        if not isinstance(given, Words)
    ],
)
def test_bad_input(given: Any, outcome: str | Warns | Holds, folder: Path) -> None:
    """It is refused with this code, or goes on with this warning, or holds what must hold."""
    if isinstance(given, File):
        given.write(folder)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        if isinstance(outcome, str):
            with pytest.raises(FairNeuronError) as caught:
                given()
            assert (caught.value.code, caught.value.exit_code) == (outcome, 2)
            assert all(problem.cure for problem in caught.value.problems or [caught.value])
            return
        found = given()
    assert (outcome.holds if isinstance(outcome, Warns) else outcome)(found)
    assert all(issubclass(warning.category, FairNeuronWarning) for warning in said)
    codes = [re.findall(r"\[([a-z-]+)\]$", str(warning.message)) for warning in said]
    assert codes == ([[outcome.code]] if isinstance(outcome, Warns) else [])


def assert_refused(outcome: Outcome, code: str) -> None:
    """Exit code 2 and one message; what was read and warnings may come before it."""
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.count("error[") == 1
    assert re.search(rf"^error\[{code}\]: \S", outcome.err, re.MULTILINE)
    assert "Traceback" not in outcome.err
    before = outcome.err.partition("error[")[0].splitlines()
    assert all(re.match(r"warning: |data\.csv: \d+ rows; ", line) for line in before)


@pytest.mark.parametrize(("given", "code"), entries(File, Words))
def test_bad_input_on_the_command_line(
    given: Any, code: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A refusal is exit code 2 and one message, and nothing is written."""
    given.write(folder)
    files = sorted(folder.iterdir())
    assert_refused(run_main(given.words, folder, capsys), code)
    assert sorted(folder.iterdir()) == files


_WITHOUT_TORCH = """
import contextlib, io, json, os, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            raise ImportError(name)

sys.meta_path.insert(0, Absent())
from fairneuron import cli

found = []
for folder, words in json.load(sys.stdin):
    os.chdir(folder)
    sys.argv = ["fairneuron", *words]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.main()
            code = None
        except SystemExit as stop:
            code = stop.code
    found.append([code, out.getvalue(), err.getvalue()])
json.dump(found, sys.stdout)
"""


def is_light(given: object) -> bool:
    """Whether a refusal needs no torch: commands and tables; arrays and splits are made first."""
    if isinstance(given, Words):
        return True
    return (
        type(given) is File and given.name == "data.csv" and "--split-column" not in given.options
    )


def test_tables_are_refused_without_torch(tmp_path: Path) -> None:
    """Bad files, columns, labels, groups and options are refused before torch is imported."""
    chosen = [case.values for case in entries(File, Words) if is_light(case.values[0])]
    options = "audit --data credit --score p", "audit --data data.csv --target y --sensitive sex"
    asked: list[tuple[Any, str]] = [*chosen, (words(options[0]), "option-predictions")]
    asked.append((words(f"{options[1]} --predictions none.csv"), "data-file"))
    asked.append((words(f"{options[1]} --threshold 2"), "option-range"))
    todo = []
    for i, (given, _) in enumerate(asked):
        (tmp_path / str(i)).mkdir()
        given.write(tmp_path / str(i))
        todo.append((str(tmp_path / str(i)), given.words))
    done = subprocess.run(  # noqa: S603  # our own code
        [sys.executable, "-c", _WITHOUT_TORCH],
        input=json.dumps(todo),
        env=environment(),
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        check=True,
    )
    assert len(asked) > 50
    for (_, code), outcome in zip(asked, json.loads(done.stdout), strict=True):
        assert_refused(Outcome(*outcome), code)


# What refusals say


def refusal(given: File, folder: Path) -> FairNeuronError:
    """The error of a file."""
    given.write(folder)
    with pytest.raises(FairNeuronError) as caught:
        given()
    return caught.value


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (File(text(";")), r"its header has ';'\. Give the delimiter: --delimiter ';'"),
        (File(text().encode("utf-16")), r"looks like UTF-16\..*iconv -f UTF-16 "),
        (File(text(job=first("é", "job")).encode("latin-1")), r"ISO-8859-1 \(latin-1\)"),
        (File(text(age=first("1,234", "age"))), r"got '1,234'\. Write 1234\.5, without separators"),
        (File(text(), ("--target", "y", "--sensitive", "sx")), r"'sx'; got .*Did you mean 'sex'\?"),
        (File(text(y=[1 + v for v in COLUMNS["y"]])), r"values '1' and '2'.*positive='2'"),
        (File(text(sex=np.arange(N) / 3)), r"24 numbers in 'sex'\. Bin it"),
        (File(text() + '20,"cook,m,0\n'), r"near line 26 "),
        (Predicted(column("prediction", [0.3] * N)), r"a probability\..*--score prediction"),
        (Predicted(column("score", [-3.1, 2.2] * 12)), r"look like logits\. Apply sigmoid"),
    ],
)  # fmt: skip
def test_refusals_name_the_cure(given: File, said: str, folder: Path) -> None:
    """The message says what was found and how to go on."""
    assert re.search(said, str(refusal(given, folder)))


def test_all_ragged_lines_come_at_once(folder: Path) -> None:
    """Each with its line, counted as an editor does, also after a quoted line break."""
    error = refusal(File('age,sex,y\n1,m\n2,"f\nf",1\n\n3,m,0,9\n4,f,1\n5\n'), folder)
    assert error.code == "data-ragged"
    lines = [re.findall(r"got (\d) in line (\d)", str(problem))[0] for problem in error.problems]
    assert lines == [("2", "2"), ("4", "6"), ("1", "8")]
    assert str(error).startswith("3 things in the data must be mended")


def test_ragged_lines_and_names_come_at_once(folder: Path) -> None:
    """A name that stands twice is told with the lines that have too few fields."""
    error = refusal(File("age,age,y\n1,m\n2,f,1\n"), folder)
    assert error.code == "data-problems"
    assert [problem.code for problem in error.problems] == ["data-ragged", "data-duplicate-column"]


def test_all_faulty_columns_come_at_once(folder: Path) -> None:
    """The label, a group and three inputs in one error, each with its own code."""
    content = text(
        y=first("", "y"), sex=["f"] * N, age=first("1e999", "age"), job=first("5", "job"),
        pay=first(2**70, "age"), weight=first("much", "age"),
    )  # fmt: skip
    error = refusal(File(content, (*ROLES, "--weight-column", "weight")), folder)
    assert [problem.code for problem in error.problems] == [
        "data-label-missing", "data-single-group", "data-nonfinite", "data-mixed",
        "data-huge-integer", "data-nonfinite",
    ]  # fmt: skip
    assert error.code == "data-problems"
    assert all(str(problem) in str(error) for problem in error.problems)


def test_twenty_of_25_problems_are_listed(folder: Path) -> None:
    """The message counts all of them and lists 20."""
    content = text(**{f"c{i}": first("inf", "age") for i in range(25)})
    error = refusal(File(content), folder)
    assert (error.code, len(error.problems)) == ("data-nonfinite", 20)
    assert str(error).startswith("25 things in the data must be mended. The first 20:\n  1. ")
    assert "\n  20. " in str(error)
    assert "\n  21. " not in str(error)


def test_a_million_ragged_lines_are_no_million_errors(folder: Path) -> None:
    """Beyond the first 1,000 they are counted alone."""
    error = refusal(File("age,sex,y\n" + "1,m\n" * 50_000), folder)
    assert (error.code, len(error.problems)) == ("data-ragged", 20)
    assert str(error).startswith("1001 things in the data must be mended")


def test_problems_as_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With --json each problem comes with its code; the text has them too."""
    given = File(text(y=first("", "y"), age=first("inf", "age")))
    given.write(folder)
    outcome = run_main((*given.words, "--json"), folder, capsys)
    error = json.loads(outcome.out)["error"]
    assert (outcome.code, error["code"]) == (2, "data-problems")
    assert [p["code"] for p in error["problems"]] == ["data-label-missing", "data-nonfinite"]
    assert all(p["message"] in error["message"] for p in error["problems"])
    assert outcome.err == f"error[data-problems]: {error['message']}\n"


def test_missing_columns_come_at_once(folder: Path) -> None:
    """A misspelt target and sensitive column are told together."""
    error = refusal(File(text(), ("--target", "yy", "--sensitive", "sx")), folder)
    assert (error.code, len(error.problems)) == ("data-no-column", 2)
    assert "Did you mean 'y'?" in str(error.problems[0])
    assert "Did you mean 'sex'?" in str(error.problems[1])


def test_hostile_names_are_printed_inert(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An audit's JSON has them as they are; its text has no escape that a terminal obeys."""
    given = File(text(sex=[HOSTILE[i % 7] for i in range(N)], p=COLUMNS["y"]))
    given.write(folder)
    asked = (*given.words, "--predictions", "data.csv", "--prediction", "p")
    found = json.loads(run_main((*asked, "--json"), folder, capsys).out)
    assert {group["group"] for group in found["groups"]} == set(HOSTILE)
    shown = run_main(asked, folder, capsys)
    assert shown.code == 0
    assert "\x1b" not in shown.out + shown.err
    assert all(name in shown.out for name in HOSTILE if name.isprintable())


def test_labels_of_arrays_keep_their_meaning_in_predictions(folder: Path) -> None:
    """With --positive 0 a predicted label 0 is class 1, as it is among the labels."""
    arrays(("--positive", "0")).write(folder)
    path = folder / "predictions.csv"
    path.write_text(column("prediction", COLUMNS["y"]), encoding="utf-8")
    subject = Subject(DataChoice("data.npz", positive="0"))
    data, audit = audit_predictions_file(subject, None, path)
    assert data.y.tolist() == [1 - y for y in COLUMNS["y"]]
    assert audit.metrics["accuracy"] == 1


def test_a_bom_is_no_part_of_a_name(folder: Path) -> None:
    """Not even before a quote."""
    (folder / "data.csv").write_bytes(b'\xef\xbb\xbf"age",y\n1,2\n')
    assert list(read_table(folder / "data.csv")) == ["age", "y"]

"""Tables and arrays: what is read of files and of other libraries, and what becomes of columns."""

from __future__ import annotations

import csv
import datetime
import decimal
import gzip
import io
import json
import time
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fairneuron as fn
from fairneuron.data.dataset import Dataset
from fairneuron.data.inputs import describe_columns
from fairneuron.data.named_arrays import dataset_of_arrays
from fairneuron.data.npz import read_npz
from fairneuron.data.schema import Schema
from fairneuron.data.tables import as_frame, read_table
from fairneuron.errors import DataError, FairNeuronWarning, OptionError
from fairneuron.loading import read_own_table
from fairneuron.subject import DataChoice

CALM = settings(max_examples=60, deadline=None, derandomize=True)
HOSTILE = ("<script>", "[/x]", "$_{", "\x1b[31m", "two\nlines", "=cmd", "{{7*7}}")


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., pd.DataFrame]:
    """Reads a table from a file of this content."""

    def from_content(content: str | bytes, **options: Any) -> pd.DataFrame:
        path = tmp_path / "table.csv"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return read_table(path, **options)

    return from_content


def code_of(work: Callable[[], object]) -> str:
    """The code of the error that must come out."""
    with pytest.raises((DataError, OptionError)) as caught:
        work()
    return caught.value.code


def values(frame: pd.DataFrame) -> dict[str, list[object]]:
    """A table's columns, None for missing values."""
    return {name: [None if pd.isna(v) else v for v in frame[name]] for name in frame}


# Reading CSV


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (["1", "-2", "+3"], [1, -2, 3]),
        (["1.5", "-2e3", ".5"], [1.5, -2000, 0.5]),
        (["1", "", "3"], [1.0, None, 3.0]),
        (["a", "", "NA"], ["a", None, "NA"]),
        (["None", "nan", "NULL"], ["None", "nan", "NULL"]),
        (["True", "False", "True"], ["True", "False", "True"]),
        (["true", "", "False"], ["true", None, "False"]),
        (["007", "7", "08"], ["007", "7", "08"]),
        (["007 ", "7", "08"], ["007 ", "7", "08"]),
        (["01.10", "01.1", "1.1"], ["01.10", "01.1", "1.1"]),
        (["0", "0.5", "-0.25"], [0, 0.5, -0.25]),
        (["0x1F", "1_000", "1D5"], ["0x1F", "1_000", "1D5"]),
        (["1,5", "2,5", "3"], ["1,5", "2,5", "3"]),
        (["１", "٢", "3"], ["１", "٢", "3"]),
        (["1", "2", "x"], ["1", "2", "x"]),
        (["18446744073709551615", "-1", ""], ["18446744073709551615", "-1", None]),
        (["18446744073709551616", "5", ""], [18446744073709551616, 5, None]),
        (["9007199254740993", "1", "2"], [9007199254740993, 1, 2]),
    ],
    ids=str,
)
def test_types_of_columns(
    fields: list[str], expected: list[object], read: Callable[..., pd.DataFrame]
) -> None:
    """Plain numbers are numbers if nothing is lost by it; all else is text; "" is missing."""
    lines = "".join(f'"{field}",x\n' for field in fields)
    found = values(read(f"a,b\n{lines}"))["a"]
    assert found == expected
    assert [isinstance(v, str) for v in found] == [isinstance(v, str) for v in expected]


def test_named_texts_stay_texts(read: Callable[..., pd.DataFrame]) -> None:
    """Whatever their values look like; the names of columns that are not there do no harm."""
    frame = read("a,b\n1,1.50\n2,\n", text=["b", "none"])
    assert values(frame) == {"a": [1, 2], "b": ["1.50", None]}


@pytest.mark.parametrize(
    ("content", "options", "expected"),
    [
        ("a,b\r\n1,x\r\n2,y\r\n", {}, {"a": [1, 2], "b": ["x", "y"]}),
        ("a,b\r1,x\r2,y\r", {}, {"a": [1, 2], "b": ["x", "y"]}),
        ("a,b\n1,x\n2,y", {}, {"a": [1, 2], "b": ["x", "y"]}),
        ("\n\na,b\n\n1,x\n\n\n2,y\n\n", {}, {"a": [1, 2], "b": ["x", "y"]}),
        ('a,b\n1,"x\ny"\n2,"p\r\nq"\n', {}, {"a": [1, 2], "b": ["x\ny", "p\r\nq"]}),
        ('"a",b\n1,"say ""hi"", you"\n', {}, {"a": [1], "b": ['say "hi", you']}),
        ('a, b\n1, x\n2,  "y, z"\n', {}, {"a": [1, 2], "b": ["x", "y, z"]}),
        ("a;b\n1;x,y\n", {"delimiter": ";"}, {"a": [1], "b": ["x,y"]}),
        ("a\tb\n1\tx y\n", {"delimiter": "\t"}, {"a": [1], "b": ["x y"]}),
        ("a|b\n|x\n\r|y\n", {"delimiter": "|"}, {"a": [None, None], "b": ["x", "y"]}),
        ("a,b\n\x85,\u2028\n\x1c,\x0b\n", {}, {"a": ["\x85", "\x1c"], "b": ["\u2028", "\x0b"]}),
        ("a\n \n1\n", {}, {"a": [None, 1.0]}),
        ("a,b\n#1,x\n", {}, {"a": ["#1"], "b": ["x"]}),
        ("a,b\n1\\,x\n", {}, {"a": ["1\\"], "b": ["x"]}),
        ("a,b\n'1,2'\n", {}, {"a": ["'1"], "b": ["2'"]}),
    ],
)  # fmt: skip
def test_forms_of_csv(
    content: str,
    options: dict[str, str],
    expected: dict[str, list[object]],
    read: Callable[..., pd.DataFrame],
) -> None:
    """Line ends of all kinds, quotes, delimiters, empty lines and spaces after a delimiter."""
    assert values(read(content, **options)) == expected
    assert values(read(gzip.compress(content.encode()), **options)) == expected


def test_row_numbers_without_a_name_are_left_out(read: Callable[..., pd.DataFrame]) -> None:
    """As pandas writes them; other values without a name are refused, however late they come."""
    with pytest.warns(FairNeuronWarning, match=r"row numbers \[data-unnamed\]$"):
        frame = read(pd.DataFrame({"a": [5, 6], "b": ["x", "y"]}).to_csv())
    assert values(frame) == {"a": [5, 6], "b": ["x", "y"]}
    assert code_of(lambda: read(",a\n" + "1,2\n" * 1500 + "x,2\n")) == "data-unnamed"


@pytest.mark.parametrize("delimiter", ["", ",,", '"', "\n"])
def test_delimiters_are_one_character(delimiter: str, read: Callable[..., pd.DataFrame]) -> None:
    """And neither a quote nor a line end."""
    assert code_of(lambda: read("a,b\n1,2\n", delimiter=delimiter)) == "option-delimiter"


NASTY = [
    "nan", "NA", "inf", "1e5", "0x1", "1_000", "True", "false", "007", "+07", "-0", "1.50", "1 ",
    "", " ", "a ", "\t1", "1\t", "\x85", "\u2028", "\x1c", "\x0b", '"', '""', 'a"b', "#", "\\",
    "18446744073709551616", "-9223372036854775809", "9007199254740993", "1e400", "1e-400",
]  # fmt: skip
FIELDS = st.one_of(
    st.sampled_from(NASTY),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=4),
    st.text(" \"',;\n\r\t01e.x-+\x85\u2028\ufeff", max_size=5),
    st.floats(allow_nan=False).map(repr),
    st.integers().map(str),
)  # fmt: skip


@st.composite
def csv_texts(draw: st.DrawFn) -> tuple[str, str]:
    """Tables of nasty fields as CSV, and the delimiter."""
    width, height = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    columns = []
    for i in range(width):
        pool = draw(st.lists(FIELDS, min_size=1, max_size=3))
        column = st.lists(st.sampled_from(pool), min_size=height, max_size=height)
        columns.append([f"c{i}", *draw(column)])
    delimiter = draw(st.sampled_from(",;\t|"))
    file = io.StringIO(newline="")
    quoting = draw(st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]))
    ending = draw(st.sampled_from(["\n", "\r\n"]))
    writer = csv.writer(file, delimiter=delimiter, quoting=quoting, lineterminator=ending)
    writer.writerows(zip(*columns, strict=True))
    return file.getvalue(), delimiter


def same(field: str, value: object) -> bool:
    """Whether a value is that of the field: missing, the text itself, or the number it writes."""
    if field == "" or pd.isna(value):
        return field == "" and bool(pd.isna(value))
    if isinstance(value, str):
        return value == field
    return float(field) == value or (float(field).is_integer() and int(field) == value)


@settings(CALM, max_examples=300)
@given(csv_texts())
def test_csv_is_read_as_the_standard_library_does(
    tmp_path_factory: pytest.TempPathFactory, table: tuple[str, str]
) -> None:
    """No row is lost, no field moved, no text changed: csv.DictReader finds the same."""
    content, delimiter = table
    path = tmp_path_factory.getbasetemp() / "nasty.csv"
    path.write_bytes(content.encode())
    reader = csv.DictReader(
        io.StringIO(content, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True
    )
    rows = list(reader)
    torn = any(None in row or None in row.values() for row in rows)
    if torn or not rows:  # a lone \r ends a line
        code = "data-ragged" if torn else "data-empty"
        assert code_of(lambda: read_table(path, delimiter=delimiter)) == code
        return
    frame = read_table(path, delimiter=delimiter)
    texts = read_table(path, delimiter=delimiter, text=reader.fieldnames or ())
    assert len(frame) == len(texts) == len(rows)
    assert list(frame) == list(texts) == reader.fieldnames
    for name in frame:
        expected = [row[name] for row in rows]
        assert all(map(same, expected, frame[name].tolist()))
        assert ["" if pd.isna(v) else v for v in texts[name]] == expected


WORDS = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\0"), min_size=1, max_size=6
).filter(lambda word: word == word.lstrip(" "))
NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53)


@st.composite
def frames(draw: st.DrawFn) -> pd.DataFrame:
    """Tables of numbers and of texts that are no numbers."""
    height = draw(st.integers(1, 8))
    texts = WORDS.map(lambda word: f"{word}!")
    stripped = texts.filter(lambda text: text == text.strip())  # names are read without spaces
    names = draw(st.lists(stripped, min_size=2, max_size=4, unique=True))
    kinds = [draw(st.sampled_from([NUMBERS, texts])) for _ in names]
    columns = [draw(st.lists(kind, min_size=height, max_size=height)) for kind in kinds]
    return pd.DataFrame(dict(zip(names, columns, strict=True)))


@settings(CALM, max_examples=150)
@given(frames())
def test_what_pandas_writes_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, frame: pd.DataFrame
) -> None:
    """Numbers are equal to the last bit, texts and names character by character."""
    path = tmp_path_factory.getbasetemp() / "written.csv"
    frame.to_csv(path, index=False)
    pd.testing.assert_frame_equal(read_table(path), frame, check_dtype=False, check_exact=True)


def test_a_large_table_is_read_in_seconds(tmp_path: Path) -> None:
    """200,000 rows of 20 columns: a few seconds, also for the schema and the inputs."""
    rng, n = np.random.default_rng(0), 200_000
    frame = pd.DataFrame({f"n{i}": rng.normal(size=n).round(4) for i in range(12)})
    frame = frame.assign(**{f"t{i}": rng.choice(["a", "b, c", "d"], n) for i in range(7)})
    frame["y"] = (frame.n0 > 0).astype(int)
    frame.to_csv(tmp_path / "large.csv", index=False)
    start = time.process_time()
    found = read_table(tmp_path / "large.csv")
    schema = Schema.of_table(found, target="y", sensitive=["t0"])
    x = schema.inputs_of(found)
    assert time.process_time() - start < 10
    assert x.shape == (n, 12 + 6 * 3)
    assert x[:, 0].tolist() == frame.n0.astype(np.float32).tolist()


def test_hostile_names_come_through(read: Callable[..., pd.DataFrame]) -> None:
    """Markup, escapes and formulas in names and values are texts like others, also in an audit."""
    file = io.StringIO(newline="")
    csv.writer(file).writerows(
        [["x", *HOSTILE, "y"]]
        + [[i * 5 % 7, *(HOSTILE[(i * k + i // 7) % 7] for k in range(1, 8)), i % 3 % 2]
           for i in range(49)]
    )  # fmt: skip
    frame = read(file.getvalue())
    assert list(frame) == ["x", *HOSTILE, "y"]
    data = Dataset.from_frame(frame, target="y", sensitive=HOSTILE[0])
    assert data.feature_names[0] == "x"
    assert set(data.feature_names[1:]) == {f"{c}={v}" for c in HOSTILE[1:] for v in HOSTILE}
    with pytest.warns(fn.FairNeuronWarning, match="data-group-tiny"):
        audited = fn.audit_predictions(data, data.y).to_dict()
    assert {row["group"] for row in audited["groups"]} == set(HOSTILE)
    restored = Schema.from_dict(json.loads(json.dumps(data.schema.to_dict())))
    assert restored.feature_names == data.feature_names


# Other libraries

DAY = datetime.date(2020, 1, 1)
EXAMPLE: dict[str, list[Any]] = {
    "whole": [1, 2, 3, 4] * 6,
    "real": [0.5, -1.25, 3.0, 1e-3] * 6,
    "text": ["b", "a", "b", "NA", None, "c"] * 4,
    "flag": [True, False, False, True] * 6,
    "sex": ["f", "m"] * 12,
    "y": [0, 1, 1] * 8,
}


def tables(folder: Path) -> dict[str, object]:
    """The same table in all libraries and kinds of files."""
    pandas, polars = pd.DataFrame(EXAMPLE), pl.DataFrame(EXAMPLE)
    pandas.to_parquet(folder / "table.parquet", index=False)
    kinds = {
        "polars": polars,
        "lazy": polars.lazy(),
        "Arrow": pa.table(EXAMPLE),
        "a batch": pa.record_batch(EXAMPLE),
        "Parquet": read_table(folder / "table.parquet"),
        "polars' Parquet": None,
        "categories": polars.with_columns(pl.col("sex").cast(pl.Categorical)),
        "dictionary": pa.table(EXAMPLE | {"sex": pa.array(EXAMPLE["sex"]).dictionary_encode()}),
        "decimals": polars.with_columns(pl.col("real").cast(pl.Decimal(10, 4))),
        "Arrow in pandas": pa.table(EXAMPLE).to_pandas(types_mapper=pd.ArrowDtype),
        "nullable": pandas.convert_dtypes(),
        "objects": pandas.assign(
            whole=pandas.whole.astype(object), real=pandas.real.astype(object)
        ),
    }
    polars.write_parquet(folder / "polars.parquet")
    return kinds | {"polars' Parquet": read_table(folder / "polars.parquet")}


def test_all_libraries_give_the_same_data(tmp_path: Path) -> None:
    """x, labels and groups of polars, Arrow and Parquet tables are those of pandas."""
    expected = Dataset.from_frame(pd.DataFrame(EXAMPLE), target="y", sensitive="sex")
    assert expected.feature_names[:2] == ("whole", "real")
    for kind, table in tables(tmp_path).items():
        data = Dataset.from_frame(table, target="y", sensitive="sex")
        assert data.feature_names == expected.feature_names, kind
        assert torch.equal(data.x, expected.x), kind
        assert (data.y == expected.y).all(), kind
        assert (data.group == expected.group).all(), kind


def test_csv_gives_the_same_data(tmp_path: Path) -> None:
    """But for truth values, which a CSV file has as texts."""
    table = pd.DataFrame(EXAMPLE).drop(columns="flag")
    table.to_csv(tmp_path / "table.csv", index=False)
    expected = Dataset.from_frame(table, target="y", sensitive="sex")
    data = Dataset.from_frame(read_table(tmp_path / "table.csv"), target="y", sensitive="sex")
    assert data.feature_names == expected.feature_names
    assert torch.equal(data.x, expected.x)
    assert (data.group == expected.group).all()
    assert data.schema == expected.schema


def test_damaged_parquet_is_refused(tmp_path: Path) -> None:
    """Cut off, without its end, or with a page whose sum is another one."""
    path = tmp_path / "table.parquet"
    pq.write_table(
        pa.table({"a": np.arange(1000.0)}),
        path,
        write_page_checksum=True,
        compression="none",
        use_dictionary=False,
    )
    whole = path.read_bytes()
    assert read_table(path).a.tolist() == list(range(1000))
    for content in (whole[:-9], whole[:4], whole[:2000] + b"\1" + whole[2001:]):
        path.write_bytes(content)
        assert code_of(lambda: read_table(path)) == "data-file"


def test_parts_of_other_types_are_one_table(tmp_path: Path) -> None:
    """Codes that have leading zeros in the test part alone are categories in both."""
    lines = [f"{7 + i % 3},{i % 5},{'fm'[i % 2]},{i % 3 % 2}\n" for i in range(24)]
    (tmp_path / "train.csv").write_text("code,x,sex,y\n" + "".join(lines), encoding="utf-8")
    (tmp_path / "test.csv").write_text("x,code,y,sex\n9,007,1,f\n9,8,0,m\n", encoding="utf-8")
    choice = DataChoice(
        train=tmp_path / "train.csv", test=tmp_path / "test.csv", target="y", sensitive=("sex",)
    )
    with pytest.warns(FairNeuronWarning, match="data-leading-zeros"):
        found = read_own_table(choice)
    codes = ("code=007", "code=7", "code=8", "code=9")
    assert found.schema.feature_names == (*codes, "x")
    x = found.schema.inputs_of(found.frame)
    assert x[[0, -2, -1]].tolist() == [[0, 1, 0, 0, 0], [1, 0, 0, 0, 9], [0, 0, 1, 0, 9]]
    assert found.part.tolist() == [0] * 24 + [2] * 2


def test_values_of_polars() -> None:
    """Gaps stay gaps, whole numbers whole, texts texts; categories of numbers are no numbers."""
    frame = as_frame(
        pl.DataFrame(
            {
                "whole": [2**60, 1],
                "gap": [1, None],
                "text": ["NA", None],
                "truth": [True, None],
                "day": [DAY, None],
                "money": pl.Series(["1.5", None]).cast(pl.Decimal(9, 2)),
                "kind": pl.Series(["7", "8"], dtype=pl.Categorical),
            }
        )
    )
    assert values(frame) == {
        "whole": [2**60, 1],
        "gap": [1.0, None],
        "text": ["NA", None],
        "truth": [True, None],
        "day": [DAY, None],
        "money": [1.5, None],
        "kind": ["7", "8"],
    }


@pytest.mark.parametrize(
    "table",
    [{"a": [1]}, np.zeros((2, 2)), "table.csv", None, pd.Series([1]), pl.Series([1]),
     pa.chunked_array([[1]]), pa.array([1]), [[1]]],
    ids=lambda table: type(table).__name__,
)  # fmt: skip
def test_other_things_are_no_tables(table: object) -> None:
    """Columns, arrays, dictionaries and paths are refused with the way to go."""
    assert code_of(lambda: as_frame(table)) == "data-type"


def test_a_name_twice_in_arrow() -> None:
    """pandas would take it."""
    table = pa.table([[1], [2]], names=["a", "a"])
    assert code_of(lambda: as_frame(table)) == "data-duplicate-column"


# Columns and schemas


def table(**changes: Any) -> pd.DataFrame:
    """A table of 24 rows, with other columns."""
    base = {"age": [20, 31, 47, 25] * 6, "sex": ["f", "m"] * 12, "y": [0, 1, 1] * 8}
    return pd.DataFrame(base | changes)


def fitted(frame: pd.DataFrame | None = None, **options: Any) -> Schema:
    """Its schema."""
    roles = {"target": "y", "sensitive": ["sex"]} | options
    return Schema.of_table(table() if frame is None else frame, **roles)


def test_declared_types_are_kept() -> None:
    """Numbers as categories, texts as numbers, names as categories; unknown types are refused."""
    frame = table(zip=["01", "02"] * 12, name=[f"p{i}" for i in range(24)])
    types = {"age": "category", "zip": "number", "name": "category"}
    schema = fitted(frame, types=types)
    assert schema.feature_names[:5] == ("age=20", "age=25", "age=31", "age=47", "zip")
    assert len(schema.feature_names) == 4 + 1 + 24
    assert schema.inputs_of(frame)[:, 4].tolist() == [1, 2] * 12
    assert code_of(lambda: fitted(types={"age": "numeric"})) == "option-type"
    assert code_of(lambda: fitted(frame, types=types | {"name": "number"})) == "data-nonfinite"


@pytest.mark.parametrize(
    "column",
    [
        pd.Categorical([1.0, 2.5, 7.0] * 8),
        pd.Categorical(["a", None, "b"] * 8),
        pd.Series([1.0, "a", 2.5] * 8),
        pd.Series([True, False, None] * 8, dtype=object),
        pd.Series(["a", "b", None] * 8, dtype="category"),
        pd.cut(pd.Series(range(24)), 3),
    ],
    ids=["numbers", "gaps", "mixed", "truth", "a gap last", "intervals"],
)
def test_a_schema_encodes_its_own_table(column: object) -> None:
    """The categories it learns are those it finds: one of them in each row."""
    frame = table(kind=column)
    schema = fitted(frame, types={"kind": "category"})
    block = schema.inputs_of(frame)[:, 1:]
    assert block.shape == (24, 3)
    assert (block.sum(1) == 1).all()
    assert (block.sum(0) == 8).all()


def test_numbers_that_are_held_as_objects() -> None:
    """Python's and Decimal's numbers are numbers, with the checks that numbers have."""
    money = [decimal.Decimal("1.5"), decimal.Decimal(2)] * 12
    frame = table(a=pd.Series([1, 2.5, 3] * 8, dtype=object), b=money)
    schema = fitted(frame)
    assert schema.feature_names == ("age", "a", "b")
    assert schema.inputs_of(frame)[:3, 1:].tolist() == [[1, 1.5], [2.5, 2], [3, 1.5]]
    gap = table(a=pd.Series([1, 2, None] * 8, dtype=object))
    assert code_of(lambda: fitted(gap)) == "data-nonfinite"


@pytest.mark.parametrize(
    ("column", "code"),
    [
        (pd.date_range("2020", periods=24), "data-type"),
        ([DAY + datetime.timedelta(i) for i in range(24)], "data-type"),
        ([datetime.datetime(2020, 1, 1), None] * 12, "data-type"),
        (pd.to_timedelta(range(24), unit="D"), "data-type"),
        (pd.period_range("2020", periods=24), "data-type"),
        (pd.Series([DAY] * 24, dtype=pd.ArrowDtype(pa.date32())), "data-type"),
        ([[1]] * 24, "data-type"),
        ([{"a": 1}] * 24, "data-type"),
        (np.arange(24) * 1j, "data-complex"),
        (pd.arrays.SparseArray(range(24)), "data-sparse"),
        ([1, "x", 2] * 8, "data-mixed"),
        (["1.5", "n/a", "2"] * 8, "data-mixed"),
        (["1,5", "2", "3"] * 8, "data-number-format"),
        (["$3", "$4", "5"] * 8, "data-number-format"),
        (["1", "inf", "2"] * 8, "data-nonfinite"),
        (["1", "NaN", "2"] * 8, "data-nonfinite"),
        (np.array([2**63 + 1, 1] * 12, dtype=np.uint64), "data-huge-integer"),
        (np.array([-(2**63), 1] * 12), "data-huge-integer"),
        (pd.Series([2**60, None] * 12, dtype="Int64"), "data-huge-integer"),
        ([10**400, 1] * 12, "data-huge-integer"),
        ([0, 1, 1] * 8, "data-target-used"),
        (["b", "a", "a"] * 8, "data-target-used"),
        ([0.25, 7.5, 7.5] * 8, "data-target-used"),
    ],
    ids=lambda value: None if isinstance(value, str) else f"{type(value).__name__} {value[:2]}",
)  # fmt: skip
def test_columns_that_are_no_inputs(column: object, code: str) -> None:
    """Times, lists, complex, sparse and mixed values, odd numbers, and copies of the label."""
    assert code_of(lambda: fitted(table(other=column))) == code


def test_few_rows_may_copy_the_label_by_chance() -> None:
    """In fewer than 20 rows a copy is no finding."""
    few = table(other=[0, 1, 1] * 8).iloc[:18]
    assert fitted(few).feature_names == ("age", "other")


@pytest.mark.parametrize(
    ("column", "code", "names"),
    [
        ([f"p{i}" for i in range(24)], "data-identifier", ("age",)),
        ([3] * 24, "data-constant", ("age", "other")),
        (["x"] * 24, "data-constant", ("age", "other=x")),
        ([None] * 24, "data-constant", ("age", "other=unknown")),
        (["07", "7", "8"] * 8, "data-leading-zeros", ("age", "other=07", "other=7", "other=8")),
        (["a", "A ", "b"] * 8, "data-alike", ("age", "other=A ", "other=a", "other=b")),
    ],
)  # fmt: skip
def test_columns_with_a_warning(column: object, code: str, names: tuple[str, ...]) -> None:
    """Names, constants, leading zeros and values alike: said, once, and nothing is merged."""
    frame = table(other=column)
    with pytest.warns(FairNeuronWarning, match=rf"'other'.*\[{code}\]$") as said:
        schema = fitted(frame)
    assert len(said) == 1
    assert schema.feature_names == names
    assert schema.inputs_of(frame).shape == (24, len(names))


def test_too_wide_a_table_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything of that size is made; the widest columns are named."""
    monkeypatch.setattr("fairneuron.data.schema._MOST_CELLS", 24 * 20)
    frame = table(name=[f"p{i}" for i in range(24)])
    with pytest.raises(DataError, match=r"24 x 25; the most from 'name' \(24\)") as caught:
        fitted(frame, types={"name": "category"})
    assert caught.value.code == "data-too-wide"


def test_every_column_of_the_table_has_its_reason() -> None:
    """What is no input is the target, sensitive, dropped, a weight, or a value per row."""
    frame = table(name=[f"p{i}" for i in range(24)], w=1.5, note="x")
    with pytest.warns(FairNeuronWarning, match="data-identifier"):
        schema = fitted(frame, drop=["note"], weight="w")
    assert dict(schema.unused) == {
        "sex": "sensitive", "y": "target", "name": "a value per row", "w": "sample weight",
        "note": "dropped",
    }  # fmt: skip
    assert [c.name for c in schema.inputs] == ["age"]
    assert dict(fitted(include_sensitive=True).unused) == {"y": "target"}


def test_weights_are_checked_with_the_columns() -> None:
    """A gap among the weights is told with the faults of inputs, before anything is encoded."""
    frame = table(w=[1.0, np.nan] * 12, other=[1j] * 24)
    with pytest.raises(DataError) as caught:
        fitted(frame, weight="w")
    assert [p.code for p in caught.value.problems] == ["data-complex", "data-nonfinite"]


def test_numbers_of_many_values_are_no_groups() -> None:
    """Neither as numbers nor as texts of a file, unless they are declared to be groups."""
    ages = np.arange(20, 70).repeat(10)
    frame = pd.DataFrame({"age": ages, "x": np.arange(500) % 7, "y": np.arange(500) % 3 % 2})
    for column in (ages, ages.astype(float), ages.astype(str), ages.astype(str).astype(object)):
        found = code_of(lambda c=column: fitted(frame.assign(age=c), sensitive=["age"]))
        assert found == "data-sensitive-continuous"
    declared = fitted(frame, sensitive=["age"], types={"age": "category"})
    assert len(declared.sensitive[0].categories) == 50


def test_names_that_are_no_texts_are_refused() -> None:
    """They would be others after a round trip through JSON."""
    frame = table().rename(columns={"age": 3})
    assert code_of(lambda: fitted(frame)) == "data-column-name"


# A schema, later


def test_later_tables_need_inputs_alone() -> None:
    """Neither label nor group, in any order, with other columns, numbers as texts too."""
    schema = fitted(table(job=["cook", "nurse", "actor"] * 8))
    later = pd.DataFrame(
        {"job": ["nurse", "cook"], "new": [1, 2], "age": ["41", "2e1"]}, index=[9, 9]
    )
    assert schema.inputs_of(later).tolist() == [[41, 0, 0, 1], [20, 0, 1, 0]]
    assert code_of(lambda: schema.labels_of(later)) == "data-no-column"
    assert code_of(lambda: schema.groups_of(later)) == "data-no-column"


def test_all_faults_of_a_later_table_come_at_once() -> None:
    """A category, a gap and a word among numbers; missing columns likewise, with the nearest."""
    schema = fitted(table(job=["cook", "nurse", "actor"] * 8, pay=[1.5, 2, 3] * 8))
    later = pd.DataFrame({"age": [1, np.nan], "job": ["cook", "pilot"], "pay": ["2", "much"]})
    with pytest.raises(DataError) as caught:
        schema.inputs_of(later)
    assert [p.code for p in caught.value.problems] == [
        "data-nonfinite", "data-unseen-category", "data-nonfinite",
    ]  # fmt: skip
    assert "got 'pilot'. Known: actor, cook, nurse." in str(caught.value)
    assert "got 'much' in row 1" in str(caught.value)
    with pytest.raises(DataError, match="Did you mean 'Pay'") as caught:
        schema.inputs_of(later[["age"]].assign(Pay=1))
    assert [p.code for p in caught.value.problems] == ["data-no-column"] * 2


def test_a_missing_label_is_none_whatever_labels_are_called() -> None:
    """Not the label "nan" either."""
    schema = fitted(table(y=["nan", "yes", "yes"] * 8), positive="yes")
    assert schema.labels_of(pd.DataFrame({"y": ["nan", "yes"]})).tolist() == [0, 1]
    assert code_of(lambda: schema.labels_of(pd.DataFrame({"y": ["yes", np.nan]}))) == "data-labels"


def test_a_schema_and_its_weight_survive_json() -> None:
    """All fields come back equal, the column of weights too."""
    schema = fitted(table(w=1.5, job=["ä", "", "\x1b"] * 8), weight="w", include_sensitive=True)
    restored = Schema.from_dict(json.loads(json.dumps(schema.to_dict())))
    assert restored == schema
    assert restored.weight == "w"
    assert restored.encode(table(w=2.5, job="ä")).weight.tolist() == [2.5] * 24


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "categories"]), inner, max_size=3)
    ),
    max_leaves=8,
)
KEYS = ("target", "negative", "positive", "sensitive", "inputs", "unused", "weight")


@settings(CALM, max_examples=150)
@given(st.dictionaries(st.sampled_from(KEYS), JSON) | JSON, st.booleans())
def test_garbage_is_no_schema(fields: Any, whole: bool) -> None:
    """Whatever a file holds, a schema or one coded error comes of it."""
    garbage = fitted().to_dict() | fields if whole and isinstance(fields, dict) else fields
    try:
        found: object = Schema.from_dict(garbage)
    except DataError as error:
        found = error.code
    assert found == "data-schema" or isinstance(found, Schema)


@pytest.mark.parametrize("key", KEYS)
def test_a_schema_without_a_field_is_none(key: str) -> None:
    """Each is needed."""
    fields = fitted().to_dict()
    del fields[key]
    assert code_of(lambda: Schema.from_dict(fields)) == "data-schema"


def test_columns_are_described_without_an_error() -> None:
    """Each has its type or its problem; nothing is warned of, nothing raised."""
    frame = table(
        name=[f"p{i}" for i in range(24)], bad=[1, "x"] * 12, day=DAY, gap=["a", None] * 12
    )
    described = {row["column"]: row for row in describe_columns(frame)}
    assert [described[c]["type"] for c in ("age", "sex", "name", "gap")] == [
        "number", "category", "left out: a value per row", "category",
    ]  # fmt: skip
    assert described["gap"]["missing"] == 12
    assert (described["bad"]["type"], described["day"]["type"]) == ("", "")
    assert "must be numbers or texts" in described["bad"]["problem"]
    json.dumps(list(described.values()), allow_nan=False)


# Arrays

X = np.stack([np.arange(24) % 7, np.arange(24) % 5 - 0.5], axis=1)
Y = np.array([0, 1, 1] * 8)
SEX = np.array(["f", "m"] * 12)


def saved(folder: Path, **arrays: Any) -> dict[str, Any]:
    """Arrays after a way through a file."""
    np.savez_compressed(folder / "arrays.npz", **arrays)
    return read_npz(folder / "arrays.npz")


def test_arrays_come_back(tmp_path: Path) -> None:
    """Values, names and weights, as numbers, texts and bytes, in any memory order."""
    data = dataset_of_arrays(
        saved(
            tmp_path,
            x=np.asfortranarray(X),
            y=Y,
            sensitive=np.stack([SEX.astype("S"), np.array([b"old", b"young", b"\xff"] * 8)], 1),
            sensitive_names=np.array([b"sex", b"age"]),
            feature_names=["a", "b"],
            weight=np.arange(24.0),
        ),
        name="mine",
    )
    assert data.x.tolist() == X.tolist()
    assert data.y.tolist() == Y.tolist()
    assert data.sensitive_names == ("sex", "age")
    assert data.sensitive_levels == (("f", "m"), ("\\xff", "old", "young"))
    assert data.feature_names == ("a", "b")
    assert data.weight.tolist() == list(range(24))
    assert data.name == "mine"


def test_bytes_that_are_no_text_stay_apart() -> None:
    """Two groups whose bytes are no UTF-8 are two groups."""
    groups = np.array([b"\xff", b"\xfe"] * 12)
    data = dataset_of_arrays({"x": X, "y": Y, "sensitive": groups})
    assert data.group_counts.tolist() == [12, 12]


def test_some_of_the_sensitive_arrays() -> None:
    """Chosen by name, in the order that is asked for; other names are refused."""
    arrays = {
        "x": X, "y": Y, "sensitive": np.stack([SEX, SEX[::-1], np.array(list("abc") * 8)], 1),
        "sensitive_names": np.array(["sex", "xes", "kind"]),
    }  # fmt: skip
    data = dataset_of_arrays(arrays, sensitive=["kind", "sex"])
    assert data.group_names[:2] == ("a & f", "a & m")
    assert code_of(lambda: dataset_of_arrays(arrays, sensitive=["kin"])) == "data-no-column"


@pytest.mark.parametrize(
    ("y", "positive", "expected"),
    [
        (Y, None, Y),
        (Y.astype(bool), None, Y),
        (Y.astype(float), None, Y),
        (Y, "0", 1 - Y),
        (Y + 1, "2", Y),
        (Y + 1.0, "1", 1 - Y),
        (2 * Y - 1, "-1", 1 - Y),
        (Y.astype(bool), "False", 1 - Y),
        (np.where(Y, "yes", "no"), "yes", Y),
        (np.where(Y, b"yes", b"no"), "no", 1 - Y),
        (np.where(Y, 0.5, 2.0), "0.5", Y),
        (np.arange(24) % 3, None, np.arange(24) % 3),
    ],
)
def test_labels_of_arrays(y: Any, positive: str | None, expected: Any) -> None:
    """The positive label is 1; 0 and 1 are what they are."""
    data = dataset_of_arrays({"x": X, "y": y, "sensitive": SEX}, positive=positive)
    assert data.y.tolist() == expected.tolist()
    assert data.positive == (positive or "1")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"x": X[0]}, "data-shape"),
        ({"x": np.float64(1)}, "data-shape"),
        ({"x": X[None]}, "data-lengths"),
        ({"x": X[:, :0]}, "data-shape"),
        ({"y": np.eye(24)}, "data-shape"),
        ({"y": np.int64(1)}, "data-shape"),
        ({"sensitive": np.int64(1)}, "data-shape"),
        ({"sensitive": SEX[:, None, None]}, "data-shape"),
        ({"sensitive": SEX[:, None][:, :0]}, "data-shape"),
        ({"x": X[:0], "y": Y[:0], "sensitive": SEX[:0]}, "data-shape"),
        ({"x": np.zeros((0, 10**10)), "y": Y[:0], "sensitive": SEX[:0]}, "data-shape"),
        ({"x": X[1:]}, "data-lengths"),
        ({"x": X * 1j}, "data-type"),
        ({"x": X.astype(str)}, "data-type"),
        ({"x": X.astype("M8[s]")}, "data-type"),
        ({"y": Y * 1j}, "data-type"),
        ({"y": np.zeros(24, dtype=[("a", int)])}, "data-type"),
        ({"sensitive": Y.astype("M8[D]")}, "data-type"),
        ({"sensitive": Y * 1j}, "data-type"),
        ({"y": Y + 1}, "data-positive"),
        ({"y": np.where(Y, "1", "0")}, "data-positive"),
        ({"y": np.where(Y, 1.0, np.nan)}, "data-label-missing"),
        ({"y": Y * 0 + 1}, "data-labels"),
        ({"y": np.arange(24) / 7}, "data-labels"),
        ({"y": np.array(["a", "b", "c"] * 8)}, "data-labels"),
        ({"sensitive": np.array(["f"] * 24)}, "data-single-group"),
        ({"sensitive": np.array(["f", "unknown"] * 12)}, "data-single-group"),
        ({"sensitive": np.zeros(24, dtype="U1")}, "data-single-group"),
        ({"sensitive": np.arange(24)}, "data-sensitive-continuous"),
        ({"sensitive": np.arange(24) / 7}, "data-sensitive-continuous"),
        ({"sensitive": np.tile(SEX[:, None], (1, 40))}, "data-too-many-groups"),
        ({"x": np.column_stack([X, Y])}, "data-target-used"),
        ({"weight": np.arange(3)}, "data-weights"),
        ({"weight": -np.arange(24)}, "data-weights"),
        ({"feature_names": np.array(["a"])}, "data-shape"),
        ({"feature_names": np.array(["a", "a"])}, "data-duplicate-column"),
        ({"sensitive_names": np.array(["a", "b"])}, "data-shape"),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)  # fmt: skip
def test_arrays_that_do_not_fit(changes: dict[str, Any], code: str, tmp_path: Path) -> None:
    """Shapes, lengths, types, labels and groups of arrays are checked before anything is made."""
    arrays = {"x": X, "y": Y, "sensitive": SEX} | changes
    assert code_of(lambda: dataset_of_arrays(saved(tmp_path, **arrays))) == code


def header(text: str, version: bytes = b"\x01\x00") -> bytes:
    """The beginning of a NumPy file with this header."""
    padded = text.encode().ljust(117) + b"\n"
    return b"\x93NUMPY" + version + len(padded).to_bytes(2, "little") + padded


F8 = "{'descr': '<f8', 'fortran_order': False, 'shape': %s}"


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (header(F8 % "(3,)") + bytes(8), "data-bomb"),
        (header(F8 % "(1,)") + bytes(16), "data-bomb"),
        (header(F8 % "(999999999999,)"), "data-bomb"),
        (header(F8 % "(-1,)") + bytes(8), "data-bomb"),
        (header(F8 % "(-1, -1)") + bytes(8), "data-bomb"),
        (header(F8.replace("<f8", "<U0") % "(999999999999,)"), "data-bomb"),
        (header(F8.replace("<f8", "|O") % "(1,)") + bytes(8), "data-type"),
        (header(F8.replace("'<f8'", "[('a', '|O')]") % "(1,)") + bytes(8), "data-type"),
        (header(F8 % "(1.5,)") + bytes(8), "data-file"),
        (header("__import__('os').system('true')") + bytes(8), "data-file"),
        (header("{") + bytes(8), "data-file"),
        (header(F8 % "(1,)", b"\x09\x00") + bytes(8), "data-file"),
        (b"no array", "data-file"),
        (b"", "data-file"),
    ],
)
def test_crafted_arrays(content: bytes, code: str, tmp_path: Path) -> None:
    """Headers that lie or run, objects and rubbish are refused before memory is taken."""
    with zipfile.ZipFile(tmp_path / "crafted.npz", "w") as archive:
        archive.writestr("x.npy", content)
    assert code_of(lambda: read_npz(tmp_path / "crafted.npz")) == code


def test_pickled_objects_stay_shut(tmp_path: Path) -> None:
    """An array of objects, as numpy.savez writes it, is refused unopened."""
    np.savez(tmp_path / "objects.npz", x=np.array([{"a": 1}], dtype=object))
    assert code_of(lambda: read_npz(tmp_path / "objects.npz")) == "data-type"


def test_archives_that_lie(tmp_path: Path) -> None:
    """A member twice, one larger than it says, and one that unpacks a thousandfold."""
    with warnings.catch_warnings(), zipfile.ZipFile(tmp_path / "twice.npz", "w") as archive:
        warnings.simplefilter("ignore", UserWarning)  # zipfile has one of its own
        archive.writestr("x.npy", b"")
        archive.writestr("x.npy", b"")
    assert code_of(lambda: read_npz(tmp_path / "twice.npz")) == "data-duplicate-column"
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", bytes(70 << 20))
    assert code_of(lambda: read_npz(tmp_path / "bomb.npz")) == "data-bomb"
    whole = (tmp_path / "bomb.npz").read_bytes()
    size = (70 << 20).to_bytes(4, "little")
    assert whole.count(size) == 2
    (tmp_path / "lies.npz").write_bytes(whole.replace(size, (100).to_bytes(4, "little")))
    assert code_of(lambda: read_npz(tmp_path / "lies.npz")) == "data-file"
    (tmp_path / "cut.npz").write_bytes(whole[:-30])
    assert code_of(lambda: read_npz(tmp_path / "cut.npz")) == "data-file"

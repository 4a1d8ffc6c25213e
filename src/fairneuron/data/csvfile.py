"""CSV files, checked line by line before their values are read. Free of torch."""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

from fairneuron.errors import DataError, Problems, warn

if TYPE_CHECKING:
    import pandas as pd

LEADING_ZEROS = r"[+-]?0\d+(?:\.\d*)?"
_MOST_RAGGED = 1000  # lines with an error of their own


def duplicate_column(names: list[str]) -> DataError:
    """The error of a column name that stands twice."""
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    return DataError(
        "data-duplicate-column",
        "Column names must differ",
        got=", ".join(map(repr, twice[:5])),
        cure="Rename one of them.",
    )


def wrong_encoding(path: Path, name: str) -> DataError:
    """The error of a file in another encoding."""
    return DataError(
        "data-encoding",
        "A CSV file must be in UTF-8",
        got=f"{path}, which looks like {name}",
        cure=f"Save it as UTF-8: iconv -f {name.split(maxsplit=1)[0]} -t UTF-8 old.csv > new.csv",
    )


def read_csv(
    path: Path, content: io.BytesIO | None, delimiter: str, text: frozenset[str]
) -> pd.DataFrame:
    """The table of a CSV file, or of the unpacked content of one."""
    import pandas as pd

    def opened() -> TextIO:
        raw = path.open("rb") if content is None else io.BytesIO(content.getbuffer())
        return io.TextIOWrapper(cast(Any, raw), encoding="utf-8-sig", newline="")

    try:
        names = _structure(path, opened, delimiter)
    except UnicodeDecodeError as error:
        raise wrong_encoding(path, "ISO-8859-1 (latin-1) or Windows-1252") from error

    def read(columns: list[int], types: dict[int, type] | type) -> pd.DataFrame:
        with opened() as lines:
            return pd.read_csv(
                cast(Any, _Quoted(_rows(lines, delimiter))),
                header=None,
                names=[*range(len(names))],
                usecols=columns,
                dtype=types,
                index_col=False,
                keep_default_na=False,
                na_values=[""],
                skip_blank_lines=False,
                low_memory=False,
            )

    named = [i for i, name in enumerate(names) if name]
    table = read(named, {i: object for i in named if names[i] in text})
    zeros = _search(opened, rf"(?:^|[\s\"{re.escape(delimiter)}])[+-]?0\d")
    inferred = {i: pd.api.types.infer_dtype(table[i]) for i in named}
    for i in named:  # among integers of many digits pandas takes an empty field for a text
        if inferred[i] == "string" and (table[i] == "").any():
            table[i] = table[i].mask(table[i] == "")
    doubtful = [i for i in named if _loses(inferred[i], zeros=zeros)]
    if doubtful:  # would the texts of these columns lose something as numbers?
        texts = read(doubtful, object)
        for i in doubtful:
            coded = texts[i].dropna().str.strip().str.fullmatch(LEADING_ZEROS).any()
            if inferred[i] == "boolean" or coded:
                table[i] = texts[i]
    return table.rename(columns=dict(enumerate(names)))


class _Quoted:
    """Rows as a CSV file with every field in quotes, which leaves a parser nothing to guess."""

    def __init__(self, rows: Iterator[list[str]]) -> None:
        self._rows = rows

    def __iter__(self) -> Iterator[str]:
        return iter(self.read, "")

    def read(self, _: int = -1) -> str:
        """The next lines; "" after the last."""
        block = io.StringIO(newline="")
        writer = csv.writer(block, quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writerows(itertools.islice(self._rows, 512))
        return block.getvalue()


def _reader(lines: TextIO, delimiter: str) -> Any:
    return csv.reader(lines, delimiter=delimiter, strict=True, skipinitialspace=True)


def _rows(lines: TextIO, delimiter: str) -> Iterator[list[str]]:
    """The rows below the header; empty lines do not count."""
    return itertools.islice(filter(None, _reader(lines, delimiter)), 1, None)


def _loses(inferred: str, *, zeros: bool) -> bool:
    """Whether such values may have been texts that differ, as True and true do, or 07 and 7."""
    return inferred == "boolean" or (zeros and inferred in ("integer", "floating", "mixed-integer"))


def _search(opened: Callable[[], TextIO], pattern: str) -> bool:
    """Whether a line of the file matches."""
    with opened() as lines:
        return any(map(re.compile(pattern).search, lines))


def _structure(path: Path, opened: Callable[[], TextIO], delimiter: str) -> list[str]:
    """The column names of a CSV file whose lines all have as many fields; "" for none."""
    import numpy as np

    with opened() as lines:
        reader = _reader(lines, delimiter)
        rows = filter(None, reader)
        try:
            names = [name.strip() for name in next(rows, [])]
            widths = np.fromiter(map(len, rows), dtype=np.int64)
        except csv.Error as error:
            raise DataError(
                "data-quote",
                "Every quoted field must end in a quote",
                got=f"{error} near line {reader.line_num} of {path}",
                cure='Close the quote; a quote inside a field is doubled ("").',
            ) from error
    if not names or not len(widths):
        raise DataError(
            "data-empty",
            "The table must have a header and rows",
            got=f"{path} with {'a header only' if names else 'empty lines only'}",
            cure="Check the file.",
        )
    _require_delimiter(path, names, delimiter)
    extra = bool((widths == len(names) + 1).all())
    with opened() as lines:
        if extra and not any(row[-1] for row in _rows(lines, delimiter)):
            names.append("")
    problems = Problems()
    if (widths != len(names)).any():
        with opened() as lines:
            _ragged(path, _reader(lines, delimiter), len(names), every=extra, problems=problems)
    with problems.collected():
        _names(names)
    problems.settle()
    with opened() as lines:
        return _without_unnamed(path, names, _rows(lines, delimiter))


def _require_delimiter(path: Path, names: list[str], delimiter: str) -> None:
    other = next((d for d in ";\t|," if d != delimiter and d in names[0]), None)
    if len(names) == 1 and other is not None:
        raise DataError(
            "data-delimiter",
            f"Fields must be separated by {delimiter!r}",
            got=f"one column in {path}; its header has {other!r}",
            cure=f"Give the delimiter: --delimiter {other!r}.",
        )


def _ragged(path: Path, reader: Any, width: int, *, every: bool, problems: Problems) -> None:
    """Names the lines with too few or too many fields."""
    wrong = ((reader.line_num, len(row)) for row in reader if len(row) != width and row)
    if every:
        problems.found.append(
            DataError(
                "data-ragged",
                "The header must name every field",
                got=f"{width} names and {width + 1} fields in every line of {path}",
                cure="Add the name that is missing.",
            )
        )
        return
    for line, fields in itertools.islice(wrong, _MOST_RAGGED):
        problems.found.append(
            DataError(
                "data-ragged",
                f"Every line must have {width} fields, as the header has",
                got=f"{fields} in line {line}",
                cure="Quote fields that hold the delimiter.",
            )
        )
    if more := sum(1 for _ in wrong):
        problems.found.append(
            DataError(
                "data-ragged",
                f"Every line must have {width} fields, as the header has",
                got=f"other numbers in {more} more lines",
                cure="Write the table again.",
            )
        )


def _names(names: list[str]) -> None:
    named = [name for name in names if name]
    if len(set(named)) < len(named):
        raise duplicate_column(named)
    if not named:
        raise DataError(
            "data-empty", "Columns must have names", got="none", cure="Write a header line."
        )


def _without_unnamed(path: Path, names: list[str], rows: Iterator[list[str]]) -> list[str]:
    """Leaves a column out that has no name: a trailing delimiter, or row numbers; refuses others.

    Such columns stay "" in the answer.
    """
    unnamed = [i for i, name in enumerate(names) if not name]
    if not unnamed:
        return names
    values = dict.fromkeys(unnamed, "")  # one that is not empty
    numbers = True  # whether the first column counts rows
    for row in rows:
        for i in unnamed:
            values[i] = values[i] or row[i]
        numbers = numbers and row[0].isdigit()
    for i, value in values.items():
        if not value:
            warn("data-trailing", f"{path}: an empty column without a name is left out")
        elif i == 0 and numbers:
            warn("data-unnamed", f"{path}: the first column has no name; left out as row numbers")
        else:
            raise DataError(
                "data-unnamed",
                "Every column must have a name",
                got=f"none for column {i + 1}, with values such as {value!r}",
                cure="Name it in the header.",
            )
    return names

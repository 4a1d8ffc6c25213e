"""Tables from files and from other libraries, checked before anything is made of them.

A CSV file is read strictly: what a lenient reader would repair in silence (a field too many, an
unclosed quote, two columns of one name) is refused with its line. Free of torch.
"""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import re
import stat
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

import numpy as np

from fairneuron.errors import DataError, InputError, OptionError, Problems, warn

if TYPE_CHECKING:
    import pandas as pd

UNKNOWN = "unknown"  # the group, or category, of those whose value is missing
NUMBER = r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?"
NOT_FINITE = r"(?i:nan|[+-]?inf(?:inity)?)"
LEADING_ZEROS = r"[+-]?0\d+(?:\.\d*)?"
EXACT = 2**53  # whole numbers beyond it are not exact in float64

_BOMB_BYTES, _BOMB_RATIO = 64 << 20, 200  # unpacked bytes, and how many times the packed ones
_MOST_CELLS = 1 << 31
_CHUNK = 1 << 20
_MOST_RAGGED = 1000  # lines with an error of their own
_OTHER_KINDS = {
    b"PK": "a zip archive or an Excel workbook",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"ARROW1": "a Feather file",
    b"SQLite": "a database",
    b"\x80": "a pickle",
    b"\x93NUMPY": "a NumPy array",
    b"\x89HDF": "an HDF5 file",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ": "an xz archive",
    b"\x28\xb5\x2f\xfd": "a zstd archive",
    b"%PDF": "a PDF",
}


def read_table(
    path: str | Path, *, delimiter: str = ",", text: Collection[str] = ()
) -> pd.DataFrame:
    """Reads a table from a CSV file (plain or gzip) or a Parquet file; the content decides which.

    Columns of a CSV file whose values all are plain numbers become numbers; all others are texts.
    An empty field is a missing value; nothing else is ("NA" is a text). Spaces after a delimiter do
    not count.

    Args:
        path: The file. CSV must be UTF-8, with a header line and as many fields in every line.
        delimiter: Between the fields of a CSV file.
        text: Columns to keep as texts, whatever they hold.

    Raises:
        DataError: For files that are no such table, with all their faulty lines up to 20; for
            packed files that unpack to far more than they should.
        OptionError: For a delimiter that is not one character.
    """
    path = Path(path)
    if len(delimiter) != 1 or delimiter in '"\r\n':
        raise OptionError(
            "option-delimiter",
            "A delimiter must be one character",
            got=repr(delimiter),
            cure="For example ';'.",
        )
    start = require_file(path)
    if start.startswith(b"PAR1"):
        return _parquet(path)
    packed = start.startswith(b"\x1f\x8b")
    content = _unpacked(path) if packed else None
    _require_text(path, start if content is None else content.read(64), content)
    return _csv(path, content, delimiter, frozenset(text))


def as_frame(table: object) -> pd.DataFrame:
    """A pandas DataFrame of a pandas, polars or Arrow table, with its own columns.

    Raises:
        DataError: For anything else.
    """
    import pandas as pd

    if isinstance(table, pd.DataFrame):
        return table
    library = type(table).__module__.partition(".")[0]
    if library == "polars" and hasattr(table, "collect"):
        table = table.collect()  # lazy
    if library == "polars" and hasattr(table, "to_dict"):  # without pyarrow too
        columns = cast(dict[str, Any], table.to_dict(as_series=True))
        return pd.DataFrame({name: _from_polars(column) for name, column in columns.items()})
    if library == "pyarrow" and hasattr(table, "column_names") and hasattr(table, "to_pandas"):
        if len(set(table.column_names)) < len(table.column_names):
            raise duplicate_column(table.column_names)
        return cast("pd.DataFrame", table.to_pandas())
    raise DataError(
        "data-type",
        "A table must be a pandas, polars or Arrow one",
        got=type(table).__name__,
        cure="Use read_table for files, Dataset.from_arrays for arrays.",
    )


def _from_polars(column: Any) -> pd.Series[Any]:
    import pandas as pd

    if column.dtype.is_numeric():
        exact = column.null_count() == 0 and not column.dtype.is_decimal()
        return pd.Series((column if exact else column.cast(float)).to_numpy())
    return pd.Series(column.to_list(), dtype=object if column.len() else "str").infer_objects()


def require_file(path: Path) -> bytes:
    """The first bytes of a file that can be read.

    Raises:
        DataError: For what is no regular file, an empty one, or one of a kind that is no table.
    """
    try:
        regular = stat.S_ISREG(path.stat().st_mode)  # opening a FIFO would wait forever
        with path.open("rb") if regular else io.BytesIO() as file:
            start = file.read(64)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(
            "data-file", "The data must be a file", got=f"{path}: {reason}", cure="Check the path."
        ) from error
    if not regular:
        raise DataError(
            "data-file",
            "The data must be a regular file",
            got=f"{path}, a folder, pipe or device",
            cure="Check the path.",
        )
    if not start:
        raise DataError(
            "data-empty", "The table must have rows", got=f"{path}, an empty file", cure="Check it."
        )
    return start


def duplicate_column(names: list[str]) -> DataError:
    """The error of a column name that stands twice."""
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    return DataError(
        "data-duplicate-column",
        "Column names must differ",
        got=", ".join(map(repr, twice[:5])),
        cure="Rename one of them.",
    )


def _require_text(path: Path, start: bytes, content: io.BytesIO | None) -> None:
    """Refuses what is no UTF-8 text, naming what it looks like."""
    for magic, kind in _OTHER_KINDS.items():
        if start.startswith(magic):
            raise DataError(
                "data-file",
                "A table must be a CSV or Parquet file",
                got=f"{path}, {kind}",
                cure="Save it as CSV or Parquet.",
            )
    for page in (b"<!doctype", b"<html"):
        if start.lstrip().lower().startswith(page):
            raise DataError(
                "data-file",
                "A table must be a CSV or Parquet file",
                got=f"{path}, a web page",
                cure="Download the file itself.",
            )
    if start.startswith(b"version https://git-lfs"):
        raise DataError(
            "data-file",
            "A table must be a CSV or Parquet file",
            got=f"{path}, a pointer of git-lfs",
            cure="Run 'git lfs pull'.",
        )
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise _wrong_encoding(path, "UTF-16")
    with path.open("rb") if content is None else io.BytesIO(content.getbuffer()) as file:
        zeros = 0
        for chunk in iter(lambda: file.read(_CHUNK), b""):
            zeros += chunk.count(b"\0")
            if zeros > len(chunk) / 4:
                raise _wrong_encoding(path, "UTF-16 or UTF-32")
    if zeros:
        raise DataError(
            "data-nul",
            "A table must be text",
            got=f"{zeros} NUL bytes in {path}",
            cure="The file may be damaged or of another kind; export it again.",
        )


def _wrong_encoding(path: Path, name: str) -> DataError:
    return DataError(
        "data-encoding",
        "A CSV file must be in UTF-8",
        got=f"{path}, which looks like {name}",
        cure=f"Save it as UTF-8: iconv -f {name.split(maxsplit=1)[0]} -t UTF-8 old.csv > new.csv",
    )


def _unpacked(path: Path) -> io.BytesIO:
    """A gzip file in memory, unless it unpacks to far more than it should."""
    most = max(_BOMB_BYTES, _BOMB_RATIO * path.stat().st_size)
    content = io.BytesIO()
    try:
        with gzip.open(path) as file:
            for chunk in iter(lambda: file.read(_CHUNK), b""):
                content.write(chunk)
                if content.tell() > most:
                    raise _bomb(path, f"more than {most >> 20} MiB")
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(
            "data-file", "A gzip file must be whole", got=f"{path}: {error}", cure="Copy it again."
        ) from error
    content.seek(0)
    return content


def _bomb(path: Path, size: str) -> DataError:
    return DataError(
        "data-bomb",
        "A packed file must unpack to a size that fits it",
        got=f"{size} out of {path.stat().st_size} bytes",
        cure=f"If you trust {path.name}, unpack it yourself first.",
    )


# Parquet


def _parquet(path: Path) -> pd.DataFrame:
    try:
        import pyarrow
        import pyarrow.parquet as pq
    except ImportError as error:
        raise OptionError(
            "option-extra",
            "Parquet files need pyarrow",
            got=str(path),
            cure="pip install 'fairneuron[parquet]', or save the table as CSV.",
        ) from error
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            fields, meta = file.schema_arrow, file.metadata
        if len(set(fields.names)) < len(fields.names):
            raise duplicate_column(fields.names)
        nested = [field.name for field in fields if pyarrow.types.is_nested(field.type)]
        if nested:
            raise DataError(
                "data-type",
                "Columns of a table must hold numbers or texts",
                got=f"lists or structures in {nested[0]!r}",
                cure="Take them apart into columns.",
            )
        groups = [meta.row_group(i) for i in range(meta.num_row_groups)]
        size = sum(
            g.column(i).total_uncompressed_size for g in groups for i in range(g.num_columns)
        )
        most = max(_BOMB_BYTES, 4 * _BOMB_RATIO * path.stat().st_size)
        if max(size, meta.num_rows * len(fields)) > min(_MOST_CELLS, most):
            raise _bomb(path, f"{max(size, meta.num_rows * len(fields))} values or bytes")
        texts = [f.name for f in fields if pyarrow.types.is_string(f.type)]
        texts += [f.name for f in fields if pyarrow.types.is_large_string(f.type)]
        # texts as a dictionary: a long one is held once, however many rows have it
        with pq.ParquetFile(path, page_checksum_verification=True, read_dictionary=texts) as file:
            frame = cast("pd.DataFrame", file.read().to_pandas())
        long = sum(_characters(frame[name]) for name in texts)
        if long > 8 * most:
            raise _bomb(path, f"more than {long >> 20} MiB of texts")
        return frame.astype(dict.fromkeys(texts, object))
    except InputError:
        raise
    except Exception as error:  # pyarrow raises many kinds for damaged files
        raise DataError(
            "data-file",
            "A Parquet file must be whole",
            got=f"{path}: {str(error).splitlines()[0] if str(error) else type(error).__name__}",
            cure="Write it again.",
        ) from error


def _characters(column: pd.Series[Any]) -> int:
    """How long the texts of all rows are, each held once as a category."""
    lengths = np.append(column.cat.categories.str.len(), 0).astype(np.int64)
    return int(lengths[column.cat.codes].sum())


# CSV


def _csv(
    path: Path, content: io.BytesIO | None, delimiter: str, text: frozenset[str]
) -> pd.DataFrame:
    import pandas as pd

    def opened() -> TextIO:
        raw = path.open("rb") if content is None else io.BytesIO(content.getbuffer())
        return io.TextIOWrapper(cast(Any, raw), encoding="utf-8-sig", newline="")

    try:
        names = _structure(path, opened, delimiter)
    except UnicodeDecodeError as error:
        raise _wrong_encoding(path, "ISO-8859-1 (latin-1) or Windows-1252") from error

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

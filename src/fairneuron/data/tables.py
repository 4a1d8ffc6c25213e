"""Tables from files and from other libraries, checked before anything is made of them.

A CSV file is read strictly: what a lenient reader would repair in silence (a field too many, an
unclosed quote, two columns of one name) is refused with its line. Free of torch.
"""

from __future__ import annotations

import gzip
import io
import stat
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from fairneuron.data.csvfile import duplicate_column, read_csv, wrong_encoding
from fairneuron.errors import DataError, InputError, OptionError

if TYPE_CHECKING:
    import pandas as pd

UNKNOWN = "unknown"  # the group, or category, of those whose value is missing
NUMBER = r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?"
NOT_FINITE = r"(?i:nan|[+-]?inf(?:inity)?)"
EXACT = 2**53  # whole numbers beyond it are not exact in float64

_BOMB_BYTES, _BOMB_RATIO = 64 << 20, 200  # unpacked bytes, and how many times the packed ones
_MOST_VALUES = 1 << 31
_CHUNK = 1 << 20
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
    return read_csv(path, content, delimiter, frozenset(text))


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
        raise wrong_encoding(path, "UTF-16")
    with path.open("rb") if content is None else io.BytesIO(content.getbuffer()) as file:
        zeros = 0
        for chunk in iter(lambda: file.read(_CHUNK), b""):
            zeros += chunk.count(b"\0")
            if zeros > len(chunk) / 4:
                raise wrong_encoding(path, "UTF-16 or UTF-32")
    if zeros:
        raise DataError(
            "data-nul",
            "A table must be text",
            got=f"{zeros} NUL bytes in {path}",
            cure="The file may be damaged or of another kind; export it again.",
        )


def _unpacked(path: Path) -> io.BytesIO:
    """A gzip file in memory, unless it unpacks to far more than it should."""
    most = most_unpacked(path)
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


def most_unpacked(path: Path) -> int:
    """How many bytes a packed file may unpack to."""
    return max(_BOMB_BYTES, _BOMB_RATIO * path.stat().st_size)


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
        if max(size, meta.num_rows * len(fields)) > min(_MOST_VALUES, most):
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
    import numpy as np

    lengths = np.append(column.cat.categories.str.len(), 0).astype(np.int64)
    return int(lengths[column.cat.codes].sum())

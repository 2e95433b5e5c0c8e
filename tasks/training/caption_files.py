"""Captions and other texts from files that people bring."""

from __future__ import annotations

from pathlib import Path


def read_captions(source: str, column: str = "caption") -> list[str]:
    """Captions from a text file (one a line) or a column of a Parquet file.

    Raises:
        ValueError: the file is missing or unreadable (with the line that is not UTF-8), holds no
            captions, or has no such column.
    """
    path = Path(source)
    if not path.is_file():
        raise ValueError(f"{source}: no such file; give a text file of captions or a Parquet file")
    captions = (
        _from_parquet(path, column) if path.suffix == ".parquet" else utf8_text(path).splitlines()
    )
    captions = [text for text in captions if text.strip()]
    if not captions:
        raise ValueError(f"{source} holds no captions")
    return captions


def utf8_text(path: Path) -> str:
    """The text of a file.

    Raises:
        ValueError: it is not UTF-8; the message names the line.
    """
    data = path.read_bytes()
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{path}, line {line} is not UTF-8 ({data[error.start : error.end]!r}); "
            "write the file in UTF-8, such as with `iconv -f latin1 -t utf-8`"
        ) from error


def _from_parquet(path: Path, column: str) -> list[str]:
    import polars as pl

    try:
        frame = pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise ValueError(f"{path} cannot be read as Parquet: {error}") from error
    if column not in frame.columns:
        raise ValueError(f"{path} has no column {column!r}; it has {', '.join(frame.columns)}")
    return [str(text) for text in frame[column].drop_nulls()]

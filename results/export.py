"""Writes a frame as a table file."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from results.store import StoreError

TableFormat = Literal["csv", "md", "latex", "parquet"]


def write_table(frame: pd.DataFrame, fmt: TableFormat, path: Path | None) -> None:
    """Writes a frame to a file, or to standard output where ``path`` is None (not for parquet).

    CSV and parquet keep every digit; Markdown and LaTeX (booktabs) show six. Lists and dicts become
    JSON text. Raises `StoreError` where the file cannot be written.
    """
    flat = frame.copy()
    for name, column in frame.items():
        if pd.api.types.is_object_dtype(column):
            flat[name] = column.map(_json)
    try:
        if fmt == "parquet":
            if path is None:
                raise StoreError("A parquet table needs a file to go to; name one.")
            flat.to_parquet(path, index=False)
            return
        text = _text(flat, fmt)
        if path is None:
            sys.stdout.write(text)
        else:
            path.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise StoreError(f"The table {path} cannot be written: {error.strerror or error}.") from error


def _text(frame: pd.DataFrame, fmt: Literal["csv", "md", "latex"]) -> str:
    if fmt == "csv":
        return frame.to_csv(index=False, lineterminator="\n")
    shown = frame.astype(object).map(_cell)
    if fmt == "md":
        # Without disable_numparse a key of hex digits such as 12e3 would be printed as a number.
        escaped = shown.map(lambda cell: cell.replace("|", "\\|"))
        return str(escaped.to_markdown(index=False, disable_numparse=True)) + "\n"
    style = shown.style.hide(axis="index").format(escape="latex").format_index(escape="latex", axis=1)
    return str(style.to_latex(hrules=True))


def _json(value: Any) -> Any:
    return json.dumps(value, sort_keys=True) if isinstance(value, dict | list) else value


def _cell(value: Any) -> str:
    if value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)

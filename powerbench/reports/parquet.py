"""Runs as a Parquet file: a row a run, typed columns, null where a value is not known."""

from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import datetime

from powerbench.reports.tidy import kinds, rows_of
from powerbench.rundir.load import Run


def as_parquet(runs: Sequence[Run]) -> bytes:
    """The table of `tidy` as the bytes of a file."""
    import pyarrow
    from pyarrow import parquet

    types = {
        str: pyarrow.string(),
        int: pyarrow.int64(),
        float: pyarrow.float64(),
        bool: pyarrow.bool_(),
        datetime: pyarrow.timestamp("us", tz="UTC"),
    }
    schema = pyarrow.schema([(name, types[kind]) for name, kind in kinds().items()])
    file = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows_of(runs), schema=schema), file)
    return file.getvalue()

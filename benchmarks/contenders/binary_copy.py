"""Reads Arrow and hands it to one binary COPY through ADBC, with nothing around it."""

from __future__ import annotations

import sys
from pathlib import Path

import adbc_driver_manager
import adbc_driver_postgresql
import pyarrow as pa

TYPES = {pa.timestamp("us", "UTC"): "timestamptz", pa.int64(): "bigint", pa.int32(): "integer", pa.bool_(): "boolean"}
TYPES |= {pa.float64(): "double precision", pa.date32(): "date", pa.decimal128(12, 2): "numeric(12, 2)"}


def main(source: Path, url: str) -> None:
    read = pa.ipc.open_file(pa.memory_map(str(source)))
    schema = read.schema
    columns = ", ".join(f'"{one.name}" {TYPES.get(one.type, "text")}' for one in schema)
    with (
        adbc_driver_manager.AdbcDatabase(driver=adbc_driver_postgresql._driver_path(), uri=url) as database,
        adbc_driver_manager.AdbcConnection(database) as connection,
    ):
        _execute(connection, f"CREATE TABLE orders ({columns})")
        connection.set_autocommit(False)
        with adbc_driver_manager.AdbcStatement(connection) as statement:
            statement.set_options(
                **{"adbc.ingest.target_table": "orders", "adbc.ingest.mode": "adbc.ingest.mode.append"}
            )
            batches = (read.get_batch(number) for number in range(read.num_record_batches))
            statement.bind_stream(pa.RecordBatchReader.from_batches(schema, batches))
            statement.execute_update()
        connection.commit()


def _execute(connection: adbc_driver_manager.AdbcConnection, sql: str) -> None:
    with adbc_driver_manager.AdbcStatement(connection) as statement:
        statement.set_sql_query(sql)
        statement.execute_update()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])

"""What every run of these tests loads is loaded before the first: a stall of a second or two is then no import."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute
import sqlalchemy  # noqa: F401 - loaded for the runs

# Making the first array loads pandas, where it is installed.
pa.array([1])

"""Configuration: from files, profile, environment and command line to pipelines.

For the command line and the runner::

    configuration = muxly.config.load("muxly.yaml", profile=None, sets=("pipelines.daily.parallel=8",))
    configuration.pipelines  # Mapping[str, Pipeline]; names cost nothing, values import plugins
    configuration.pipeline("daily")  # one Pipeline; imports the plugins that it uses and no others
    configuration.validate()  # everything, whatever is used
    configuration.events  # Mapping[str, Route]: routes of the stream run_events
    configuration.jobs  # Mapping[str, Job]; triggers as written, with references as text
    configuration.home  # Path: the folder of state and spool, ".muxly" beside the file
    configuration.store_url  # Secret | None (None = the SQLite file in the home folder)
    configuration.spool  # Spool: limits; pipelines have them already, unless they set their own
    configuration.show(resolved=True)  # plain values, secrets masked
    configuration.explain("pipelines.daily.parallel")  # Explanation: str() prints every layer
    configuration.with_location(error, pipeline="daily", route="lake")  # a component's error, with its location
    muxly.config.schema()  # JSON Schema 2020-12 of the core and all installed plugins

``load`` raises when the files, the overrides or the core's own keys are wrong; everything else is
checked when it is asked for, so that ``muxly run daily`` imports the plugins of ``daily`` only.
Whatever raises, raises one ``ConfigurationError`` whose message holds all problems, one a line, in
the order of the file::

    muxly.yaml:13:17: pipelines.daily.routes.lake.router.format: expected one of csv, jsonl, parquet;
    did you mean "parquet"?

A file is YAML (by the rules of 1.2: ``on``, ``no``, ``012`` and dates are text), JSON or TOML. Layers,
lowest first: defaults, ``include``, the file, the profile (``--profile`` or ``MUXLY_PROFILE``), the
environment (``MUXLY__PIPELINES__DAILY__PARALLEL=8``), ``--set``. Mappings are merged, everything else is replaced.
References ``${NAME}``, ``${NAME:-default}``, ``${file:/path}`` and ``$$`` are resolved in values, not in
keys. Relative paths (``Path`` options, ``home``, ``${file:...}``) start in the folder of the main file.
Keys at the top that begin with ``x-`` are free for YAML anchors.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from muxly.config._configuration import Configuration, Explanation, LayerValue
from muxly.config._file_schema import Job, Spool

__all__ = ["Configuration", "Explanation", "LayerValue", "Job", "Spool", "load", "schema"]


def load(
    path: str | Path,
    *,
    profile: str | None = None,
    sets: Iterable[str] = (),
    environ: Mapping[str, str] | None = None,
) -> Configuration:
    """Load a configuration.

    Args:
        path: The main file: ``.yaml``, ``.yml``, ``.json`` or ``.toml``.
        profile: One of its ``profiles``; default ``MUXLY_PROFILE``, else none.
        sets: Texts ``KEY=VALUE`` that override everything, such as ``pipelines.daily.parallel=8``.
        environ: The environment; default the process's own.

    Raises:
        ConfigurationError: A file cannot be read, or something is wrong; the message then has all of it,
            including what a later ``validate`` would find.
    """
    from muxly.config._document import Problems
    from muxly.config._source import read_source
    from muxly.config._validate import ConfigurationValidator

    environ = os.environ if environ is None else environ
    profile = profile or environ.get("MUXLY_PROFILE") or None
    problems = Problems()
    source = read_source(Path(path), profile=profile, sets=sets, environ=environ, problems=problems)
    if not problems.unreadable:
        validator = ConfigurationValidator(source, problems)
        validator.core_keys()
        if problems.found:
            validator.everything()
    problems.raise_any()
    return Configuration(source, problems.files, profile)


def schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a configuration file; imports every installed connector and router."""
    from muxly.config._file_schema import published_schema

    return published_schema()

"""The example plugins, built as wheels and installed beside the core into an empty environment."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import distributions
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"
PLUGINS = ("muxly-connector-earthquakes", "muxly-router-sqlite")
MEMBERS = (*(ROOT / name for name in ("muxly-core", "muxly-connector-file", "muxly-routers", "muxly-testing")),)
START = datetime(2026, 1, 1, tzinfo=UTC)


def run(*command: str | Path, cwd: Path, status: int | None = 0) -> str:
    """Run a command as a user does: nothing of this process's environment leads to the source tree."""
    environ = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**environ, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=170,
    )
    assert status is None or done.returncode == status, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of commands of an environment that holds wheels only."""
    folder = tmp_path_factory.mktemp("installed")
    uv = shutil.which("uv")
    assert uv, "uv is not on the path; pip install uv"
    for project in (*MEMBERS, *(EXAMPLES / name for name in PLUGINS)):
        run(uv, "build", "--quiet", "--wheel", "--out-dir", folder / "wheels", project, cwd=ROOT)
    run(uv, "venv", "--quiet", "--python", sys.executable, folder / "environment", cwd=folder)
    found = next(path for name in ("bin", "Scripts") if (path := folder / "environment" / name).is_dir())
    wheels = sorted((folder / "wheels").glob("*.whl"))
    # The wheels that were just built, not what an index may offer under their names, and what they
    # need as it is installed here: a release of today tells nothing about the change under test.
    versions = folder / "versions.txt"
    here = {one.metadata["Name"]: one.version for one in distributions()}
    versions.write_text("".join(f"{name}=={version}\n" for name, version in here.items() if "muxly" not in name))
    options = ("--quiet", "--python", found / "python", "--constraints", versions)
    run(uv, "pip", "install", *options, *wheels, "pytest>=9.1,<10", cwd=folder)
    return found


class Catalogue(BaseHTTPRequestHandler):
    """200 earthquakes, one a minute."""

    def do_GET(self) -> None:
        query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        start = datetime.fromisoformat(query["starttime"])
        first = int(query["offset"]) - 1
        there = [number for number in range(200) if _time(number) >= start.replace(tzinfo=start.tzinfo or UTC)]
        page = [_feature(number) for number in there[first : first + int(query["limit"])]]
        body = json.dumps({"features": page}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Tests are quiet."""


def _time(number: int) -> datetime:
    return START + timedelta(minutes=number)


def _feature(number: int) -> dict[str, Any]:
    properties = {"time": int(_time(number).timestamp() * 1000), "mag": 5.0, "place": f"place {number}"}
    return {"id": f"us{number}", "properties": properties, "geometry": {"coordinates": [1.0, 2.0, 3.0]}}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Catalogue) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as database:
        return database.execute(query).fetchall()


def delivered(folder: Path) -> list[dict[str, Any]]:
    """The records of all files of JSON lines."""
    texts = [path.read_text(encoding="utf-8") for path in folder.rglob("*.jsonl")]
    return [json.loads(line) for text in texts for line in text.splitlines()]


@pytest.mark.parametrize("name", PLUGINS)
def test_tests_of_the_example_pass_where_it_is_installed(scripts: Path, name: str, tmp_path: Path) -> None:
    shutil.copytree(EXAMPLES / name / "tests", tmp_path / "tests")
    shutil.copy(EXAMPLES / name / "pyproject.toml", tmp_path)
    assert " passed" in run(scripts / "python", "-m", "pytest", "-q", cwd=tmp_path)


def test_plugins_are_listed_from_their_metadata(scripts: Path, tmp_path: Path) -> None:
    listed = run(scripts / "muxly", "plugins", cwd=tmp_path)
    assert re.search(r"earthquakes.*muxly-connector-earthquakes", listed)
    assert re.search(r"sqlite.*muxly-router-sqlite", listed)


def test_pipeline_of_both_plugins_runs_from_yaml(scripts: Path, url: str, tmp_path: Path) -> None:
    (tmp_path / "muxly.yaml").write_text(
        f"""\
version: 1
pipelines:
  catalogue:
    connector: {{type: earthquakes, base_url: "{url}", page_records: 64}}
    routes:
      database: {{router: {{type: sqlite, path: out/catalogue.db}}}}
      lake: {{router: {{type: file, path: out/lake, format: jsonl}}}}
"""
    )
    run(scripts / "muxly", "config", "validate", "muxly.yaml", cwd=tmp_path)
    for _ in range(2):
        run(scripts / "muxly", "run", "muxly.yaml", cwd=tmp_path)
        found = rows(tmp_path / "out" / "catalogue.db", "SELECT count(*), count(DISTINCT id) FROM earthquakes")
        assert found == [(200, 200)]
        assert sorted(one["id"] for one in delivered(tmp_path / "out" / "lake")) == sorted(f"us{n}" for n in range(200))


def test_yaml_of_the_router_readme_runs(scripts: Path, tmp_path: Path) -> None:
    readme = (EXAMPLES / "muxly-router-sqlite" / "README.md").read_text(encoding="utf-8")
    (tmp_path / "muxly.yaml").write_text(_yaml_of(readme))
    (tmp_path / "orders.csv").write_text("id,price\n1,9.50\n2,12.00\n")
    run(scripts / "muxly", "run", "muxly.yaml", cwd=tmp_path)
    assert rows(tmp_path / "out" / "orders.db", "SELECT id, price FROM orders ORDER BY id") == [(1, 9.5), (2, 12.0)]


def test_yaml_of_the_connector_readme_runs(scripts: Path, url: str, tmp_path: Path) -> None:
    readme = (EXAMPLES / "muxly-connector-earthquakes" / "README.md").read_text(encoding="utf-8")
    served = _yaml_of(readme).replace("min_magnitude: 5}", f'min_magnitude: 5, base_url: "{url}"}}')
    assert url in served
    (tmp_path / "muxly.yaml").write_text(served)
    run(scripts / "muxly", "run", "muxly.yaml", cwd=tmp_path)
    assert len(delivered(tmp_path / "out")) == 200


def _yaml_of(page: str) -> str:
    (found,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    return str(found)

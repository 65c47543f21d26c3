"""Plugins are listed from metadata, imported when used, and harm nobody but themselves."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import muxly
from muxly import _plugins

CONNECTOR = """
import muxly

class Good(muxly.Connector):
    def streams(self):
        return [muxly.Stream("a")]

@muxly.hookimpl
def muxly_connector():
    return Good
"""


class Site:
    """A folder of installed distributions."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def install(
        self, name: str, *, group: str = "muxly.connectors", entry: str, code: str = CONNECTOR, version: str = "1.0"
    ) -> None:
        """Install a distribution with one module and one entry point, ``name = module[:attribute]``."""
        module = entry.partition("=")[2].partition(":")[0].strip()
        (self.folder / f"{module}.py").write_text(code, encoding="utf-8")
        metadata = self.folder / f"{name.replace('-', '_')}-{version}.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (metadata / "entry_points.txt").write_text(f"[{group}]\n{entry}\n", encoding="utf-8")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)
    _plugins.forget()
    yield Site(tmp_path)
    _plugins.forget()
    for name in set(sys.modules) - before:
        if name.startswith("plug_"):
            del sys.modules[name]


def test_plugin_is_listed_without_being_imported(site: Site) -> None:
    site.install("muxly-connector-a", entry="alpha = plug_a", code="raise SystemExit('imported')")
    (found,) = [one for one in _plugins.installed() if one.name == "alpha"]
    assert (found.kind, found.value, found.distribution, found.version) == (
        "connector",
        "plug_a",
        "muxly-connector-a",
        "1.0",
    )
    assert "plug_a" not in sys.modules


def test_plugin_is_imported_when_it_is_used(site: Site) -> None:
    site.install("muxly-connector-a", entry="alpha = plug_a")
    kind = _plugins.load("connector", "alpha")
    assert issubclass(kind, muxly.Connector)
    assert kind.__module__ == "plug_a"


def test_entry_point_may_name_the_class_itself(site: Site) -> None:
    site.install("muxly-connector-a", entry="alpha = plug_a:Good")
    assert _plugins.load("connector", "alpha").__name__ == "Good"


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        ("import nothing_of_that_name", "ModuleNotFoundError: No module named 'nothing_of_that_name'"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("def :", "SyntaxError"),
        ("raise ValueError('secret plan')", "ValueError: secret plan"),
    ],
)
def test_plugin_that_cannot_be_imported_names_its_owner_and_the_cause(site: Site, code: str, cause: str) -> None:
    site.install("muxly-connector-bad", entry="bad = plug_bad", code=code, version="2.5")
    site.install("muxly-connector-a", entry="alpha = plug_a")
    with pytest.raises(muxly.PluginError, match=r"connector plugin 'bad' of muxly-connector-bad 2\.5 cannot") as caught:
        _plugins.load("connector", "bad")
    assert cause in str(caught.value)
    assert _plugins.load("connector", "alpha").__name__ == "Good"


def test_two_owners_of_one_name_are_both_named(site: Site) -> None:
    site.install("muxly-connector-a", entry="same = plug_a")
    site.install("another-connector", entry="same = plug_b")
    with pytest.raises(
        muxly.PluginError, match=r"another-connector 1\.0 and muxly-connector-a 1\.0 both provide a connector"
    ):
        _plugins.load("connector", "same")


def test_one_name_may_be_a_connector_and_a_router(site: Site) -> None:
    site.install("muxly-connector-a", entry="same = plug_a")
    site.install(
        "muxly-router-b",
        group="muxly.routers",
        entry="same = plug_b:Post",
        code="import muxly\nclass Post(muxly.Router): ...",
    )
    assert issubclass(_plugins.load("connector", "same"), muxly.Connector)
    assert issubclass(_plugins.load("router", "same"), muxly.Router)


def test_unknown_name_gets_the_nearest_one(site: Site) -> None:
    site.install("muxly-connector-a", entry="countries = plug_a")
    with pytest.raises(muxly.PluginError, match=r'no connector named \'contries\'; did you mean "countries"\?'):
        _plugins.load("connector", "contries")


def test_name_that_resembles_nothing_gets_the_list(site: Site) -> None:
    site.install("muxly-connector-a", entry="countries = plug_a")
    with pytest.raises(
        muxly.PluginError, match=r"no connector named 'zzz'; installed: .*countries.*install plugins with pip"
    ):
        _plugins.load("connector", "zzz")


@pytest.mark.parametrize("name", ["Upper", "with.dot", "with space", "9th", "x" * 65, "naïve", "\u0441ountries"])
def test_odd_names_are_listed_with_their_problem_and_cannot_be_used(site: Site, name: str) -> None:
    site.install("muxly-connector-a", entry=f"{name} = plug_a")
    (found,) = [one for one in _plugins.installed() if one.distribution == "muxly-connector-a"]
    assert found.problem == "its name may contain only lower-case letters, digits, - and _"
    assert name not in _plugins.names("connector")
    with pytest.raises(muxly.PluginError, match="there is no connector named"):
        _plugins.load("connector", name)


@pytest.mark.parametrize(
    ("entry", "code", "message"),
    [
        ("alpha = plug_a", "", r"needs one function muxly_connector\(\) marked @muxly.hookimpl .* found 0"),
        ("alpha = plug_a:Nothing", "", "AttributeError: module 'plug_a' has no attribute 'Nothing'"),
        ("alpha = plug_a:thing", "thing = 5", "found 0"),
        ("alpha = plug_a:Plain", "class Plain: ...", "is not a subclass of muxly.Connector"),
        ("alpha = plug_a:Post", "import muxly\nclass Post(muxly.Router): ...", "is not a subclass of muxly.Connector"),
        (
            "alpha = plug_a",
            "import muxly\n@muxly.hookimpl\ndef muxly_connector():\n    return 5",
            "provides 5, which is not a subclass",
        ),
    ],
)
def test_plugin_that_provides_something_else_is_told_what_is_missing(
    site: Site, entry: str, code: str, message: str
) -> None:
    site.install("muxly-connector-a", entry=entry, code=code)
    with pytest.raises(muxly.PluginError, match=message):
        _plugins.load("connector", "alpha")


def test_hook_with_wrong_arguments_is_a_plugin_error(site: Site) -> None:
    code = "import muxly\n@muxly.hookimpl\ndef muxly_connector(config):\n    return 5"
    site.install("muxly-connector-a", entry="alpha = plug_a", code=code)
    with pytest.raises(muxly.PluginError, match="connector plugin 'alpha' of muxly-connector-a"):
        _plugins.load("connector", "alpha")


def test_hook_that_raises_is_a_plugin_error(site: Site) -> None:
    code = "import muxly\n@muxly.hookimpl\ndef muxly_connector():\n    raise ValueError('no licence')"
    site.install("muxly-connector-a", entry="alpha = plug_a", code=code)
    with pytest.raises(muxly.PluginError, match=r"connector plugin 'alpha' of muxly-connector-a.*no licence"):
        _plugins.load("connector", "alpha")


def test_class_of_ones_own_is_named_by_its_module(site: Site) -> None:
    (site.folder / "plug_own.py").write_text(CONNECTOR)
    assert _plugins.load("connector", "plug_own:Good").__name__ == "Good"
    with pytest.raises(muxly.PluginError, match="has no attribute 'Bad'"):
        _plugins.load("connector", "plug_own:Bad")
    with pytest.raises(muxly.PluginError, match="found 0"):
        _plugins.load("connector", "os:system")


@pytest.mark.parametrize("path", ["../evil:X", "a-b:X", ":X", "a:", "a:b.c", "a b:X", "a;b:X"])
def test_only_dotted_names_are_paths(site: Site, path: str) -> None:
    with pytest.raises(muxly.PluginError, match="there is no connector named"):
        _plugins.load("connector", path)


def test_broken_metadata_harms_nobody(site: Site) -> None:
    """Half uninstalled: the folder is there, its files are not, or hold something else."""
    site.install("muxly-connector-a", entry="alpha = plug_a")
    (site.folder / "empty-1.0.dist-info").mkdir()
    nameless = site.folder / "nameless-1.0.dist-info"
    nameless.mkdir()
    (nameless / "entry_points.txt").write_text("[muxly.connectors]\nlost = plug_lost\n")
    garbled = site.folder / "garbled-1.0.dist-info"
    garbled.mkdir()
    (garbled / "METADATA").write_text("Metadata-Version: 2.1\nName: garbled\nVersion: 1.0\n")
    (garbled / "entry_points.txt").write_text("[muxly.connectors]\nno equals sign\n= nothing\nx =\n")
    assert "alpha" in _plugins.names("connector")
    assert _plugins.load("connector", "alpha").__name__ == "Good"


def test_newly_installed_plugin_is_found_after_forget(site: Site) -> None:
    assert "late" not in _plugins.names("connector")
    site.install("muxly-connector-a", entry="late = plug_a")
    _plugins.forget()
    assert "late" in _plugins.names("connector")


def test_observers_are_gathered_and_broken_ones_reported(site: Site) -> None:
    code = "import muxly\nseen = []\n@muxly.hookimpl\ndef muxly_notice(run, notice):\n    seen.append(notice)"
    site.install("muxly-watch", group="muxly.hooks", entry="watch = plug_watch", code=code)
    site.install("muxly-broken", group="muxly.hooks", entry="broken = plug_broken", code="1 / 0")
    hooks, errors = _plugins.observers()
    hooks.hook.muxly_notice(run=muxly.Run("01J", "daily"), notice=muxly.Notice("a", "b"))
    assert [one.code for one in sys.modules["plug_watch"].seen] == ["a"]
    assert [str(error) for error in errors] == [
        "the hooks plugin 'broken' of muxly-broken 1.0 cannot be imported: ZeroDivisionError: division by zero"
    ]


def test_observer_with_an_unknown_argument_is_reported_and_left_out(site: Site) -> None:
    code = "import muxly\n@muxly.hookimpl\ndef muxly_notice(run, message):\n    pass"
    site.install("muxly-watch", group="muxly.hooks", entry="watch = plug_watch", code=code)
    hooks, errors = _plugins.observers()
    assert len(errors) == 1
    assert "muxly-watch" in str(errors[0])
    hooks.hook.muxly_notice(run=muxly.Run("01J", "daily"), notice=muxly.Notice("a", "b"))


def test_listing_imports_nothing_heavy() -> None:
    code = (
        "from muxly import _plugins; import sys; _plugins.installed(); print({'pyarrow', 'pluggy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"

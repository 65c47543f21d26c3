"""Options: a class body is the model, and no slip in it goes unnoticed; secrets stay secret."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Optional

import attrs
import pytest

import muxly
from muxly._annotations import resolved
from muxly.config._conformance import problems_of
from muxly.config._document import Document
from muxly.config._schema import SchemaWriter
from muxly.options import HELP

if TYPE_CHECKING:
    from decimal import Decimal

PASSWORD = "correct horse battery staple"


class Login(muxly.Options):
    user: str = "me"
    password: muxly.Secret


Format = Literal["csv", "jsonl", "parquet"]


class Choosing(muxly.Options):
    plain: Literal["a", "b"] = "a"
    named: Format = muxly.option("Format.", default="csv")
    optional: Format | None = None
    older: Optional[Format] = None  # noqa: UP045 (users write it)
    noted: Annotated[Literal["low", "high"], "how loud"] = "low"
    either: Literal["all"] | int = "all"
    single: Literal["one"] = "one"
    long: Format = muxly.option("Not csv.", default="jsonl", validator=attrs.validators.min_len(4))
    odd: Format = muxly.option("Unset means another.", default="unset")  # type: ignore[arg-type]
    hidden: Decimal | None = None


class ChoosingMore(Choosing):
    plain: Literal["c"] = "c"  # type: ignore[assignment]
    own: Format = "csv"


class Api(muxly.Connector):
    url: str = muxly.option("Root of the API.", default="https://api.example")
    token: muxly.Secret | None = muxly.option("Access token.", default=None)
    tokens: list[muxly.Secret] = muxly.option("More of them.", factory=list)
    named: dict[str, muxly.Secret] = muxly.option("And more.", factory=dict)
    page: int = 100
    folder: Path | None = None
    files: list[Path] = muxly.option("Files.", factory=list)
    login: Login | None = None
    kinds: ClassVar[tuple[str, ...]] = ("a", "b")
    _connected: bool = False


def test_annotated_names_are_options_and_private_ones_are_not() -> None:
    names = [field.name for field in attrs.fields(Api)]
    assert names == ["url", "token", "tokens", "named", "page", "folder", "files", "login"]
    assert Api()._connected is False
    assert attrs.fields(Api).url.metadata[HELP] == "Root of the API."


def test_options_are_keyword_only_and_known() -> None:
    with pytest.raises(TypeError, match="positional argument"):
        Api("https://other.example")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="unexpected keyword argument 'pages'"):
        Api(pages=5)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="missing 1 required keyword-only argument: 'password'"):
        Login()  # type: ignore[call-arg]


def test_components_are_values() -> None:
    assert Api(page=5) == Api(page=5)
    assert Api(page=5) != Api(page=6)
    assert "page=5" in repr(Api(page=5))
    one = Api()
    one.tokens.append(muxly.Secret("x"))
    assert Api().tokens == []


def test_subclass_adds_and_changes_options() -> None:
    class Wider(Api):
        page: int = 500
        retries: int

    assert (Wider(retries=1).page, Wider(retries=1).url) == (500, "https://api.example")


def test_shared_default_is_refused() -> None:
    with pytest.raises(TypeError, match=r"Shared.names: all components would share this list; .*factory=list"):

        class Shared(muxly.Connector):
            names: list[str] = muxly.option("Names.", default=[])

    with pytest.raises(TypeError, match=r"Plain.names: all components would share this dict"):

        class Plain(muxly.Connector):
            names: dict[str, str] = {}  # noqa: RUF012 (that is the slip)


def test_option_that_hides_a_method_is_refused() -> None:
    with pytest.raises(TypeError, match=r"Hiding.streams is part of the contract and cannot be an option"):

        class Hiding(muxly.Connector):
            streams: list[str]  # type: ignore[assignment]

    with pytest.raises(TypeError, match=r"promise is part of the contract.*make it a ClassVar"):

        class Promising(muxly.Router):
            promise: muxly.Promise = "effectively_once"  # type: ignore[misc]


def test_option_without_a_type_is_refused() -> None:
    """Otherwise attrs would take it for the only one, and `page` would silently be none."""
    with pytest.raises(attrs.exceptions.UnannotatedAttributeError, match="url"):

        class Untyped(muxly.Connector):
            url = muxly.option("Root of the API.", default="x")
            page: int = 100


def test_default_and_factory_together_are_refused() -> None:
    with pytest.raises(TypeError, match="a default or a factory, not both"):
        muxly.option("Names.", default=[], factory=list)  # type: ignore[call-overload]


def test_validators_name_what_is_wrong() -> None:
    class Checked(muxly.Options):
        page: int = muxly.option("Records.", default=1, validator=attrs.validators.ge(1))

    with pytest.raises(ValueError, match="'page' must be >= 1: 0"):
        Checked(page=0)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("plain", "c", 'expected one of a, b, got "c"'),
        ("named", "cvs", 'expected one of csv, jsonl, parquet; did you mean "csv"?'),
        ("named", None, "expected one of csv, jsonl, parquet, got nothing"),
        ("named", ["csv"], "expected one of csv, jsonl, parquet, got a list"),
        ("named", 5, "expected one of csv, jsonl, parquet, got 5"),
        ("optional", "jsnl", 'expected one of csv, jsonl, parquet; did you mean "jsonl"?'),
        ("older", "xml", 'expected one of csv, jsonl, parquet, got "xml"'),
        ("noted", "loud", 'expected one of low, high, got "loud"'),
        ("single", "two", 'expected one, got "two"'),
        ("long", "text", 'expected one of csv, jsonl, parquet, got "text"'),
    ],
)
def test_wrong_choice_is_refused_in_the_words_of_a_file(name: str, value: Any, words: str) -> None:
    with pytest.raises(muxly.ConfigurationError, match="expected") as caught:
        Choosing(**{name: value})
    assert (str(caught.value), caught.value.path) == (f"Choosing.{name}: {words}", (name,))
    assert _told_of_a_file(name, value) == words


def _told_of_a_file(name: str, value: Any) -> str:
    writer = SchemaWriter()
    schema = writer.kind(resolved(Choosing, getattr(attrs.fields(Choosing), name)))
    (problem,) = problems_of(schema, value, writer.defs, Document())
    return problem.message


def test_choices_leave_everything_else_as_it_is() -> None:
    made = Choosing(optional=None, older="csv", either=5, long="parquet", hidden="no choice")  # type: ignore[arg-type]
    assert (made.optional, made.older, made.either, made.long, made.odd) == (None, "csv", 5, "parquet", "unset")
    with pytest.raises(ValueError, match="Length of 'long' must be >= 4: 3"):
        Choosing(long="csv")


def test_subclass_has_its_own_choices_and_the_inherited_ones() -> None:
    assert (ChoosingMore().plain, ChoosingMore(named="jsonl").named) == ("c", "jsonl")
    for wrong in ({"plain": "a"}, {"named": "cvs"}, {"own": "cvs"}):
        given: dict[str, Any] = dict(wrong)
        with pytest.raises(muxly.ConfigurationError, match=rf"^ChoosingMore.{next(iter(wrong))}: expected"):
            ChoosingMore(**given)


def test_choices_cost_no_import() -> None:
    """A configuration is built from Python without what reads files."""
    code = "import sys, muxly_testing as t; t.FakeConnector(); sys.exit('muxly.config' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "annotation",
    ["muxly.Secret", "Secret | None", "Optional[muxly.Secret]", Optional[muxly.Secret]],  # noqa: UP045 (users write it)
)
def test_text_becomes_a_secret_however_the_type_is_written(annotation: Any) -> None:
    made = type("Made", (muxly.Options,), {"__annotations__": {"token": annotation}})
    assert PASSWORD not in repr(made(token=PASSWORD))
    assert made(token=PASSWORD).token.reveal() == PASSWORD


def test_text_inside_lists_and_dicts_becomes_secrets_and_paths() -> None:
    given: dict[str, Any] = {"tokens": [PASSWORD], "named": {"a": PASSWORD}, "files": ["a.csv"], "folder": "out"}
    api = Api(**given)
    assert PASSWORD not in repr(api)
    assert [one.reveal() for one in (*api.tokens, *api.named.values())] == [PASSWORD, PASSWORD]
    assert (api.files, api.folder) == ([Path("a.csv")], Path("out"))


def test_secret_is_shown_nowhere() -> None:
    secret = muxly.Secret(PASSWORD)
    shown = [repr(secret), str(secret), f"{secret}", f"{secret:>40}", "%s" % secret, "%r" % [secret]]  # noqa: UP031
    shown += [
        repr(Api(token=secret, login=Login(password=secret))),
        repr({secret: 1}),
        str(attrs.asdict(Api(token=secret))),
    ]
    with pytest.raises(ValueError, match="Secret") as caught:
        raise ValueError(secret)
    shown.append("".join(traceback.format_exception(caught.value)))
    assert [text for text in shown if PASSWORD in text] == []
    assert not hasattr(secret, "__dict__")


def test_secret_is_no_text() -> None:
    secret: Any = muxly.Secret(PASSWORD)
    secrets: Any = [secret]
    with pytest.raises(TypeError, match="can only concatenate str"):
        "Bearer " + secret
    with pytest.raises(TypeError, match="expected str instance, Secret found"):
        ", ".join(secrets)
    with pytest.raises(TypeError, match="not JSON serializable"):
        json.dumps(secret)
    with pytest.raises(TypeError, match="a secret is text, not int"):
        muxly.Secret(5)  # type: ignore[arg-type]


def test_bare_secret_does_not_leave_the_process() -> None:
    with pytest.raises(
        muxly.ConfigurationError, match=r"cannot be passed to another process.*write \$\{NAME\}"
    ) as caught:
        pickle.dumps(Api(token=muxly.Secret(PASSWORD)))
    assert PASSWORD not in str(caught.value)


def test_secret_travels_as_its_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    api = Api(token="${API_TOKEN}")  # type: ignore[arg-type]
    content = pickle.dumps(api)
    monkeypatch.setenv("API_TOKEN", PASSWORD)
    token = pickle.loads(content).token
    assert token.reveal() == PASSWORD
    assert repr(token) == "Secret('${API_TOKEN}')"
    assert PASSWORD.encode() not in pickle.dumps(token)


def test_missing_reference_is_named_without_its_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_TOKENS", PASSWORD)
    with pytest.raises(muxly.ConfigurationError, match=r"API_TOKEN is not set; did you mean API_TOKENS\?") as caught:
        muxly.Secret.from_reference("${API_TOKEN}").reveal()
    assert PASSWORD not in str(caught.value)


def test_components_compare_where_secrets_cannot_be_resolved() -> None:
    """On a machine that only schedules, secrets are not there."""
    one, other = (Api(token=muxly.Secret.from_reference("${NOT_HERE_AT_ALL}")) for _ in range(2))
    assert one == other


def test_secrets_compare_by_content() -> None:
    assert muxly.Secret("a") == muxly.Secret("a")
    assert muxly.Secret("a") != muxly.Secret("b")
    assert muxly.Secret("ä") != muxly.Secret("a")
    assert muxly.Secret("a") != "a"
    assert len({muxly.Secret("a"), muxly.Secret("a")}) == 1


def test_copies_keep_the_secret() -> None:
    api = Api(token=muxly.Secret(PASSWORD))
    for made in (copy.copy(api), copy.deepcopy(api)):
        assert made.token is api.token

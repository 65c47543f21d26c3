"""Raises an error on import: the conformance tests are a distribution of their own, ``muxly-testing``."""

raise ModuleNotFoundError(
    "the conformance tests, fake components and pytest fixtures are in a distribution of their own; "
    "run `pip install muxly-testing` and import them from `muxly_testing`",
    name="muxly_testing",
)

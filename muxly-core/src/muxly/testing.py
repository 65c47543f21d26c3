"""A sign for authors of plugins: the conformance tests are a distribution of their own, ``muxly-testing``."""

raise ModuleNotFoundError(
    "the conformance tests, fake components and pytest plugin are in the distribution muxly-testing: "
    "pip install muxly-testing, then import them from muxly_testing",
    name="muxly_testing",
)

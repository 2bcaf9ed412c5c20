"""Conformance suites that a component of any project can run against itself, and the fakes that pass them."""

import sys

if (pytest := sys.modules.get("pytest")) is not None:  # a worker that imports the tasks has no need of it
    pytest.register_assert_rewrite(*(f"{__name__}.{suite}" for suite in ("executors", "launchers", "providers")))

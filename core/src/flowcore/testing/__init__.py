"""Conformance suites that a component of any project can run against itself, and the fakes that pass them."""

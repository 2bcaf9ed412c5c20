"""Who watches a run is told, in order; who fails is dropped; who does not watch costs nothing."""

from __future__ import annotations

import logging

from flowcore import registry

WATCHER = """
    from flowcore.plugin import hookimpl
    FLOWCORE_API = 1
    SEEN = []
    @hookimpl
    def flowcore_run_started(kernel):
        SEEN.append(kernel)
    @hookimpl
    def flowcore_task_changed(state):
        SEEN.append(state)
"""


class Watcher:
    def __init__(self):
        self.seen = []

    def flowcore_task_changed(self, task, state, when):
        self.seen.append((task, state, when))

    def flowcore_run_finished(self, kernel):
        self.seen.append(kernel)


class Failing:
    def __init__(self):
        self.calls = 0

    def flowcore_task_changed(self, task, state, when):
        self.calls += 1
        raise OSError("disk full")


def test_without_an_observer_there_is_nothing_to_call(site):
    assert registry.observation_hooks() is None
    assert registry.observation_hooks(None, object()) is None


def test_a_plugin_is_told_the_facts_its_hooks_ask_for(site):
    site.install("watch", WATCHER)
    observers = registry.observation_hooks()
    observers.run_started("kernel")
    observers.task_changed("task", "running", 1.5)
    observers.run_finished("kernel")
    import watch_manifest

    assert watch_manifest.SEEN == ["kernel", "running"]


def test_an_object_is_told_by_its_methods(site):
    watcher = Watcher()
    observers = registry.observation_hooks(watcher)
    observers.run_started("kernel")
    observers.task_changed("task", "running", 1.5)
    observers.run_finished("kernel")
    assert watcher.seen == [("task", "running", 1.5), "kernel"]


def test_an_observer_that_raises_is_logged_once_and_dropped_and_the_others_go_on(site, caplog):
    failing, watcher = Failing(), Watcher()
    observers = registry.observation_hooks(failing, watcher)
    with caplog.at_level(logging.WARNING):
        for when in range(3):
            observers.task_changed("task", "running", when)
    assert failing.calls == 1
    assert len(watcher.seen) == 3
    [record] = caplog.records
    assert "Failing object raised in flowcore_task_changed" in record.getMessage()
    assert "disk full" in caplog.text


def test_a_broken_plugin_observes_nothing(site):
    site.install("watch", WATCHER + "\n    1 / 0\n")
    assert registry.observation_hooks() is None

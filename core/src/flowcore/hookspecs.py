"""The extension points of flowcore: what a plugin may offer, and what an observer may watch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pluggy

from flowcore.plugin import PROJECT, Component

if TYPE_CHECKING:
    from typing import Any

hookspec = pluggy.HookspecMarker(PROJECT)


@hookspec
def flowcore_executors() -> Iterable[Component]:
    """Offer executors: subclasses of `flowcore.executors.base.Executor`.

    Called once, when the plugin is discovered. It names classes and imports none of them:

        @hookimpl
        def flowcore_executors():
            yield Component("AcmeExecutor", "flowcore_acme.executor:AcmeExecutor", "Runs tasks on Acme.")
    """
    raise AssertionError  # a specification is never called


@hookspec
def flowcore_providers() -> Iterable[Component]:
    """Offer providers: subclasses of `flowcore.providers.base.Provider`.

    Called once, when the plugin is discovered:

        @hookimpl
        def flowcore_providers():
            yield Component("AcmeProvider", "flowcore_acme.provider:AcmeProvider", "Starts blocks on Acme.")
    """
    raise AssertionError  # a specification is never called


@hookspec
def flowcore_launchers() -> Iterable[Component]:
    """Offer launchers: subclasses of `flowcore.launchers.base.Launcher`.

    Called once, when the plugin is discovered:

        @hookimpl
        def flowcore_launchers():
            yield Component("AcmeLauncher", "flowcore_acme.launcher:AcmeLauncher", "Starts commands with acmerun.")
    """
    raise AssertionError  # a specification is never called


@hookspec
def flowcore_run_started(kernel: Any) -> None:
    """Watch a run begin. Called in the loading thread, when its executors have started.

    @hookimpl
    def flowcore_run_started(kernel):
        print("run", kernel.run_id, "in", kernel.run_dir)
    """


@hookspec
def flowcore_task_changed(task: Any, state: Any, when: float) -> None:
    """Watch a task enter a state. Called with no lock held, in the thread that made the change; so be quick.

    `task` is a `TaskRecord`, `state` a member of `flowcore.dataflow.tasks.States`, `when` seconds since the epoch.

        @hookimpl
        def flowcore_task_changed(task, state, when):
            print(task.id, state.name)
    """


@hookspec
def flowcore_run_finished(kernel: Any) -> None:
    """Watch a run end that has begun. Called when all its futures are done and its executors are shut down.

    @hookimpl
    def flowcore_run_finished(kernel):
        print("run", kernel.run_id, "is over")
    """

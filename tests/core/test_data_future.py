"""`DataFuture`: the future of one file that an app makes."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from flowcore import File, bash_app, python_app
from flowcore.app.futures import DataFuture
from flowcore.dataflow.errors import DependencyError

pytestmark = pytest.mark.usefixtures("kernel")


@python_app
def write(text: str, outputs: Any = ()) -> None:
    for output in outputs:
        Path(output).write_text(text)


@python_app
def read(path: Any) -> str:
    return Path(path).read_text()


@python_app
def hold(event: threading.Event, outputs: Any = ()) -> None:
    event.wait(90)
    for output in outputs:
        Path(output).write_text("held")


def test_its_result_is_the_file() -> None:
    output = write("x", outputs=[File("a")]).outputs[0]
    assert isinstance(output, DataFuture)
    assert output.result() == File("a")
    assert output.result().filepath == "a"


def test_it_knows_the_file_before_it_is_there() -> None:
    event = threading.Event()
    future = hold(event, outputs=[File("folder/../a")])
    output = future.outputs[0]
    assert not output.done()
    assert (output.filepath, output.filename, output.tid) == ("folder/../a", "a", future.tid)
    assert output.file_obj == File("folder/../a")
    assert "not done" in repr(output)
    event.set()
    output.exception()
    assert repr(output).endswith(" done>")


def test_it_is_done_when_its_task_is() -> None:
    event = threading.Event()
    output = hold(event, outputs=["a"]).outputs[0]
    later = read(output)
    assert not later.done()
    event.set()
    assert later.result() == "held"


def test_it_can_be_awaited() -> None:
    async def main() -> File:
        return await write("x", outputs=["a"]).outputs[0]

    assert asyncio.run(main()) == File("a")


def test_it_fails_with_its_task() -> None:
    @python_app
    def fail(outputs: Any = ()) -> None:
        raise KeyError("x")

    future = fail(outputs=["a", "b"])
    error = future.exception()
    assert [output.exception() for output in future.outputs] == [error, error]
    later = read(future.outputs[0]).exception()
    assert isinstance(later, DependencyError)
    assert later.__cause__ is error


def test_it_is_cancelled_with_its_task() -> None:
    event = threading.Event()
    waiting = write(hold(event), outputs=["a"])
    assert waiting.outputs[0].cancel()
    assert waiting.cancelled()
    assert waiting.outputs[0].cancelled()
    event.set()


def test_an_app_gets_a_file_in_its_place_wherever_it_is() -> None:
    @python_app
    def kinds(plain: Any, named: Any, inputs: Any) -> list[str]:
        return [type(each).__name__ for each in (plain, named, *inputs)]

    output = write("x", outputs=["a"]).outputs[0]
    assert kinds(output, named=output, inputs=[output]).result() == ["File"] * 3


def test_there_are_none_without_outputs() -> None:
    future = read(__file__)
    assert future.outputs == []
    assert future.outputs is future.outputs


def test_streams_that_are_files_have_futures() -> None:
    @bash_app
    def tell(stdout: Any = None, stderr: Any = None) -> str:
        return "echo out; echo err >&2"

    future = tell(stdout=File("o"), stderr="e")
    assert isinstance(future.stdout, DataFuture)
    assert Path(future.stdout.result()).read_text() == "out\n"
    assert future.stderr == "e"
    assert read(future.stdout).result() == "out\n"

"""Staging: which method moves a file, what the task gets, what the submitting side keeps."""

from __future__ import annotations

import functools
import shutil
from concurrent.futures import Future
from pathlib import Path

import pytest

from flowcore.data_provider.data_manager import DataManager
from flowcore.data_provider.file_noop import NoOpFileStaging
from flowcore.data_provider.files import File
from flowcore.data_provider.staging import Staging
from flowcore.executors.base import Executor
from flowcore.futures import TaskFuture


class Here(Executor):
    """Runs a task in `submit`."""

    label = "here"

    def __init__(self, working_dir=None, storage_access=None):
        self.working_dir, self.storage_access = working_dir, storage_access

    def start(self, run): ...

    def submit(self, func, resource_specification, /, *args, **kwargs):
        future = TaskFuture()
        try:
            future.set_result(func(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future

    def shutdown(self): ...

    def outstanding(self):
        return 0


class Launcher:
    """Stands for the kernel: runs staging tasks on demand, once what they wait for is done."""

    def __init__(self):
        self.waiting = []

    def __call__(self, executor, func, args, kwargs, /):
        future = TaskFuture()
        self.waiting.append((executor, future, func, args, kwargs))
        return future

    def run(self):
        while self.waiting:
            _, future, func, args, kwargs = self.waiting.pop(0)
            try:
                args = [arg.result(0) if isinstance(arg, Future) else arg for arg in args]
                future.set_result(func(*args, **kwargs))
            except Exception as error:
                future.set_exception(error)


class FileFuture(TaskFuture):
    """As the future of a file that a task makes."""

    __slots__ = ("file_obj",)

    def __init__(self, file_obj):
        super().__init__()
        self.file_obj = file_obj


class Liar(TaskFuture):
    """As the future of an app: whatever is asked of it, it answers, and remembers that it was asked."""

    asked = ()

    def __getattr__(self, name):
        self.asked += (name,)
        return File("/etc/passwd")


def fetch(source, target, _after=None):
    shutil.copyfile(source, target)


class ShelfBySeparateTask(Staging):
    """`shelf:/name` is a file of that name in a folder; a task of its own copies it."""

    def __init__(self, shelf):
        self.shelf = shelf

    def can_stage_in(self, file):
        return file.scheme == "shelf"

    def can_stage_out(self, file):
        return file.scheme == "shelf"

    def stage_in(self, dm, executor, file, parent_fut):
        file.local_path = str(Path(dm.executors[executor].working_dir, file.filename))
        return dm.submit(executor, fetch, self.shelf / file.filename, file.local_path, parent_fut)

    def stage_out(self, dm, executor, file, app_fu):
        file.local_path = str(Path(dm.executors[executor].working_dir, file.filename))
        return dm.submit(executor, fetch, file.local_path, self.shelf / file.filename, app_fu)


class ShelfInTask(ShelfBySeparateTask):
    """The same, within the user's task."""

    def stage_in(self, dm, executor, file, parent_fut):
        file.local_path = str(Path(dm.executors[executor].working_dir, file.filename))

    stage_out = stage_in

    def replace_task(self, dm, executor, file, func):
        return functools.partial(fetched_first, func, self.shelf / file.filename, file.local_path)

    def replace_task_stage_out(self, dm, executor, file, func):
        return functools.partial(put_afterwards, func, file.local_path, self.shelf / file.filename)


def fetched_first(func, source, target, *args, **kwargs):
    fetch(source, target)
    return func(*args, **kwargs)


def put_afterwards(func, source, target, *args, **kwargs):
    result = func(*args, **kwargs)
    fetch(source, target)
    return result


def read(*files, inputs=(), also=None):
    return [Path(file).read_text() for file in (*files, *inputs, *([also] if also else []))]


def write(text, outputs=()):
    Path(outputs[0]).write_text(text)


@pytest.fixture
def launcher():
    return Launcher()


@pytest.fixture
def manager(launcher):
    return DataManager(launcher)


@pytest.fixture
def shelf(tmp_path):
    folder = tmp_path / "shelf"
    folder.mkdir()
    (folder / "a").write_text("A")
    return folder


@pytest.fixture
def work(tmp_path):
    folder = tmp_path / "work"
    folder.mkdir()
    return str(folder)


def test_a_local_file_is_left_where_it_is(manager, launcher):
    file = File("/some/file")
    staged, func = manager.stage_in(Here(), file, read)
    assert (staged, func, launcher.waiting) == (file, read, [])
    assert staged is not file


def test_calls_without_files_come_back_as_they_went(manager):
    args, kwargs = (1, "two", [3]), {"inputs": [4], "key": None}
    func, same_args, same_kwargs = manager.stage_arguments(Here(), read, args, kwargs)
    assert func is read
    assert same_args is args
    assert same_kwargs == kwargs
    kwargs = {"a": 1}
    assert manager.stage_arguments(Here(), read, (), kwargs)[2] is kwargs


def test_futures_of_other_things_are_left_alone_and_asked_nothing(manager):
    liar = Liar()
    assert manager.stage_arguments(Here(), read, (liar,), {"a": liar}) == (read, (liar,), {"a": liar})
    assert liar.asked == ()


def test_a_separate_task_brings_the_file_and_the_argument_waits_for_it(manager, launcher, shelf, work):
    file = File("shelf:/a")
    staged, func = manager.stage_in(Here(work, [ShelfBySeparateTask(shelf)]), file, read)
    assert func is read
    assert not staged.done()
    assert launcher.waiting[0][0] == "here"
    launcher.run()
    assert func(staged.result(0)) == ["A"]
    assert file.local_path is None


def test_a_wrapped_function_brings_the_file_itself(manager, launcher, shelf, work):
    file = File("shelf:/a")
    staged, func = manager.stage_in(Here(work, [ShelfInTask(shelf)]), file, read)
    assert launcher.waiting == []
    assert func(staged) == ["A"]
    assert file.local_path is None


@pytest.mark.parametrize("method", [ShelfBySeparateTask, ShelfInTask])
def test_files_are_found_among_positional_and_keyword_arguments_and_inputs(manager, launcher, shelf, work, method):
    for name in "bcd":
        (shelf / name).write_text(name.upper())
    args, kwargs = (File("shelf:/a"),), {"inputs": (File("shelf:/b"), File("shelf:/c")), "also": File("shelf:/d")}
    func, args, kwargs = manager.stage_arguments(Here(work, [method(shelf)]), read, args, kwargs)
    launcher.run()
    (first,) = (resolved(value) for value in args)
    inputs = [resolved(value) for value in kwargs["inputs"]]
    assert func(first, inputs=inputs, also=resolved(kwargs["also"])) == ["A", "B", "C", "D"]


def resolved(value):
    return value.result(0) if isinstance(value, Future) else value


def test_files_that_are_written_are_not_staged_in(manager):
    kwargs = {"outputs": [File("gopher://h/a")], "stdout": File("gopher://h/b"), "stderr": File("gopher://h/c")}
    assert manager.stage_arguments(Here(), read, (), kwargs) == (read, (), kwargs)


@pytest.mark.parametrize("method", [ShelfBySeparateTask, ShelfInTask])
def test_a_file_goes_out_after_the_task_has_made_it(manager, launcher, shelf, work, method):
    file, app_fu = File("shelf:/new"), TaskFuture()
    copy, func, future = manager.stage_out(Here(work, [method(shelf)]), file, write, app_fu)
    app_fu.set_result(func("text", outputs=[copy]))
    launcher.run()
    assert (shelf / "new").read_text() == "text"
    assert future is None or future.exception(0) is None
    assert file.local_path is None


def test_a_local_file_that_a_task_makes_needs_no_waiting_for(manager):
    file = File("/some/file")
    assert manager.stage_out(Here(), file, write, TaskFuture()) == (file, write, None)


def test_a_file_of_another_task_is_staged_after_that_task(manager, launcher, shelf, work):
    parent = FileFuture(File("shelf:/late"))
    staged, _ = manager.stage_in(Here(work, [ShelfBySeparateTask(shelf)]), parent, read)
    (shelf / "late").write_text("L")
    parent.set_result(parent.file_obj)
    launcher.run()
    assert read(staged.result(0)) == ["L"]
    assert parent.file_obj.local_path is None


def test_a_file_of_another_task_that_a_wrapped_function_brings_is_waited_for(manager, shelf, work):
    parent = FileFuture(File("shelf:/late"))
    staged, func = manager.stage_in(Here(work, [ShelfInTask(shelf)]), parent, read)
    assert not staged.done()
    (shelf / "late").write_text("L")
    parent.set_result(parent.file_obj)
    assert func(staged.result(0)) == ["L"]


def test_a_local_file_of_another_task_stays_that_tasks_future(manager):
    parent = FileFuture(File("/made/there"))
    assert manager.optionally_stage_in(Here(), parent, read) == (parent, read)


def test_a_failed_staging_task_fails_the_argument(manager, launcher, shelf, work):
    staged, _ = manager.stage_in(Here(work, [ShelfBySeparateTask(shelf)]), File("shelf:/missing"), read)
    launcher.run()
    assert isinstance(staged.exception(0), FileNotFoundError)


def test_a_cancelled_staging_task_cancels_the_argument(manager, launcher, shelf, work):
    staged, _ = manager.stage_in(Here(work, [ShelfBySeparateTask(shelf)]), File("shelf:/a"), read)
    launcher.waiting[0][1].cancel()
    assert staged.cancelled()


def test_an_argument_cancelled_before_its_staging_ends_stays_cancelled(manager, launcher, shelf, work, caplog):
    staged, _ = manager.stage_in(Here(work, [ShelfBySeparateTask(shelf)]), File("shelf:/a"), read)
    assert staged.cancel()
    launcher.run()
    assert staged.cancelled()
    assert not caplog.records


def test_the_first_method_that_can_is_taken(manager, launcher, shelf, work):
    methods = [NoOpFileStaging(), ShelfInTask(shelf), ShelfBySeparateTask(shelf)]
    manager.stage_in(Here(work, methods), File("shelf:/a"), read)
    assert launcher.waiting == []


@pytest.mark.parametrize("methods", [None, [], [NoOpFileStaging()], [Staging()]])
def test_a_file_that_no_method_can_stage_is_refused_at_once(manager, methods):
    with pytest.raises(ValueError, match="Executor here cannot stage file <File 'gopher://h/a'> in"):
        manager.stage_in(Here(storage_access=methods), File("gopher://h/a"), read)
    with pytest.raises(ValueError, match="Executor here cannot stage file <File 'gopher://h/a'> out"):
        manager.stage_out(Here(storage_access=methods), File("gopher://h/a"), read, TaskFuture())


def test_an_empty_list_of_methods_stages_not_even_local_files(manager):
    with pytest.raises(ValueError, match="its storage_access has: none"):
        manager.stage_in(Here(storage_access=[]), File("/a"), read)


def test_what_is_no_file_cannot_be_staged_in(manager):
    with pytest.raises(TypeError, match="no file"):
        manager.stage_in(Here(), TaskFuture(), read)

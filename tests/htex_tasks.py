"""What the tests of htex run as tasks, well behaved and not; workers import it, so it imports little."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time


def nap(seconds, value=None):
    """Return the value after a while."""
    time.sleep(seconds)
    return value


def where(seconds):
    """Take some time, and return the name of the host."""
    time.sleep(seconds)
    return socket.gethostname()


def mark(path, number, seconds=0.0):
    """Leave a line in a file as the trace of having run, and return the number."""
    _append(path, number)
    time.sleep(seconds)
    return number


def mark_and_die(path, number):
    """Leave a line in a file and kill the worker."""
    _append(path, number)
    os.kill(os.getpid(), signal.SIGKILL)


def _append(path, number):
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        os.write(descriptor, f"{number}\n".encode())
    finally:
        os.close(descriptor)


def _last_words():
    sys.stderr.write("these are my last words\n")
    sys.stderr.flush()


def segfault():
    """Read from address 0."""
    import ctypes

    _last_words()
    ctypes.string_at(0)


def leave(code):
    """End the worker without a word to Python."""
    _last_words()
    os._exit(code)


def send_self(number):
    """Send a signal to the worker."""
    _last_words()
    os.kill(os.getpid(), number)
    time.sleep(30)


def exit_with(code):
    """Raise SystemExit."""
    _last_words()
    sys.exit(code)


def exhaust(limit):
    """Use more memory than the process may have."""
    import resource

    with open("/proc/self/statm", encoding="ascii") as stream:
        used = int(stream.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + limit, used + limit))
    hoard = []
    while True:
        hoard.append(bytearray(1 << 20))


def echo(value):
    """Return the argument."""
    return value


def zeros(size):
    """Return so many bytes."""
    return bytes(size)


def ends_of(values):
    """Return the first and the last of some numbers."""
    return int(values[0]), int(values[-1])


def size_of(value):
    """Return the length of the argument."""
    return len(value)


def environment():
    """Return the environment of the worker."""
    return dict(os.environ)


def worker():
    """Return the process ids of worker and zygote."""
    return os.getpid(), os.getppid()


def daemonize(seconds):
    """Leave processes behind that belong to no group and to no parent, and return how many."""
    import subprocess

    subprocess.run(["setsid", "--fork", "sleep", str(seconds)], check=True)
    subprocess.Popen(["sleep", str(seconds)], start_new_session=True)  # nobody waits for it
    child = os.fork()
    if child == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        os.execvp("sleep", ["sleep", str(seconds)])
    os.waitpid(child, 0)
    return 3


def fork_child(number):
    """Fork a child that returns from here as its parent does."""
    child = os.fork()
    if child == 0:
        return -number
    os.waitpid(child, 0)
    return number


def fork_child_that_exits(number):
    """Fork a child that leaves with SystemExit."""
    child = os.fork()
    if child == 0:
        sys.exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) or number


def use_pool(numbers):
    """Use the multiprocessing package."""
    import multiprocessing

    with multiprocessing.get_context("fork").Pool(2) as pool:
        return pool.map(abs, numbers)


def use_process(number):
    """Start a process of the multiprocessing package and wait for it."""
    import multiprocessing

    process = multiprocessing.get_context("fork").Process(target=abs, args=(number,))
    process.start()
    process.join()
    return process.exitcode or number


def use_subprocess(text):
    """Run a command."""
    import subprocess

    return subprocess.run(["echo", text], capture_output=True, text=True, check=True).stdout.strip()

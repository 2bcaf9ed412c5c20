"""A fake aprun or jsrun: checks its options, starts the copies here, passes SIGTERM on, ends with the worst exit code.

Run as `starter.py LOG NAME WORDS...`; LOG gets the options, one call a line.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

PER_NODE = {"aprun": "-N", "jsrun": "-r"}
AWAITED = {signal.SIGTERM, signal.SIGCHLD}


def main() -> int:
    log, name, words = sys.argv[1], sys.argv[2], sys.argv[3:]
    start = next(place for place, word in enumerate(words) if word.startswith("/"))
    options, command = words[:start], words[start:]
    with Path(log).open("a") as stream:
        stream.write(json.dumps(options) + "\n")
    given = dict(zip(options[:4:2], options[1:4:2], strict=True))
    if list(given) != ["-n", PER_NODE[name]] or int(given["-n"]) % int(given[PER_NODE[name]]):
        print(f"{name}: wrong options {options}", file=sys.stderr)
        return 99
    signal.pthread_sigmask(signal.SIG_BLOCK, AWAITED)
    copies = [subprocess.Popen(command, start_new_session=True, preexec_fn=_unblock) for _ in range(int(given["-n"]))]
    while None in [copy.poll() for copy in copies]:
        if signal.sigwait(AWAITED) == signal.SIGTERM:
            for copy in copies:
                if copy.returncode is None:
                    os.killpg(copy.pid, signal.SIGTERM)
    return max(code if (code := copy.wait()) >= 0 else 128 - code for copy in copies)


def _unblock() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, AWAITED)


if __name__ == "__main__":
    sys.exit(main())

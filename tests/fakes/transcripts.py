"""What real commands once answered: recorded sessions, to be said again by fake commands."""

from __future__ import annotations

import re
from pathlib import Path

from fakes.schedulers import FakeScheduler

FOLDER = Path(__file__).parent.parent / "core" / "transcripts"


class Transcript:
    """A recorded session: command lines, each with its output and its exit code."""

    def __init__(self, name: str) -> None:
        text = (FOLDER / f"{name}.txt").read_text()
        found = re.findall(r"^\$ (.+)\n((?:.*\n)*?)\[exit (\d+)\]$", text, re.MULTILINE)
        self.answers = {line: (int(code), output) for line, output, code in found}

    def replay(self, line: str, scheduler: FakeScheduler) -> None:
        """Let the fake command answer anything with what was recorded for this command line."""
        command = line.split(maxsplit=1)[0]
        code, output = self.answers[line]
        if code:
            scheduler.say(command, code, err=output)
        else:
            scheduler.say(command, code, out=output)

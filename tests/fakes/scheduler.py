"""Fake commands of PBS, Torque, LSF and HTCondor: jobs are processes of this machine, answers are as in the manuals.

Run as `scheduler.py STATE FAMILY COMMAND WORDS...`. STATE/says/COMMAND, where it exists, is what the command says
instead: its exit code in the first line, then its standard output, then a line `--` and its standard error.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path


class Job:
    """A job's folder: its number is the folder's name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.number = folder.name

    @property
    def code(self) -> int | None:
        try:
            return int((self.folder / "code").read_text())
        except OSError:
            return None

    @property
    def waiting(self) -> bool:
        return not (self.folder / "session").exists()

    @property
    def deleted(self) -> bool:
        return (self.folder / "deleted").exists()

    @property
    def ended(self) -> bool:
        return self.code is not None or (self.waiting and self.deleted)

    def start(self, script: str, out: str, err: str) -> None:
        """Start the job; it can be deleted when this returns. Another process waits for its end."""
        begun, begins = os.pipe()
        if os.fork() == 0:
            try:
                os.setsid()
                self._run(script, out, err, begins)
            finally:
                os._exit(0)
        os.close(begins)
        os.read(begun, 1)

    def _run(self, script: str, out: str, err: str, begins: int) -> None:
        nothing = os.open(os.devnull, os.O_RDWR)
        for number in range(3):
            os.dup2(nothing, number)
        with open(out, "wb") as output, open(err, "wb") as errors:
            process = subprocess.Popen(["/bin/bash", script], stdout=output, stderr=errors, start_new_session=True)
        (self.folder / "session").write_text(str(process.pid))
        os.close(begins)
        code = process.wait()
        (self.folder / "code.new").write_text(str(code if code >= 0 else 128 - code))
        (self.folder / "code.new").rename(self.folder / "code")

    def delete(self) -> None:
        (self.folder / "deleted").touch()
        if not self.waiting:
            session = (self.folder / "session").read_text()
            subprocess.run(["pkill", "-TERM", "-s", session], check=False)


class Scheduler:
    """What the families share."""

    def __init__(self, state: Path) -> None:
        self.jobs = state / "jobs"

    def new(self) -> Job:
        number = len(list(self.jobs.iterdir())) + 1
        (self.jobs / str(number)).mkdir()
        return Job(self.jobs / str(number))

    def find(self, name: str) -> Job | None:
        folder = self.jobs / name.partition(".")[0]
        return Job(folder) if folder.is_dir() else None

    def submit(self, path: str, text: str, directive: str) -> Job:
        options = dict(re.findall(rf"^{directive} (-\w) (\S+)", text, re.MULTILINE))
        job = self.new()
        if options.get("-q") != "off":
            job.start(path, options["-o"], options["-e"])
        return job


def refuse(message: str, code: int) -> int:
    print(message, file=sys.stderr)
    return code


class PBS(Scheduler):
    finished = "F"
    unknown = "Unknown Job Id {name}"
    too_late = ("Job has finished {name}", 35)

    def qsub(self, words: Sequence[str]) -> int:
        text = Path(words[0]).read_text()
        if "#PBS -q nowhere" in text:
            return refuse("qsub: Unknown queue", 170)
        print(f"{self.submit(words[0], text, '#PBS').number}.fake")
        return 0

    def qstat(self, words: Sequence[str]) -> int:
        names = [word for word in words if word[0].isdigit()]
        found = [job for name in names if (job := self.find(name))]
        if "json" in words:
            listed = {f"{job.number}.fake": self.attributes(job) for job in found}
            print(json.dumps({"pbs_version": "23.06.06", "Jobs": listed}, indent=4))
        else:
            for job in found:
                lines = [f"    {name} = {value}" for name, value in self.attributes(job).items()]
                print("\n".join([f"Job Id: {job.number}.fake", *lines, ""]))
        return max(
            [refuse(f"qstat: {self.unknown.format(name=name)}", 153) for name in names if not self.find(name)],
            default=0,
        )

    def qdel(self, words: Sequence[str]) -> int:
        code = 0
        for name in words:
            job = self.find(name)
            if job is None:
                code = refuse(f"qdel: {self.unknown.format(name=name)}", 153)
            elif job.ended:
                code = refuse(f"qdel: {self.too_late[0].format(name=name)}", self.too_late[1])
            else:
                job.delete()
        return code

    def attributes(self, job: Job) -> dict[str, object]:
        if not job.ended:
            return {"Job_Name": "x", "job_state": "Q" if job.waiting else "R", "substate": 10 if job.waiting else 42}
        ended: dict[str, object] = {"Job_Name": "x", "job_state": self.finished, "substate": 91 if job.deleted else 92}
        return ended if job.code is None else {**ended, "Exit_status": job.code}


class Torque(PBS):
    finished = "C"
    unknown = "Unknown Job Id Error {name}"
    too_late = ("Request invalid for state of job MSG=invalid state for job - COMPLETE {name}", 170)

    def attributes(self, job: Job) -> dict[str, object]:
        told = super().attributes(job)
        told.pop("substate")
        code = told.pop("Exit_status", None)
        return told if code is None else {**told, "exit_status": 271 if job.deleted else code}


class LSF(Scheduler):
    def bsub(self, words: Sequence[str]) -> int:
        path = words[0] if words else str(self.jobs.parent / f"stdin.{os.getpid()}")
        if not words:
            Path(path).write_text(sys.stdin.read())
        text = Path(path).read_text()
        if "#BSUB -q nowhere" in text:
            return refuse("nowhere: No such queue. Job not submitted.", 255)
        print(f"Job <{self.submit(path, text, '#BSUB').number}> is submitted to default queue <normal>.")
        return 0

    def bjobs(self, words: Sequence[str]) -> int:
        for name in (word for word in words if word.isdigit()):
            job = self.find(name)
            if job is None:
                refuse(f"Job <{name}> is not found", 255)
            elif "-l" in words:
                print(
                    f"Job <{name}>, Status <EXIT>"
                    + ("\n  Completed <exit>; TERM_OWNER: job killed by owner." if job.deleted else "")
                )
            else:
                print(name, self.state(job), job.code or "-")
        return 255 if any(self.find(word) is None for word in words if word.isdigit()) else 0

    def bkill(self, words: Sequence[str]) -> int:
        code = 0
        for name in words:
            job = self.find(name)
            if job is None:
                code = refuse(f"Job <{name}>: No matching job found", 255)
            elif job.ended:
                code = refuse(f"Job <{name}>: Job has already finished", 255)
            else:
                job.delete()
                print(f"Job <{name}> is being terminated")
        return code

    def state(self, job: Job) -> str:
        if job.ended:
            return "EXIT" if job.code or job.deleted else "DONE"
        return "PEND" if job.waiting else "RUN"


class Condor(Scheduler):
    def condor_submit(self, words: Sequence[str]) -> int:
        lines = Path(words[0]).read_text().splitlines()
        told = {name.strip(): value.strip() for name, _, value in (line.partition("=") for line in lines)}
        if "nowhere" in told.get("requirements", ""):
            return refuse("ERROR: Parse error in expression: \n\trequirements = nowhere", 1)
        job = self.new()
        if "off" not in told.get("requirements", ""):
            paths = (told[name].replace("$(DOLLAR)", "$") for name in ("executable", "output", "error"))
            job.start(*paths)
        print(f"Submitting job(s).\n1 job(s) submitted to cluster {job.number}.")
        return 0

    def condor_q(self, words: Sequence[str]) -> int:
        for name in (word for word in words if word.isdigit()):
            job = self.find(name)
            if job is not None and not (job.deleted and job.ended):
                print(self.row(job))
        return 0

    def condor_history(self, words: Sequence[str]) -> int:
        job = self.find(words[0])
        if job is not None and job.ended:
            print(self.row(job))
        return 0

    def condor_rm(self, words: Sequence[str]) -> int:
        code = 0
        for name in words:
            job = self.find(name)
            if job is None:
                code = refuse(f"Couldn't find/remove all jobs in cluster {name}.", 1)
            else:
                job.delete()
                print(f"All jobs in cluster {name} have been marked for removal")
        return code

    def row(self, job: Job) -> str:
        if job.ended and job.deleted:
            return f'{job.number}.0 3 undefined undefined undefined undefined "via condor_rm (by user root)"'
        if job.ended:
            return f"{job.number}.0 4 {job.code} undefined undefined undefined undefined"
        return f"{job.number}.0 {1 if job.waiting else 2} undefined undefined undefined undefined undefined"


FAMILIES: dict[str, Callable[[Path], Scheduler]] = {"pbspro": PBS, "torque": Torque, "lsf": LSF, "condor": Condor}


def main() -> int:
    state, family, command, words = Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:]
    with (state / "calls").open("a") as calls:
        calls.write(shlex.join([command, *words]) + "\n")
    script = state / "says" / command
    if script.exists():
        code, _, rest = script.read_text().partition("\n")
        if code == "silence":
            signal.pause()
        out, _, err = rest.partition("--\n")
        sys.stdout.write(out)
        sys.stderr.write(err)
        return int(code)
    result: int = getattr(FAMILIES[family](state), command)(words)
    return result


if __name__ == "__main__":
    sys.exit(main())

"""Runs as jobs of a batch system: SLURM, or submitit's stand-in on this machine.

A job is a process of submitit that starts the command of a run and waits for it. What it knows of
the run is its command; what the grid knows of the job lies in a folder that both can see. So the
process that submitted may end, or be killed, and another one finds the jobs again.
"""

from __future__ import annotations

import getpass
import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from threefactor.errors import CheckpointError, ConfigurationError, unknown_name
from threefactor.readable import clipped, readable
from threefactor.reproduce.grid import STOPPED, Child, last_words
from threefactor.training.folder.files import read_json, write_atomically

__all__ = ["SYSTEMS", "Batch", "Submitted", "minutes_of"]

SYSTEMS = ("local", "slurm")
COMMANDS = ("sbatch", "squeue", "srun", "scontrol")
"""What is needed of SLURM: to submit, to look, and within a job to begin and to queue it again."""
OWN = {
    "partition": "give --partition",
    "time": "give --time",
    "cpus-per-task": "give --cpus",
    "mem": "give --memory",
    **dict.fromkeys(("gpus", "gpus-per-node"), "give --gpus"),
    **dict.fromkeys(
        ("array", "nodes", "ntasks", "ntasks-per-node", "output", "error", "signal", "open-mode"),
        "a job is one run, which submitit starts and watches: leave it out",
    ),
}
"""Options of sbatch that are not the user's to give."""
WARNING = 120
"""Seconds before the time limit at which a run is asked to write its checkpoint; a quarter of
shorter limits."""
MOST_TIMES = 1000
"""How many time limits a run may use up."""
MOST_IDLE = 3
"""How many of them, one after the other, without a checkpoint."""
LOOK = 20.0
"""Seconds between two looks at SLURM's queue."""
UNSEEN = 60.0
"""Seconds after which a file that another machine wrote is seen here: network file systems keep
listings for so long."""
INTERRUPTED = "stopped in epoch"
"""What a training says when it has written a checkpoint and ends."""
RECORD, ENDED = "job.json", "ended"
"""Files of a job: which one it is, and the exit code of its command."""
GONE = -1
"""In the place of the exit code of a job that left the queue without one."""


def minutes_of(text: str) -> float:
    """Read a time limit as SLURM writes it, in minutes.

    M, M:S, H:M:S, D-H, D-H:M or D-H:M:S.

    Raises:
        ConfigurationError: if it is none, or 0.

    >>> minutes_of("90"), minutes_of("1:30:00"), minutes_of("2-12")
    (90.0, 90.0, 3600.0)
    """
    found = re.fullmatch(r"(?:(\d{1,4})-)?(\d{1,6})(?::(\d{1,2}))?(?::(\d{1,2}))?", text)
    minutes = 0.0
    if found is not None:
        days, first, second, third = (float(one or 0) for one in found.groups())
        if found[1] or found[4]:
            minutes = days * 1440 + first * 60 + second + third / 60
        else:
            minutes = first + second / 60
    if not minutes:
        raise ConfigurationError(
            f"the time is {clipped(text)}; give it as SLURM writes it: MINUTES, "
            "HOURS:MINUTES:SECONDS or DAYS-HOURS, such as 90, 12:00:00 or 2-12"
        )
    return minutes


@dataclass
class Batch:
    """Starts each run as a job, which goes on when this process ends.

    Before its time limit, or when it is to make room for another one, a job lets its run write a
    checkpoint, and goes back into the queue; then it resumes the run. Jobs on this machine stop
    with this process, as other processes do.

    Args:
        folder: for the files of the jobs; on a cluster, all machines must see it.
        system: "slurm" or "local".
        time: limit of a job, as of `minutes_of`.
        partition: of SLURM.
        gpus, cpus: of each job.
        memory: of each job, as SLURM writes it, such as 16G.
        options: more options of sbatch by name, such as {"account": "lab"}; True for those
            without a value.

    Raises:
        ConfigurationError: if submitit or a command of SLURM is not installed, or an option has no
            meaning.
    """

    folder: Path
    system: str
    time: str = "4:00:00"
    partition: str | None = None
    gpus: int = 0
    cpus: int = 1
    memory: str | None = None
    options: Mapping[str, str | bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.system not in SYSTEMS:
            raise unknown_name("executor", self.system, SYSTEMS)
        self.minutes = minutes_of(self.time)
        if self.gpus not in (0, 1):
            raise ConfigurationError(
                f"gpus is {self.gpus}; a run of a grid computes on one: give 0 or 1. To train on "
                "several, see docs/clusters.md"
            )
        if self.cpus < 1:
            raise ConfigurationError(f"cpus is {self.cpus}; give a whole number of at least 1")
        for key in self.options:
            if key in OWN:
                raise ConfigurationError(f"--sbatch {clipped(key)} is not to be given: {OWN[key]}")
        if self.system == "local" and (self.partition or self.memory or self.options):
            raise ConfigurationError(
                "partition, memory and options of sbatch are those of SLURM, and the executor is "
                "local: leave them out"
            )
        _submitit()
        if self.system == "slurm":
            missing = [name for name in COMMANDS if shutil.which(name) is None]
            if missing:
                raise ConfigurationError(
                    f"{', '.join(missing)} cannot be found, so this is no machine of a SLURM "
                    "cluster: log in where sbatch is, or give --executor local, or none"
                )
        self._queue: set[str] = set()
        self._looked = -math.inf

    @property
    def poll(self) -> float:
        """Seconds between two looks at all runs, whose folders may be on another machine."""
        return LOOK / 4 if self.system == "slurm" else 0.2

    def start(self, words: Sequence[str], log: Path) -> Submitted:
        """Submit a command of `threefactor`.

        Raises:
            ConfigurationError: if sbatch refuses the job, with its words.
        """
        place = self._place(log)
        try:
            place.mkdir(parents=True, exist_ok=True)
            for name in (RECORD, ENDED):
                (place / name).unlink(missing_ok=True)
            before = set(place.iterdir())
            log.parent.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise CheckpointError(f"cannot write to {place}: {problem.strerror}") from problem
        executor = self._executor(place, log.stem)
        try:
            job = executor.submit(_Command(list(words), log.absolute(), place.absolute() / ENDED))
        except Exception as problem:  # of sbatch, of the disk, of submitit
            for path in set(place.iterdir()) - before:
                path.unlink()
            with suppress(OSError):
                place.rmdir()
            said = "; ".join(filter(None, map(str.strip, str(problem).splitlines())))
            raise ConfigurationError(
                f"{'sbatch' if self.system == 'slurm' else 'submitit'} did not take a job: "
                f"{readable(said) or type(problem).__name__}. Change --partition, --time, --gpus, "
                "--cpus, --memory or --sbatch, or lower --jobs, and give the command again"
            ) from problem
        record = {"system": self.system, "id": job.job_id, "host": socket.gethostname()}
        write_atomically(place / RECORD, (json.dumps(record) + "\n").encode())
        return Submitted(self, job.job_id, place, log, job)

    def running(self, log: Path) -> Submitted | None:
        """Return the job that was submitted with this log before, if it has not ended.

        Raises:
            ConfigurationError: if SLURM does not say.
        """
        place = self._place(log)
        try:
            record: Any = read_json(place / RECORD)
            system, number, host = (str(record[key]) for key in ("system", "id", "host"))
        except (OSError, CheckpointError, LookupError, TypeError):
            return None
        if system != self.system or (system == "local" and host != socket.gethostname()):
            return None  # the lock of its run folder keeps others out
        if self.system == "slurm":
            self._look()
            if self._looked == -math.inf:
                raise ConfigurationError(
                    "squeue does not answer, so nobody knows which jobs there are already: give "
                    "the command again when it does"
                )
        if (place / ENDED).exists() or not self.is_there(number, since=0.0):
            return None
        return Submitted(self, number, place, log)

    def left(self, jobs: Sequence[Any]) -> str | None:
        """Say which jobs go on without this process."""
        going_on = [job.id for job in jobs if job.code is None]
        if not going_on:
            return None
        return (
            f"{len(going_on)} jobs go on without this command ({', '.join(going_on)}). The same "
            f"command watches them again; to stop them: scancel {' '.join(going_on)}"
        )

    def is_there(self, number: str, since: float) -> bool:
        """Whether a job is queued or running, or was submitted after the last look."""
        if self.system == "local":
            return _is_controller(int(number))
        if time.monotonic() - self._looked >= LOOK:
            self._look()
        return self._looked < since or number in self._queue

    def _look(self) -> None:
        """Look at SLURM's queue; what is known stays if it does not answer."""
        words = ["squeue", "--noheader", "--format=%i", f"--user={getpass.getuser()}"]
        now = time.monotonic()
        with suppress(OSError, subprocess.SubprocessError):
            found = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
            self._queue, self._looked = set(found.stdout.split()), now

    def _place(self, log: Path) -> Path:
        return self.folder / log.parent.name / log.stem

    def _executor(self, place: Path, name: str) -> Any:
        submitit = _submitit()
        warning = int(min(WARNING, 15 * self.minutes))
        if self.system == "local":
            executor = submitit.LocalExecutor(place, max_num_timeout=MOST_TIMES)
            executor.update_parameters(
                timeout_min=self.minutes, signal_delay_s=warning, gpus_per_node=self.gpus
            )
            return executor
        executor = submitit.SlurmExecutor(place, max_num_timeout=MOST_TIMES)
        executor.update_parameters(
            job_name=name,
            partition=self.partition,
            time=math.ceil(self.minutes),
            nodes=1,
            ntasks_per_node=1,
            cpus_per_task=self.cpus,
            # Since SLURM 22.05 a step does not inherit it from its job.
            srun_args=[f"--cpus-per-task={self.cpus}"],
            gpus_per_node=self.gpus or None,
            mem=self.memory,
            signal_delay_s=warning,
            wckey=None,
            additional_parameters={"requeue": True, **self.options},
        )
        return executor


class Submitted:
    """A command in a job, as `Child` is one in a process.

    Args:
        batch: what submitted it.
        number: of the job.
        place: folder of the job's files.
        log: file of all that the command prints.
        job: submitit's, if this process submitted it.
    """

    def __init__(self, batch: Batch, number: str, place: Path, log: Path, job: Any = None) -> None:
        self.batch, self.id, self.place, self.log = batch, number, place, log
        self._job, self._submitted = job, time.monotonic()
        self._missed: float | None = None

    @property
    def code(self) -> int | None:
        """The exit code of the command; None while it waits or runs."""
        with suppress(OSError, ValueError):
            return int((self.place / ENDED).read_text())
        if self._job is not None and self.batch.system == "local":
            self._job.done()  # or it stays a zombie
        if self.batch.is_there(self.id, self._submitted if self._job is not None else 0.0):
            self._missed = None
            return None
        self._missed = self._missed or time.monotonic()
        patience = UNSEEN if self.batch.system == "slurm" else 0.0
        return GONE if time.monotonic() - self._missed >= patience else None

    def ask_to_stop(self) -> None:
        """Let a job on this machine stop in its own time; one of SLURM goes on."""
        if self.batch.system == "local" and self.code is None:
            with suppress(ProcessLookupError):
                os.kill(int(self.id), signal.SIGTERM)

    def finish(self) -> None:
        """Wait for a job on this machine."""
        while self.batch.system == "local" and self.code is None:
            time.sleep(self.batch.poll)

    @property
    def failure(self) -> str:
        """How the job ended, in a line, with the last words of the command."""
        code = self.code
        if code in STOPPED:
            return (
                f"job {self.id} used up {MOST_IDLE} time limits without a checkpoint of its "
                f"command: give a longer --time than {self.batch.time} (all of it: {self.log})"
            )
        if code is not None and code != GONE:
            return f"as job {self.id} it {last_words(code, self.log)}"
        return (
            f"job {self.id} ended before its command did{_fate(self.id, self.batch.system)}; the "
            f"same command resumes it (files of the job: {self.place})"
        )


class _Command:
    """What a job does: a command of `threefactor`, which it can stop and begin again.

    The command runs in a process of its own, since it has to see the signals of a stop itself: a
    training writes its checkpoint between two batches. A requeued job is given the same command,
    with --resume-or-start if it trains.

    Args:
        words: arguments of `threefactor`.
        log: file for all that the command prints.
        ended: file for its exit code, once it has ended of its own accord.
        idle: how many time limits have passed since its last checkpoint.
    """

    def __init__(self, words: list[str], log: Path, ended: Path, idle: int = 0) -> None:
        self.words, self.log, self.ended, self.idle = words, log, ended, idle

    def __call__(self) -> None:
        self.ended.unlink(missing_ok=True)
        self._child = Child(self.words, self.log)
        self._code: int | None = None
        # Handlers of signals must not wait for a lock that the code below them may hold.
        threading.Thread(target=self._wait, daemon=True).start()
        signal.signal(signal.SIGTERM, self._leave)
        while self._code is None:
            time.sleep(0.1)
        self._child.finish()
        write_atomically(self.ended, str(self._code).encode())

    def checkpoint(self) -> Any:
        """Stop the command, and return it to be begun again; submitit calls this at SIGUSR2."""
        self._stop()
        idle = 0 if INTERRUPTED in self.log.read_text(errors="replace") else self.idle + 1
        failed = self._code not in (0, *STOPPED)  # at this very moment, and would again
        if failed or idle >= MOST_IDLE:
            write_atomically(self.ended, str(self._code).encode())
            return None
        again = _Command(self.words, self.log, self.ended, idle)
        return _submitit().helpers.DelayedSubmission(again)

    def _leave(self, number: int, frame: FrameType | None) -> None:
        """Leave at SIGTERM, which scancel sends, and SLURM when it takes the machine away.

        In the second case SLURM itself puts the job back into the queue.
        """
        self._stop()
        sys.exit(128 + number)

    def _stop(self) -> None:
        self._child.ask_to_stop()
        while self._code is None:
            time.sleep(0.1)

    def _wait(self) -> None:
        self._code = self._child.wait()


def _fate(number: str, system: str) -> str:
    """Say what became of a job of SLURM, if its accounting tells."""
    words = ["sacct", "--noheader", "--allocations", "--parsable2", "--format=State", f"-j{number}"]
    if system == "slurm":
        with suppress(OSError, subprocess.SubprocessError):
            found = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
            said = found.stdout.split("\n")[0].strip()
            return f" ({readable(said)})" if said else ""
    return ""


def _is_controller(pid: int) -> bool:
    """Whether a process is submitit's for a job on this machine, and not another of this number."""
    try:
        with suppress(FileNotFoundError):
            return b"submitit" in Path(f"/proc/{pid}/cmdline").read_bytes()
        words = ["ps", "-o", "args=", "-p", str(pid)]  # there is no /proc, or no such process
        return "submitit" in subprocess.run(words, capture_output=True, text=True).stdout
    except OSError:
        return False


def _submitit() -> Any:
    try:
        import submitit
    except ImportError as problem:
        raise ConfigurationError(
            "--executor needs submitit; install it with: pip install 'threefactor[cluster]'"
        ) from problem
    return submitit

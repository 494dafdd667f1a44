"""This machine as a node: the same shell programs, through a child process."""

from __future__ import annotations

import os
import signal
import subprocess

from kit.hosts.base import OnOutput
from kit.hosts.shell import Answer, ShellHost


class LocalHost(ShellHost):
    """`Host` on this machine."""

    def __init__(self, name: str = "local", *, run_id: str) -> None:
        super().__init__(name, run_id, _execute)

    def close(self) -> None:
        """There is no connection to give back."""


def _execute(line: str, stdin: bytes, wait_s: float, on_output: OnOutput | None) -> Answer:
    child = subprocess.Popen(["sh", "-c", line], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             start_new_session=True)
    try:
        stdout, stderr = child.communicate(stdin, timeout=wait_s)
        if on_output is not None:      # at the end only: here nothing is far enough away for it to matter
            on_output(stdout.decode(errors="replace"))
        return Answer(stdout, stderr, child.returncode)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        stdout, stderr = child.communicate()
        return Answer(stdout, stderr, None)

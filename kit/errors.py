"""Every error the kit raises, in one tree.

    KitError
    ├── ParseError             tool output that cannot be read; quotes the line
    ├── ParamsError            a site, experiment or parameter that is not valid
    ├── HostError              something went wrong with a node
    │   ├── UnreachableError       no connection, or the connection was lost
    │   ├── HostKeyError           the host key is unknown or has changed
    │   ├── CommandError           a command ended with a failure
    │   ├── DeadlineError          a command or a wait outran its deadline
    │   ├── PortTakenError         a port that a service needs is in use
    │   ├── PartEndedError         a part of a serving stack ended while it was needed
    │   └── ReplayError            the recording holds no answer to this question
    ├── DeviceError            the RDMA device is absent or not the one asked for
    ├── StackError             a serving stack that must not be started as it is, or that does not hand over
    ├── StoreError             a result that cannot be written or read
    └── LabError               the embedded lab cannot be built or booted

Each says what happened and, where one is known, the remedy. An error about a node also carries the node, the
command (secrets masked) and the tool's own last lines.
"""

from __future__ import annotations

_LAST_LINES = 8


class KitError(Exception):
    """Base of all. ``remedy`` is one sentence that says what to do next, or empty."""

    def __init__(self, what: str, *, remedy: str = "") -> None:
        self.what = what
        self.remedy = remedy
        super().__init__(what)

    def __str__(self) -> str:
        return f"{self.what}\n  remedy: {self.remedy}" if self.remedy else self.what


class ParseError(KitError, ValueError):
    """Text that is not what the tool prints. ``line`` is the offending line, whole."""

    def __init__(self, what: str, *, line: str = "", symptom: str = "unreadable", remedy: str = "") -> None:
        self.line = line
        self.symptom = symptom
        super().__init__(f"{what}: {line!r}" if line else what, remedy=remedy)


class ParamsError(KitError, ValueError):
    """A parameter file or value that does not fit its schema."""


class HostError(KitError):
    """Trouble with a node."""

    def __init__(self, what: str, *, node: str = "", command: str = "", output: str = "", remedy: str = "") -> None:
        self.node = node
        self.command = command
        self.output = "\n".join(output.rstrip().splitlines()[-_LAST_LINES:])
        super().__init__(f"{node}: {what}" if node else what, remedy=remedy)

    def __str__(self) -> str:
        parts = [self.what]
        if self.command:
            parts.append(f"  command: {self.command}")
        parts += [f"  | {line}" for line in self.output.splitlines()]
        if self.remedy:
            parts.append(f"  remedy: {self.remedy}")
        return "\n".join(parts)


class UnreachableError(HostError, ConnectionError):
    """No connection to the node, or it was lost."""


class HostKeyError(HostError):
    """The node's host key is unknown or is not the trusted one."""


class CommandError(HostError):
    """A command that had to succeed did not."""


class DeadlineError(HostError, TimeoutError):
    """A command or a wait outran its deadline."""


class PortTakenError(HostError):
    """A port that a service needs is in use on the node."""


class PartEndedError(HostError):
    """A part of a serving stack ended while it was needed."""


class ReplayError(HostError, LookupError):
    """The recording holds no answer to this question."""


class DeviceError(HostError):
    """The RDMA device is absent, down, or not the one asked for."""


class StackError(KitError):
    """A serving stack that must not be started as it is, or that does not hand over."""


class StoreError(KitError, OSError):
    """A result that cannot be written or read."""


class LabError(KitError):
    """The embedded lab cannot be built or booted."""

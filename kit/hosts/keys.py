"""Host keys: their fingerprints, and the refusal of every key that is not in the project's known_hosts."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import paramiko

from kit.errors import HostKeyError

_TRUST = "compare the fingerprint with the one on the node's own console (ssh-keygen -lf), then: kit trust SITE"


def fingerprint(key: paramiko.PKey) -> str:
    """As ``ssh-keygen -l`` prints it."""
    digest = base64.b64encode(hashlib.sha256(key.asbytes()).digest()).decode().rstrip("=")
    return f"{key.get_name()} SHA256:{digest}"


class KnownHostsOnly(paramiko.RejectPolicy):
    """Rejects, and says which key it was. A new type of key on a node we know is a change, not a new node."""

    def __init__(self, node: str, known_hosts: Path) -> None:
        self.node, self.known_hosts = node, known_hosts

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> NoReturn:
        known = client.get_host_keys().lookup(hostname)
        if known:
            raise self.changed(hostname, list(known.values()), key)
        raise HostKeyError(f"the host key of {hostname} is unknown: {fingerprint(key)}", node=self.node, remedy=_TRUST)

    def changed(self, hostname: str, trusted: Sequence[paramiko.PKey], shown: paramiko.PKey) -> HostKeyError:
        """The error for a node that shows another key than the trusted one."""
        return HostKeyError(
            f"the host key of {hostname} has CHANGED: trusted {', '.join(map(fingerprint, trusted))}, "
            f"now {fingerprint(shown)}", node=self.node,
            remedy=f"somebody may be in between. If the node was made anew, remove its lines from {self.known_hosts}; "
                   f"{_TRUST}")

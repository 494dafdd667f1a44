"""Locked memory for every new session: RDMA pins what it registers, and distributions allow 8 MiB.

A process that systemd starts does not read this file; a container gets its own limit on its command line.
"""

from __future__ import annotations

from kit.prepare.facts import Facts
from kit.prepare.item import Item, Plan, Wanted, refuse, remove_file, write_file

PATH = "/etc/security/limits.d/90-erdma-kit.conf"
TEXT = """# Written whole by erdma-kit; changes to it are lost.
*    - memlock unlimited
root - memlock unlimited
"""


def plan(facts: Facts, wanted: Wanted) -> Plan:
    """The file, and a session that has the limit."""
    if facts.text(PATH) != TEXT:
        return Plan((write_file(PATH, TEXT, fresh_session=True),))
    if facts.memlock_bytes is not None:
        return refuse(f"{PATH} is there, but a new session may lock only {facts.memlock_bytes // 1024} KiB",
                      "see that sshd has UsePAM yes, that its PAM stack has pam_limits.so, "
                      "and that no later file of limits.d says otherwise")
    return Plan()


def undo(facts: Facts, wanted: Wanted) -> Plan:
    """Back to the system's own limit for new sessions."""
    return Plan((remove_file(PATH, fresh_session=True),) if PATH in facts.files else ())


ITEM = Item("limits", "limits", plan, undo)

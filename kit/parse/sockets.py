"""Reader of /proc/net/tcp and /proc/net/tcp6: which sockets listen, and on which address.

Format: proc(5) and the kernel's net/ipv4/tcp_ipv4.c, net/ipv6/tcp_ipv6.c. Addresses are words of four bytes in the
byte order of the machine; every machine that RDMA serving runs on is little-endian. There without ss or root.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from kit.errors import ParseError

_LISTEN = "0A"
_ROW = re.compile(r"\s*\d+: ([0-9A-F]{8}|[0-9A-F]{32}):([0-9A-F]{4}) [0-9A-F]+:[0-9A-F]{4} ([0-9A-F]{2}) "
                  r"\S+ \S+ \S+ +(\d{1,10}) +\d+ (\d{1,20})(?: .*)?")


@dataclass(frozen=True)
class ListeningSocket:
    """A TCP socket that listens. ``inode`` is what /proc/<pid>/fd/* of its process points to."""

    address: str
    port: int
    inode: int
    uid: int

    @property
    def everywhere(self) -> bool:
        """On every interface of the node (0.0.0.0 or ::)."""
        return ipaddress.ip_address(self.address).is_unspecified


def parse_listening_sockets(text: str) -> list[ListeningSocket]:
    """Of either file, or of both one after the other. Raises ParseError for a line that is not theirs."""
    found = []
    for line in text.split("\n"):
        if not line.strip() or line.split()[0] == "sl":
            continue
        row = _ROW.fullmatch(line)
        if row is None:
            raise ParseError("not a line of /proc/net/tcp", line=line)
        if row[3] == _LISTEN:
            found.append(ListeningSocket(_address(row[1]), int(row[2], 16), int(row[5]), int(row[4])))
    return found


def _address(digits: str) -> str:
    packed = b"".join(bytes.fromhex(digits[at:at + 8])[::-1] for at in range(0, len(digits), 8))
    address = ipaddress.ip_address(packed)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)

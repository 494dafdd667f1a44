"""Whether a TCP port of one node can be reached from the other: by connecting to a listener that lives for a moment."""

from __future__ import annotations

import contextlib

from kit.command import script
from kit.errors import HostError, PortTakenError
from kit.hosts.base import Listening
from kit.prepare.finding import Finding
from kit.sites import End, Pair

# $1 port. Takes connections until it is ended; whatever the node has for it.
LISTEN = r"""
if command -v python3 >/dev/null 2>&1; then
    exec python3 -c 'import socket, sys
server = socket.create_server(("", int(sys.argv[1])))
while True:
    server.accept()[0].close()' "$1"
fi
busybox=$(command -v busybox) && exec "$busybox" nc -l -p "$1"
exec nc -l "$1"
"""
# $1 address, $2 port
CONNECT = r"""
if command -v bash >/dev/null 2>&1; then exec bash -c 'exec 3<>"/dev/tcp/$0/$1"' "$1" "$2"; fi
exec python3 -c 'import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)' "$1" "$2"
"""
_CONNECT_S = 6
_LISTEN_S = 30
_REMEDY = "allow all TCP between the two nodes: in the provider's security group, and in the nodes' own firewall"


def unreachable(pair: Pair, ports: list[int]) -> list[Finding]:
    """A finding for each port and direction in which no connection comes about. Changes nothing that stays."""
    found = []
    for client, server in ((pair.a, pair.b), (pair.b, pair.a)):
        bad = [str(port) for port in ports if not connects(client, server, port)]
        if bad:
            found.append(Finding("stops", "03_link_perftest", client.name,
                                 f"cannot connect to node {server.name} ({server.address}) on port {', '.join(bad)}",
                                 _REMEDY))
    return found


def connects(client: End, server: End, port: int) -> bool:
    """Whether a connection comes about. Raises HostError when a node cannot be asked, or cannot listen at all."""
    service = None
    with contextlib.suppress(PortTakenError):     # something listens there already: that is connected to
        service = server.host.start(script(LISTEN, port), deadline_s=_LISTEN_S, ready=Listening(port), ready_s=8)
    try:
        return client.host.run(script(CONNECT, server.address, port), deadline_s=_CONNECT_S).ok
    finally:
        if service is not None:
            with contextlib.suppress(HostError):
                server.host.finish(service, deadline_s=0)

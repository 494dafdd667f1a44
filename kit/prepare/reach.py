"""Whether TCP ports of one node can be reached from the other: by connecting to listeners that live for a moment."""

from __future__ import annotations

import contextlib

from kit.command import script
from kit.errors import CommandError, HostError
from kit.prepare.finding import Finding
from kit.sites import End, Pair

# Each port takes one connection, with whatever the node has for it. One that is taken already is no matter: whoever
# has it takes the connection.
LISTEN = r"""
for port; do
    if command -v python3 >/dev/null 2>&1; then
        python3 -c 'import socket, sys
socket.create_server(("", int(sys.argv[1]))).accept()[0].close()' "$port" &
    elif command -v busybox >/dev/null 2>&1; then
        "$(command -v busybox)" nc -l -p "$port" &
    else
        nc -l "$port" &
    fi
done
wait
"""
# $1 address, then ports. Prints those to which no connection came about in 5 s; all are tried at once, and again,
# because the listeners may still be on their way.
CONNECT = r"""
address=$1; shift
bash=; if command -v bash >/dev/null 2>&1; then bash=yes; fi
[ "$bash" ] || command -v python3 >/dev/null 2>&1 || { echo "neither bash nor python3" >&2; exit 3; }
once() {
    if [ "$bash" ]; then
        timeout 3 bash -c 'exec 3<>"/dev/tcp/$0/$1"' "$address" "$1"
    else
        python3 -c 'import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 3)' "$address" "$1"
    fi
}
clock() { read -r up _ </proc/uptime; up=${up%.*}; }
for port; do
    (
        clock; until=$((up + 5))
        while ! once "$port" 2>/dev/null; do
            clock
            if [ "$up" -ge "$until" ]; then echo "$port"; exit; fi
            sleep 0.2
        done
    ) &
done
wait
"""
_LISTEN_S, _CONNECT_S, _END_S = 40, 20, 3
_REMEDY = "allow all TCP between the two nodes: in the provider's security group, and in the nodes' own firewall"


def unreachable(pair: Pair, ports: list[int]) -> list[Finding]:
    """A finding for each port and direction in which no connection comes about. Changes nothing that stays."""
    def from_end(client: End) -> list[int]:
        return refused(client, pair.b if client is pair.a else pair.a, ports)

    return [Finding("stops", "03_link_perftest", name, f"cannot connect to node {'b' if name == 'a' else 'a'} on TCP "
                    f"port {', '.join(map(str, bad))}", _REMEDY)
            for name, bad in pair.both(from_end).items() if bad]


def refused(client: End, server: End, ports: list[int]) -> list[int]:
    """The ports to which no connection comes about. Raises HostError when it cannot be tried."""
    service = server.host.start(script(LISTEN, *ports), deadline_s=_LISTEN_S)
    bad = list(ports)
    try:
        done = client.host.run(script(CONNECT, server.address, *ports), deadline_s=_CONNECT_S)
        if not done.ok:
            raise CommandError("the ports could not be tried", node=client.name, output=done.stderr,
                               remedy="bash or python3 must be on both nodes")
        bad = [int(word) for word in done.stdout.split() if word.isdecimal()]
    finally:
        with contextlib.suppress(HostError):
            server.host.finish(service, deadline_s=0 if bad else _END_S)
    return sorted(bad)

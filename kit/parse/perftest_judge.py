"""Whether a perftest run can be trusted.

An exit status of 0 and a number are not enough. Seen on real stacks: a client that reports success after its server
was killed, -R that runs over another device than -d names, ends with different options that agree to differ, a row of
zeros after the link went down, and garbage in a row where the numbers of queue pairs differ.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from kit import symptoms
from kit.errors import ParseError
from kit.parse.perftest_command import Command, differences, parse_command
from kit.parse.perftest_read import parse_perftest
from kit.parse.perftest_text import scan
from kit.parse.perftest_types import Asked, End, PerftestOutput, gid_kind, normal_gid
from kit.symptoms import Symptom

_NO_CLOCK = re.compile(r"^Correlation coefficient r\^2: \S+ < 0\.9.*", re.MULTILINE)


@dataclass(frozen=True)
class _Witness:
    """One end with what its output and its command say; ``seen`` is None where the output cannot be read."""

    end: End
    name: str
    command: Command | None
    seen: PerftestOutput | None
    hit: tuple[Symptom, str] | None


def judge(client: End, server: End | None, *, asked: Asked | None = None) -> PerftestOutput:
    """The client's result, if the run bears it out. ParseError with the symptom that explains it best otherwise.

    ``asked`` states what the run must be, besides what the client's own command line says. With --run_infinitely a
    client that was ended on purpose has a result too, with ``complete`` False.
    """
    us = _witness(client, "client" if server else "program")
    them = _witness(server, "server") if server else None
    both = [us] if them is None else [us, them]
    _raise_hit([w for w in both if w.hit and w.hit[0].kind == "local"])
    _raise_mismatch(us, them)
    _raise_hit([w for w in both if w.hit and w.hit[0].kind == "link"])
    endless = us.command is not None and us.command.infinite and (client.by_signal or client.timed_out)
    if not (endless and us.seen and us.seen.rows and us.hit is None):
        _raise_ending(us, them)
    elif them and them.end.by_signal:
        raise symptoms.error("dead_peer", f"the server ended by a signal (exit status {them.end.exit_code})")
    try:
        output = parse_perftest(client.text if not client.stdout.lstrip().startswith("{") else client.stdout)
    except ParseError as error:
        line = without_clock(client.text)
        if error.symptom not in ("zero_bandwidth", "bad_row") or line is None:
            raise
        raise symptoms.error("clock_not_calibrated", "figures without a clock", line=line) from None
    if not output.complete and not endless:
        raise symptoms.error("incomplete", "the output ends before the closing rule")
    _check_header(output, us.command, asked or Asked())
    _check_rows(output, us.command, asked or Asked())
    _check_device(output, us, asked or Asked())
    if them and them.seen and them.seen.title:
        _check_device(them.seen, them, Asked())
        _check_peers(output, them.seen)
    return replace(output, complete=output.complete and not endless)


def without_clock(text: str) -> str | None:
    """An end's own line that it could not calibrate its clock; None where it says nothing of it.

    No row of the symptoms' patterns: the figures are the client's, so a server without a clock spoils nothing.
    """
    found = _NO_CLOCK.search(text)
    return None if found is None else found[0]


def _witness(end: End, name: str) -> _Witness:
    try:
        seen = scan(end.stdout.replace("\r\n", "\n"))
    except ParseError:
        seen = None
    transport = seen.transport if seen else None
    return _Witness(end, name, parse_command(end.command), seen, symptoms.find(end.text, transport=transport))


def _raise_hit(witnesses: list[_Witness]) -> None:
    """The most specific of the texts; at equal rank the client's."""
    hits = [(w.hit[0].rank, place, w.name, *w.hit) for place, w in enumerate(witnesses) if w.hit]
    if hits:
        _, _, name, symptom, line = min(hits, key=lambda hit: hit[:2])
        raise symptoms.error(symptom.name, f"the {name} reported a failure", line=line)


def _raise_mismatch(us: _Witness, them: _Witness | None) -> None:
    """Ends that do not fit each other: the cause, whatever errors or numbers came of it."""
    if them is None:
        return
    line = next((w.hit[1] for w in (us, them) if w.hit), "")
    if us.command and them.command:
        unlike = differences(us.command, them.command)
        if unlike:
            raise symptoms.error(unlike[0], unlike[1], line=line)
    if us.seen and them.seen and us.seen.title and them.seen.title:
        if us.seen.title != them.seen.title:
            raise symptoms.error("test_mismatch", f"server {them.seen.title}, client {us.seen.title}", line=line)
        if us.seen.qps != them.seen.qps:
            raise symptoms.error("qps_mismatch", f"server {them.seen.qps} QPs, client {us.seen.qps}", line=line)


def _raise_ending(us: _Witness, them: _Witness | None) -> None:
    """How the ends ended, if not well. The end that was killed explains what the other one says about it."""
    if us.end.timed_out or us.end.exit_code == 124:
        try:
            scan(us.end.stdout)
        except ParseError as err:
            if err.symptom == "zero_iterations":
                raise
        raise symptoms.error("deadline", "not ended by the deadline", line=us.hit[1] if us.hit else "")
    if us.end.by_signal:
        raise symptoms.error("ended_by_signal", f"ended by a signal (exit status {us.end.exit_code})")
    if them and them.end.by_signal and not them.end.timed_out:
        line = us.hit[1] if us.hit else ""
        raise symptoms.error("dead_peer", f"the server ended by a signal (exit status {them.end.exit_code})", line=line)
    _raise_hit([w for w in (us, them) if w and w.hit])
    if us.end.exit_code:
        raise symptoms.error("failed_silently", f"exit status {us.end.exit_code} without a known message")
    if them and (them.end.timed_out or them.end.exit_code == 124):
        raise symptoms.error("deadline", "the server had not ended by its deadline, though the client had")
    if them and them.end.exit_code:
        raise symptoms.error("dead_peer", f"the server ended with exit status {them.end.exit_code}")


def _check_header(output: PerftestOutput, command: Command | None, asked: Asked) -> None:
    pairs: list[tuple[str, object, object]] = [("number of QPs", asked.qps, output.qps)]
    pairs.append(("device", asked.device, output.device))
    if command:
        pairs += [
            ("test", f"{command.verb}_{command.metric}", f"{output.verb}_{output.metric}"),
            ("direction (-b)", command.bidirectional, output.bidirectional),
            ("number of QPs", command.qps, output.qps),
            ("connection type", command.connection, output.connection_type),
            ("RDMA_CM (-R)", command.rdma_cm, output.rdma_cm),
            ("device", command.device, output.device),
            ("duration (-D)", asked.duration_s, command.duration_s if command.duration_s is not None else "none"),
        ]
    for what, wanted, found in pairs:
        if wanted is not None and found is not None and wanted != found:
            name = "other_device" if what == "device" else "not_as_asked"
            raise symptoms.error(name, f"{what}: asked {wanted}, header says {found}")


def _check_rows(output: PerftestOutput, command: Command | None, asked: Asked) -> None:
    sizes = asked.size_bytes if asked.size_bytes is not None else command.sizes() if command else None
    iterations = asked.iterations
    if command and iterations is None and command.duration_s is None and not command.infinite:
        iterations = command.iterations
    found = tuple(row.size_bytes for row in output.rows)
    if command and command.infinite:
        found = tuple(dict.fromkeys(found))
    if sizes is not None and found != sizes:
        name = "incomplete" if len(found) < len(sizes) and found == sizes[: len(found)] else "not_as_asked"
        raise symptoms.error(name, f"{len(found)} rows of sizes {_some(found)}, asked {_some(sizes)}")
    if iterations is not None:
        # Bandwidth tests add the queue pairs up.
        total = iterations * ((output.qps or 1) if output.metric == "bw" else 1)
        for row in output.rows:
            if row.iterations != total:
                raise symptoms.error(
                    "not_as_asked", f"{row.iterations} iterations at {row.size_bytes} bytes, asked {total}"
                )


def _some(sizes: tuple[int, ...]) -> str:
    return ", ".join(map(str, sizes[:3])) + (f", … {sizes[-1]}" if len(sizes) > 3 else "")


def _check_device(output: PerftestOutput, witness: _Witness, asked: Asked) -> None:
    """The header repeats -d even where RDMA_CM took another device; the GIDs tell."""
    wanted = witness.command.device if witness.command else None
    if wanted and output.device and wanted != output.device:
        raise symptoms.error("other_device", f"the {witness.name} asked for {wanted}, its header says {output.device}")
    local, remote = output.gids("local"), output.gids("remote")
    kinds = {gid_kind(gid) for gid in (*local, *remote)} - {"zero"}
    if len({"mac" if kind == "mac" else "ip" for kind in kinds}) > 1:
        raise symptoms.error("other_device", f"GIDs of two kinds of device: {', '.join((*local, *remote))}")
    if output.transport == "IB" and "mac" in kinds:
        raise symptoms.error(
            "other_device", f"the {witness.name}'s header says {output.device} (IB), its GIDs are iWARP's",
            line=f"local {local[0] if local else '?'}",
        )  # fmt: skip
    if output.transport == "IW" and kinds & {"ipv4", "ipv6"}:
        raise symptoms.error(
            "other_device", f"the {witness.name}'s header says {output.device} (IW), its GIDs are not iWARP's",
            line=f"local {local[0] if local else '?'}",
        )  # fmt: skip
    if asked.gids is not None:
        allowed = {normal_gid(gid) for gid in asked.gids}
        strange = [gid for gid in local if gid not in allowed]
        if strange:
            raise symptoms.error("other_device", "a local GID that is not the device's", line=strange[0])


def _check_peers(client: PerftestOutput, server: PerftestOutput) -> None:
    """Each end prints the other's queue pairs: they must be the same ones."""

    def pairs(output: PerftestOutput, side: str) -> set[tuple[int, int | None, str | None]]:
        return {(a.qpn, a.psn, a.gid) for a in output.addresses if a.side == side}

    for ours, theirs in (("local", "remote"), ("remote", "local")):
        left, right = pairs(client, ours), pairs(server, theirs)
        if left and right and left != right:
            raise symptoms.error("other_peer", f"the client's {ours} queue pairs are not the server's {theirs} ones")

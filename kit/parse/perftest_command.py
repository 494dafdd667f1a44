"""What a perftest command line asks for. Options: usage() and parser() of src/perftest_parameters.c, 4.4 to 26.x."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

from kit.parse.perftest_types import ALL_SIZES

_PROGRAM = re.compile(r"(?:.*/)?ib_(send|read|write|atomic)_(bw|lat)")
_LONGEST = 10_000
_COMPOUND = {";", "|", "||", "&&", "&"}
# Short options without a value; every other one takes the rest of its word or the next word.
_FLAGS = frozenset("abeFhNORUVzHCPGZY")
_LONG_WITH_VALUE = {
    "ib-dev": "d", "ib-port": "i", "port": "p", "mtu": "m", "size": "s", "iters": "n", "tx-depth": "t", "rx-depth": "r",
    "qp-timeout": "u", "sl": "S", "gid-index": "x", "connection": "c", "qp": "q", "inline_size": "I", "outs": "o",
    "cq-mod": "Q", "atomic_type": "A", "post_list": "l", "duration": "D", "margin": "f", "tos": "T", "limit_bw": "w",
    "limit_msgrate": "y", "report-counters": "W", "output": "output",
}  # fmt: skip
_LONG_FLAGS = {
    "all": "a", "bidirectional": "b", "events": "e", "CPU-freq": "F", "noPeak": "N", "dualport": "O", "rdma_cm": "R",
    "com_rdma_cm": "z", "comm_rdma_cm": "z", "version": "V", "help": "h",
}  # fmt: skip


@dataclass(frozen=True)
class Command:
    """The parts of a command line that decide what its output must be. None: the option is not given."""

    verb: str
    metric: str
    device: str | None = None
    all_sizes: bool = False
    size_bytes: int | None = None
    iterations: int | None = None
    duration_s: float | None = None
    qps: int = 1
    bidirectional: bool = False
    rdma_cm: bool = False
    mtu_bytes: int | None = None
    connection: str = "RC"
    post_list: int = 1
    infinite: bool = False
    gbits: bool = False

    def sizes(self) -> tuple[int, ...] | None:
        """The sizes of the rows to come. None: not known (UD cuts to the MTU)."""
        if self.connection not in ("RC", "UC", "XRC", "DC"):
            return None
        if self.all_sizes:
            return ALL_SIZES if self.verb != "atomic" else None
        if self.size_bytes is not None:
            return (self.size_bytes,)
        return {"bw": (65536,), "lat": (2,)}[self.metric] if self.verb != "atomic" else None


def parse_command(line: str | None) -> Command | None:
    """The test that a command line starts. None: no perftest program, or more than one command in the line."""
    if not line or len(line) > _LONGEST:
        return None
    try:
        words = shlex.split(line)
    except ValueError:
        words = line.split()
    if any(word in _COMPOUND or word.endswith(";") for word in words):
        return None
    # Wrappers (timeout 10, stdbuf -oL, sudo, ip netns exec …) come before the program.
    place = next((i for i, word in enumerate(words) if _PROGRAM.fullmatch(word)), None)
    if place is None:
        return None
    match = _PROGRAM.fullmatch(words[place])
    options = _options(words[place + 1 :])
    verb, metric = (match[1], match[2]) if match else ("", "")
    return Command(
        verb,
        metric,
        device=options.get("d"),
        all_sizes="a" in options,
        size_bytes=_size(options.get("s")),
        iterations=_int(options.get("n")),
        duration_s=_float(options.get("D")),
        qps=_int(options.get("q")) or 1,
        bidirectional="b" in options,
        rdma_cm="R" in options,
        mtu_bytes=_int(options.get("m")),
        connection=options.get("c", "RC").upper(),
        post_list=_int(options.get("l")) or 1,
        infinite="run_infinitely" in options,
        gbits="report_gbits" in options,
    )


def differences(client: Command, server: Command) -> tuple[str, str] | None:
    """The symptom and the words for options that must be the same at both ends and are not."""
    if (client.verb, client.metric) != (server.verb, server.metric):
        return "test_mismatch", f"server {server.verb}_{server.metric}, client {client.verb}_{client.metric}"
    if client.rdma_cm != server.rdma_cm:
        return "rdma_cm_mismatch", f"-R at the {'client' if client.rdma_cm else 'server'} only"
    if client.qps != server.qps:
        return "qps_mismatch", f"-q {server.qps} at the server, {client.qps} at the client"
    compared = {
        "sizes": (server.sizes(), client.sizes()),
        "-n": (server.iterations, client.iterations),
        "-D": (server.duration_s, client.duration_s),
        "-b": (server.bidirectional, client.bidirectional),
        "-m": (server.mtu_bytes, client.mtu_bytes),
        "-c": (server.connection, client.connection),
        "--run_infinitely": (server.infinite, client.infinite),
    }
    unlike = [f"{name} {theirs} at the server, {ours} at the client" for name, (theirs, ours) in compared.items()
              if theirs != ours]  # fmt: skip
    return ("options_differ", "; ".join(unlike)) if unlike else None


def _options(words: list[str]) -> dict[str, str]:
    options: dict[str, str] = {}
    rest = iter(words)
    for word in rest:
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            if name in _LONG_WITH_VALUE:
                options[_LONG_WITH_VALUE[name]] = value if equals else next(rest, "")
            else:
                options[_LONG_FLAGS.get(name, name)] = value
        elif word.startswith("-"):
            for index, letter in enumerate(word[1:], start=2):
                if letter in _FLAGS:
                    options[letter] = ""
                    continue
                options[letter] = word[index:] or next(rest, "")
                break
    return options


def _int(text: str | None) -> int | None:
    return int(text) if text and re.fullmatch(r"[0-9]{1,12}", text) else None


def _float(text: str | None) -> float | None:
    return float(text) if text and re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,6})?", text) else None


def _size(text: str | None) -> int | None:
    """-s takes K and M for 2^10 and 2^20."""
    match = re.fullmatch(r"([0-9]{1,10})([KkMm]?)", text or "")
    return int(match[1]) << {"": 0, "k": 10, "m": 20}[match[2].lower()] if match else None

"""Reader of Mooncake's ``transfer_engine_bench``: what its two ends log, and whether a run of it can be trusted.

Format: Mooncake ``mooncake-transfer-engine/example/transfer_engine_bench.cpp`` and ``src/transfer_engine_impl.cpp``,
0.3.7 to 0.3.13. Everything is glog on standard error; the rate's unit is a flag, powers of ten but for the *iB ones.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from kit import symptoms
from kit.errors import ParseError
from kit.parse.perftest_types import End

_UNITS = {"GB": 10**9, "GiB": 2**30, "Gb": 10**9 / 8, "MB": 10**6, "MiB": 2**20, "Mb": 10**6 / 8, "KB": 10**3,
          "KiB": 2**10, "Kb": 10**3 / 8}
_RESULT = re.compile(r"Test completed: duration (\d{1,9}\.\d+), batch count (\d{1,15}), "
                     r"throughput (\d{1,15}(?:\.(\d{1,9}))?) (\w{2,3})/s *$", re.MULTILINE)
_STARTED = re.compile(r"Test completed: ")
_MEMORY = re.compile(r"\b([DV])RAM is used\b")
_LISTENING = re.compile(r"Transfer Engine RPC using .{1,40}, listening on (\S{1,255}):(\d{1,5})")
_GREW = re.compile(r"buffer size is smaller than require_size, adjust to (\d{1,18})")


@dataclass(frozen=True)
class EngineResult:
    """The initiator's result. ``batches`` over all threads; ``step_bytes_per_s``: half of the last printed digit."""

    duration_s: float
    batches: int
    bytes_per_s: float
    step_bytes_per_s: float


@dataclass(frozen=True)
class EngineLog:
    """One end's log: where it listens, the memory it took (dram | vram), the buffer it raised, the result if any."""

    address: str | None = None
    memory: str | None = None
    raised_buffer_bytes: int | None = None
    result: EngineResult | None = None


@dataclass(frozen=True)
class Wanted:
    """What a run was asked to be."""

    block_bytes: int
    batch: int
    duration_s: int
    memory: str


def parse_engine_log(text: str) -> EngineLog:
    """Read any end's log. Raises ParseError for a damaged result line or a unit that the tool does not know."""
    memory, listening, grew = _MEMORY.search(text), _LISTENING.search(text), _GREW.search(text)
    return EngineLog(address=f"{listening[1]}:{listening[2]}" if listening else None,
                     memory={"D": "dram", "V": "vram"}[memory[1]] if memory else None,
                     raised_buffer_bytes=int(grew[1]) if grew else None, result=_result(text))


def judge_engine(initiator: End, target: End | None, wanted: Wanted) -> EngineResult:
    """The result, if both ends bear it out. ParseError with the symptom that explains it best otherwise.

    The target never ends by itself: it is stopped after the initiator, so only its death before that counts.
    """
    for name, end in (("initiator", initiator), ("target", target)):
        hit = symptoms.find(end.text, area="serving") if end is not None else None
        if hit is not None and (initiator.exit_code != 0 or initiator.timed_out):
            raise symptoms.error(hit[0].name, f"the {name} reported a failure", line=hit[1])
    if target is not None and target.exit_code not in (None, 0):
        raise symptoms.error("dead_peer", f"the target ended with exit status {target.exit_code}")
    if initiator.timed_out:
        raise symptoms.error("deadline", "the initiator had not ended by its deadline")
    if initiator.by_signal:
        raise symptoms.error("ended_by_signal", f"the initiator ended by a signal (exit status {initiator.exit_code})")
    if initiator.exit_code != 0:
        raise symptoms.error("failed_silently", f"exit status {initiator.exit_code} without a known message")
    log = parse_engine_log(initiator.text)
    if log.result is None:
        raise symptoms.error("no_result", "no line of results")
    _check(log, log.result, wanted)
    if target is not None:
        _check_memory("target", parse_engine_log(target.text), wanted)
    return log.result


def _result(text: str) -> EngineResult | None:
    started = _STARTED.search(text)
    if started is None:
        return None
    line = text[started.start():].split("\n", 1)[0]
    found = _RESULT.match(line)
    if found is None:
        raise ParseError("not a line of results", line=line[:400])
    if found[5] not in _UNITS:
        raise ParseError(f"the unit {found[5]} is none of the tool's", line=line[:400])
    unit = _UNITS[found[5]]
    return EngineResult(float(found[1]), int(found[2]), float(found[3]) * unit, unit * 0.5 / 10 ** len(found[4] or ""))


def _check(log: EngineLog, result: EngineResult, wanted: Wanted) -> None:
    if result.batches == 0 or result.bytes_per_s == 0:
        raise symptoms.error("zero_iterations", "no batch was completed")
    _check_memory("initiator", log, wanted)
    if result.duration_s < wanted.duration_s - 0.5:
        raise symptoms.error("not_as_asked", f"ran {result.duration_s:g} s, asked {wanted.duration_s} s")
    moved = result.batches * wanted.batch * wanted.block_bytes
    low, high = moved / (result.duration_s + 0.005), moved / max(result.duration_s - 0.005, 1e-9)
    if not low - result.step_bytes_per_s <= result.bytes_per_s <= high + result.step_bytes_per_s:
        raise symptoms.error("not_as_asked", f"{result.bytes_per_s:.4g} bytes/s printed, {moved} bytes in "
                                             f"{result.duration_s:g} s asked: another block or batch size")


def _check_memory(name: str, log: EngineLog, wanted: Wanted) -> None:
    if log.memory is not None and log.memory != wanted.memory:
        raise symptoms.error("engine_other_memory", f"the {name} used {log.memory}, asked {wanted.memory}")

"""One benchmark on a running stack: counters before, `vllm bench serve`, counters after, judged."""

from __future__ import annotations

from dataclasses import asdict
from statistics import median, quantiles
from typing import Any

from kit.errors import CommandError, DeadlineError, HostError, ParseError, PartEndedError, UnreachableError
from kit.observe.table import table, troubles
from kit.params import ServeBenchParams
from kit.parse.bench import parse_bench
from kit.parse.bench_types import BenchResult, goodput_per_s, request_rows
from kit.serving.bench import BenchPoint, bench_command
from kit.serving.evidence import evidence, handover_of, log_since, look, timed
from kit.serving.guard import failed, guarded
from kit.serving.handover import complete, prompt
from kit.serving.launch import sent
from kit.serving.session import Up
from kit.serving.validity import judge
from kit.serving.watch import observed
from kit.sites import Pair

_KEPT = 4000      # characters of the tool's own output
_AROUND_S = 600.0   # warm-ups and counters, beside the benchmark itself
_SPARE_S = 30.0   # the samplers live this much longer than the benchmark may take


def record_of(pair: Pair, up: Up, point: BenchPoint, params: ServeBenchParams) -> dict[str, Any]:
    """Measure and judge one point; trouble with the tool or the stack becomes a FAILED record.

    A measured record's ``samples`` is a table (`kit.observe.table`): what the nodes did meanwhile.

    Raises UnreachableError and PartEndedError: then the node or the stack is lost, and with it all later points.
    """
    try:
        with guarded(pair, up.deployment, deadline_s=params.deadline_s + _AROUND_S):
            return _measured(pair, up, point, params)
    except (UnreachableError, PartEndedError):
        raise
    except (HostError, ParseError) as error:
        return failed(error)


def _measured(pair: Pair, up: Up, point: BenchPoint, params: ServeBenchParams) -> dict[str, Any]:
    deployment, host = up.deployment, pair.prefill.host
    for turn in range(params.warmups):
        words = prompt(max(point.input_tokens // 4, 8), seed=1 + turn + 100 * point.repeat)    # a word is 1 to 4 tokens
        complete(pair, deployment, deployment.front, words, tokens=min(point.output_tokens, 8))
    result_file = f"{deployment.wiring.prefill.folder}/{point.key(params)}.json"
    before = look(pair, deployment)
    with observed(pair, deployment, deadline_s=params.deadline_s + _SPARE_S) as seen:
        done = host.run(sent(pair, bench_command(deployment.wiring, point, params, result=result_file)),
                        deadline_s=params.deadline_s)
    if done.exit_code is None:
        said = log_since(pair, deployment, before)      # the benchmark itself only waits
        raise DeadlineError(f"the benchmark did not end in {params.deadline_s:g} s", node=host.name,
                            command=done.command, output=said + done.stdout + done.stderr,
                            remedy="raise deadline_s, or see the logs of the stack")
    if not done.ok:
        raise CommandError("the benchmark failed", node=host.name, command=done.command,
                           output=done.stdout + done.stderr)
    after = look(pair, deployment)
    log = log_since(pair, deployment, before)
    result = parse_bench(host.read(result_file).decode(errors="replace"))
    told = evidence(deployment, before, after, log, result, asked=params.prompts, output_tokens=point.output_tokens,
                    range_ratio=params.range_ratio)
    wanted = handover_of(deployment, after, result, bytes_per_token=up.ground.bytes_per_token, share=params.share)
    validity = judge(told, wanted)
    own = timed(deployment, before, after, log)
    return {
        "outcome": validity.outcome, "symptom": validity.symptom, "reason": validity.reason, "remedy": validity.remedy,
        "hit_ratio": validity.hit_ratio, "wire_share": validity.wire_share,
        "kv_expected_bytes": None if wanted is None else wanted.expected_bytes,
        **({} if own is None else asdict(own)), "validity": validity.to_dict(),
        "start_s": deployment.ready_s, "summary": summary_of(result, params.slo_ms), "requests": _requests(result),
        "command": done.command, "output": done.stdout[-_KEPT:], "samples": table(seen), "not_sampled": troubles(seen),
    }


def summary_of(result: BenchResult, slo_ms: dict[Any, float]) -> dict[str, Any]:
    """The benchmark's own totals, and medians over its requests."""
    def over(name: str) -> list[float]:
        return [value for request in result.requests if (value := getattr(request, name)) is not None]

    latencies = {name: median(values) if (values := over(name)) else None
                 for name in ("ttft_ms", "first_itl_ms", "rest_itl_ms", "tpot_ms", "e2e_ms")}
    return {"completed": result.completed, "duration_s": result.duration_s, "prompt_tokens": result.input_tokens,
            "generated_tokens": result.output_tokens, "completed_per_s": result.requests_per_s,
            "output_tokens_per_s": result.output_tokens_per_s, "total_tokens_per_s": result.total_tokens_per_s,
            "goodput_per_s": goodput_per_s(result, slo_ms) if slo_ms else None, **latencies,
            "ttft_p99_ms": _p99(over("ttft_ms")), "e2e_p99_ms": _p99(over("e2e_ms"))}


def _p99(values: list[float]) -> float | None:
    """None under 100 requests: there is no such percentile to be seen."""
    return quantiles(values, n=100)[98] if len(values) >= 100 else None


def _requests(result: BenchResult) -> list[dict[str, Any]]:
    """One row a request; the point's own axis is called ``output_tokens``, so what came has another name."""
    rows = request_rows(result)
    for row in rows:
        row["generated_tokens"] = row.pop("output_tokens")
    return rows

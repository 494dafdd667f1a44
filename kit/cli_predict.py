"""`kit predict`. Heavy imports happen inside, and only where a run is read: an answer takes a tenth of a second."""

from __future__ import annotations

from pathlib import Path

import click

from kit.reported import reported


@click.command()
@click.option("--model", required=True, metavar="DIR|FILE", help="A model's folder, or its config.json.")
@click.option("--tokens", required=True, type=int, help="Length of the prompt.")
@click.option("--gbps", type=float, help="Speed of the link in 1e9 bits a second.")
@click.option("--run", "runs", multiple=True, type=click.Path(path_type=Path), metavar="RUN",
              help="A link or transfer-engine run, for its fitted line; or a benchmark, for its measured prefill.")
@click.option("--dtype", default="bf16", show_default=True, help="Of the cache: bf16, fp16, fp32, fp8, fp8_ds_mla.")
@click.option("--tp", default=1, show_default=True, help="Tensor parallel size.")
@click.option("--block", default=1, show_default=True, help="Tokens that move whole: vLLM's block, LMCache's chunk.")
@click.option("--out-tokens", type=int, default=64, show_default=True, help="Of a workload: tokens out.")
@click.option("--rate", type=float, help="Of a workload: requests a second. Prints what to know before it runs.")
@click.option("--concurrency", type=int, help="Of a workload: requests in flight.")
@click.option("--store-gb", type=float, help="Of a workload: size of the KV store in 1e9 bytes.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@reported
def predict(model: str, tokens: int, gbps: float | None, runs: tuple[Path, ...], dtype: str, tp: int, block: int,
            out_tokens: int, rate: float | None, concurrency: int | None, store_gb: float | None,
            as_json: bool) -> None:
    """Predict the hand-over of a prompt's KV cache: bytes a token, bytes, time, share of a measured prefill.

    With --rate or --concurrency also whether the workload asks too much of link or store, or can show nothing.
    """
    from dataclasses import asdict

    from kit import predict as predicting
    from kit.errors import ParamsError
    from kit.kv_config import load_shape
    from kit.linkmodel import nominal
    from kit.workload import Stack, Workload, outlook

    shape = load_shape(model)
    lines = {} if gbps is None else {"link": nominal(gbps, operation="link")}
    prefill = None
    for run in runs:
        found = predicting.lines_of(run) if run.is_dir() else {}
        lines |= found
        if not found:
            prefill = predicting.prefill_of(run, tokens)
    told = predicting.predict(shape, tokens, dtype=dtype, tp=tp, unit_tokens=block,  # type: ignore[arg-type]
                              lines=lines, prefill_ms=prefill)
    ahead = None
    if rate is not None or concurrency is not None:
        if not lines:
            raise ParamsError("a workload needs a link to judge it by", remedy="give --gbps or --run")
        slowest = min(lines.values(), key=lambda line: line.bytes_per_s.value)
        stack = Stack(told.bytes_per_token, slowest, None if store_gb is None else int(store_gb * 1e9), max(block, 1))
        ahead = outlook(Workload(tokens, out_tokens, rate, concurrency), stack)
    if as_json:
        import json

        workload = {} if ahead is None else {"workload": asdict(ahead)}
        click.echo(json.dumps(told.to_dict() | workload, indent=1))
        return
    click.echo("\n".join(told.lines()))
    if ahead is not None:
        click.echo(f"workload: about {ahead.requests_per_s:.3g} requests/s, {ahead.link_share:.2%} of the link")
        click.echo("\n".join(f"careful: {caution}" for caution in ahead.cautions) or "nothing to warn of")

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
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@reported
def predict(model: str, tokens: int, gbps: float | None, runs: tuple[Path, ...], dtype: str, tp: int, block: int,
            as_json: bool) -> None:
    """Predict the hand-over of a prompt's KV cache: bytes a token, bytes, time, share of a measured prefill."""
    from kit import predict as predicting
    from kit.kv_config import load_shape
    from kit.linkmodel import nominal

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
    if as_json:
        import json

        click.echo(json.dumps(told.to_dict(), indent=1))
    else:
        click.echo("\n".join(told.lines()))

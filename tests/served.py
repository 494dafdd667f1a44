"""Requests to explain: of real runs on one H200, and made up with known parts."""

import json
from functools import partial

import numpy as np
import pandas as pd

from kit.explain import Served
from kit.kv import request_bytes
from kit.kv_config import shape_of
from kit.linkmodel import Sample, fit
from kit.parse.bench import parse_bench, request_rows
from kit.paths import root
from kit.serving.table import COLUMNS, REQUEST_COLUMNS, table
from kit.store import Run

DATA = root() / "tests/data"
QWEN = shape_of(json.loads((DATA / "kv/Qwen2.5-7B.json").read_text())["config"])
SIZE = partial(request_bytes, QWEN, unit_tokens=16)
# transfer_engine_bench on the same H200, tcp, host memory, 4 threads x 8: MiB in flight -> GB/s written.
ENGINE = fit([Sample("write", mib * 2**20, mib * 2**20 / (rate * 1e9)) for mib, rate in ((2, 1.02), (32, 1.38),
                                                                                          (512, 1.56))])


def h200(name):
    found = [parse_bench((DATA / f"serving/pd-h200/bench_{name}_{tokens}_64_c1.json").read_text())
             for tokens in (512, 4096)]
    rows = [row for result in found for row in request_rows(result)]
    return Served(name, pd.DataFrame(rows), 1)


def requests(count=20, *, tokens=1000, ttft, first_itl, tpot, seed=1):
    draw = np.random.default_rng(seed)
    noise = 1 + draw.normal(0, 0.01, count)
    return pd.DataFrame({"prompt_tokens": tokens, "ttft_ms": ttft * noise, "first_itl_ms": first_itl * noise,
                         "tpot_ms": tpot, "e2e_ms": ttft * noise + 63 * tpot})


def write_run(folder, points, rows):
    run = Run(folder)
    run.keep_points(table(points, COLUMNS))
    run.keep_table("requests", table(rows, REQUEST_COLUMNS))
    return run


def made_up(folder, stack, *, concurrencies=(1, 8), outcome="VALID", handover=60.0):
    """Behind a proxy that sends the prefiller's token: 60 ms of hand-over, and a queue at concurrency 8."""
    points, rows = [], []
    for name in ("aggregated", stack):
        for concurrency in concurrencies:
            axes = {"site": "x", "stack": name, "input_tokens": 1000, "output_tokens": 64, "concurrency": concurrency,
                    "requests_per_s": None, "repeat": 0, "outcome": "VALID" if name == "aggregated" else outcome}
            wait = 40.0 if concurrency > 1 and name != "aggregated" else 0.0
            first_itl = 12.0 if name == "aggregated" else 10.0 + handover
            frame = requests(ttft=100.0 + wait, first_itl=first_itl, tpot=10.0)
            points.append({**axes, "completed": len(frame), "duration_s": 10.0,
                           "kv_expected_bytes": None if name == "aggregated" else SIZE(1000) * len(frame)})
            rows += [{**axes, "index": number, "ok": True, **row}
                     for number, row in enumerate(frame.to_dict("records"))]
    return write_run(folder, points, rows)

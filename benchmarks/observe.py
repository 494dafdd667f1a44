"""What the sampler costs a node: its share of one core at one look a second, with three /metrics pages that change.

The pages are those of real stacks (tests/data/serving), every value moved at every answer, which is more than a busy
server's do. The sampler's own counter gives the CPU time of itself and its children, start-up left out.
"""

from __future__ import annotations

import os
import re
import statistics
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from kit.hosts.local import LocalHost
from kit.observe import collect, sampler
from kit.observe.collect import Sources, Watched
from kit.observe.table import counted, table, troubles
from kit.paths import root

PAGES = {"vllm": "vllm0.32_agg_metrics.txt", "lmcache": "nixl_D_metrics.txt", "mooncake": "mooncake_master_metrics.txt"}
SECONDS = 30
GOAL_PERCENT = 2.0
COUNTERS = 60       # of one eRDMA device with Alibaba's own driver

TEMPLATES = {name: re.sub(r" ([0-9.e+-]+)$", r" \1%d", (root() / "tests/data/serving/pd-cpu" / file).read_text()
                          .replace("%", "%%"), flags=re.MULTILINE) for name, file in PAGES.items()}


class Pages(BaseHTTPRequestHandler):
    """/NAME: the page of that name, each value a little larger than the last time."""

    protocol_version = "HTTP/1.1"
    answers = 0

    def do_GET(self) -> None:
        Pages.answers += 1
        template = TEMPLATES[self.path[1:]]
        body = template.replace("%d", str(Pages.answers % 10)).replace("%%", "%").encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing is printed."""


def share(seconds: int, period_s: float) -> tuple[float, int]:
    """Percent of one core, and the bytes that the sampler wrote."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    host = LocalHost(run_id=f"kit-bench-{os.getpid()}")
    try:
        urls = {name: f"http://127.0.0.1:{server.server_port}/{name}" for name in PAGES}
        begun = time.time()
        samplings = collect.start([Watched("node", host, Sources(urls=urls))], deadline_s=seconds, period_s=period_s)
        assert samplings[0].service is not None, samplings[0].trouble
        host.finish(samplings[0].service, deadline_s=seconds + 10)
        recorded = collect.fetch(samplings)
    finally:
        host.stop(host.run_id)
        server.shutdown()
    assert not troubles(recorded), troubles(recorded)
    samples = table(recorded)
    used_s = counted(samples, "node", "cpu_s", begun)
    looks = samples.loc[samples["name"] == "cpu_s", "time_s"]
    assert used_s is not None
    return 100 * used_s / float(looks.max() - looks.min()), len(recorded[0].text)


def counters_ms() -> float:
    """Milliseconds of one look at the counter files of one device, on a memory disk where there is one."""
    base = "/dev/shm" if os.path.isdir("/dev/shm") else None    # noqa: S108
    with tempfile.TemporaryDirectory(dir=base) as name:
        folder = Path(name) / "erdma_0" / "ports" / "1" / "hw_counters"
        folder.mkdir(parents=True)
        for number in range(COUNTERS):
            (folder / f"counter_{number}").write_text(f"{number * 10**9}\n")
        times = []
        for _ in range(50):
            begun = time.process_time()
            assert len(sampler.rdma(None, name)) == COUNTERS
            times.append(time.process_time() - begun)
    return 1e3 * statistics.median(times)


if __name__ == "__main__":
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else SECONDS
    percent, written = share(seconds, 1.0)
    size = sum(len(template) for template in TEMPLATES.values())
    print(f"sampling once a second, {len(PAGES)} pages of {size / 1e3:.0f} kB in all: {percent:.2f} % of one core "
          f"(goal: under {GOAL_PERCENT:g} %), {written / seconds / 1e3:.1f} kB/s written", flush=True)
    print(f"one look at {COUNTERS} hardware counters: {counters_ms():.2f} ms of CPU, once a second that is "
          f"{counters_ms() / 10:.2f} % of one core (files of a memory disk, not sysfs)", flush=True)

"""The link sweep on this machine, with a stand-in for perftest that prints what a real one printed."""

import sys

from kit.hosts.local import LocalHost
from kit.link.perftest import points
from kit.link.sweep import sweep
from kit.params import LinkParams, Site
from kit.parse.perftest import parse_transcript
from kit.paths import root
from kit.sites import End, Pair
from kit.store import Run

SAMPLE = root() / "tests/data/softrdma/siw_write_bw_R_no_clock.txt"
ZEROS, FIGURES = "0.000000            0.000000            0.000000", "0.300000            0.290000            0.004425"

# Serves one client; its clients have no clock for so many times, and then one.
STAND_IN = f"""#!{sys.executable}
import pathlib, socket, sys
args, here = sys.argv[1:], pathlib.Path(__file__).parent
port = int(args[args.index("-p") + 1])
if args[-1] != "127.0.0.1":
    with socket.create_server(("127.0.0.1", port)) as server:
        server.accept()[0].close()
    print((here / "server").read_text(), end="")
    sys.exit()
socket.create_connection(("127.0.0.1", port), timeout=10).close()
with (here / "tries").open("a") as tries:
    tries.write("x")
without = len((here / "tries").read_text()) <= int((here / "without").read_text())
print((here / ("zeros" if without else "figures")).read_text(), end="")
if without:
    print((here / "stderr").read_text(), end="", file=sys.stderr)
"""


def swept(folder, monkeypatch, *, without):
    """Two points, of which the first clients have no clock."""
    told, tools = parse_transcript(SAMPLE.read_text()), folder / "bin"
    tools.mkdir()
    for name, text in {"server": told.server.stdout, "zeros": told.client.stdout, "stderr": told.client.stderr,
                       "figures": told.client.stdout.replace(ZEROS, FIGURES), "without": f"{without}",
                       "ib_write_bw": STAND_IN}.items():
        (tools / name).write_text(text)
    (tools / "ib_write_bw").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    site = Site(name="here", nodes={name: {"host": "127.0.0.1", "rdma_device": "siw0", "rdma_address": "127.0.0.1"}
                                    for name in "ab"})
    pair = Pair(site, *(End(name, LocalHost(name, run_id=f"kit-test-{folder.name}"), "siw0", "127.0.0.1")
                        for name in "ab"))
    params = LinkParams(tools=["ib_write_bw"], sizes_bytes=[8192], connections=["rdma_cm"], iterations=8000, repeats=2,
                        deadline_s=20)
    run, none = Run(folder / "run"), {"a": frozenset(), "b": frozenset()}
    sweep(pair, params, run, points(params), gids=none, versions={"a": "6.06", "b": "6.06"})
    kept = run.finished_points()
    return [kept[point.key(params)] for point in points(params)]


def test_a_client_without_a_clock_is_run_again_and_one_with_it_never(tmp_path, monkeypatch):
    first, second = swept(tmp_path, monkeypatch, without=2)
    assert (first["outcome"], first["attempts"]) == ("VALID", 3), first
    assert first["bandwidth_gbps"] == 0.29
    assert (second["outcome"], second["attempts"]) == ("VALID", 1)


def test_a_clock_that_never_comes_fails_the_point_by_its_name(tmp_path, monkeypatch):
    first, second = swept(tmp_path, monkeypatch, without=3)
    assert (first["outcome"], first["symptom"], first["attempts"]) == ("FAILED", "clock_not_calibrated", 3)
    assert first["line"].startswith("Correlation coefficient")
    assert second["outcome"] == "VALID"

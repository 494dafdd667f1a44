"""What many stored runs cost a reader: the calls of notebooks/07_compare.ipynb on 1,000 and 5,000 run folders.

The folders are copies of the reference runs. The plain way beside it only reads the same files and puts them in one
table, a pandas.read_parquet each; it compares nothing.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from kit import compare, serve_compare
from kit.paths import root

FEW, MANY = 1000, 5000
GOAL_S, ROUNDS = 3.0, 3
LINKS, SERVES = ("lab-siw", "lab-rxe"), ("lab-pd",)


def copies(folder: Path, sources: tuple[str, ...], count: int) -> list[str | Path]:
    """So many run folders, of the sources in turn."""
    runs: list[str | Path] = []
    for number in range(count):
        run = folder / f"run-{number:05}"
        run.mkdir()
        for name in ("points.parquet", "verdict.json"):
            shutil.copyfile(root() / "results/reference" / sources[number % len(sources)] / name, run / name)
        runs.append(run)
    return runs


def links(runs: list[str | Path]) -> None:
    points = compare.load(compare.only(runs, "03_link_perftest"))
    compare.side_by_side(points)
    compare.summary(points)


def serves(runs: list[str | Path]) -> None:
    points = serve_compare.load(compare.only(runs, "06_serve_bench"))
    serve_compare.summary(points)
    serve_compare.against(points, points["stack"].iloc[0])


def plain(runs: list[str | Path]) -> None:
    pd.concat([pd.read_parquet(Path(run) / "points.parquet") for run in runs], ignore_index=True)


def timed(work: Callable[[list[str | Path]], None], runs: list[str | Path]) -> float:
    started = time.perf_counter()
    work(runs)
    return time.perf_counter() - started


def stage(name: str, work: Callable[[list[str | Path]], None], sources: tuple[str, ...]) -> None:
    times: dict[str, list[float]] = {"few": [], "many": [], "plain": []}
    with tempfile.TemporaryDirectory() as folder:
        runs = copies(Path(folder), sources, MANY)
        work(runs)      # once outside the clock: the imports, and the files into the page cache
        plain(runs[:FEW])
        for _ in range(ROUNDS):     # in turn, so that a drift of the machine touches all three
            times["few"].append(timed(work, runs[:FEW]))
            times["many"].append(timed(work, runs))
            times["plain"].append(timed(plain, runs))
    few, many, theirs = (statistics.median(found) for found in times.values())
    print(f"{f'{FEW:,} {name} runs, loaded and compared':<64} {few:7.2f} s")
    print(f"{f'{MANY:,} {name} runs, loaded and compared':<64} {many:7.2f} s   (goal: under {GOAL_S:g} s)")
    print(f"{f'growth from {FEW:,} to {MANY:,}':<64} {many / few:7.2f} times   (goal: at most {MANY / FEW:g})")
    print(f"{f'{MANY:,} {name} runs: kit / a loop of read_parquet, not compared':<64} "
          f"{many:7.2f} s / {theirs:6.2f} s = {many / theirs:5.2f}", flush=True)


if __name__ == "__main__":
    stage("link", links, LINKS)
    stage("serving", serves, SERVES)

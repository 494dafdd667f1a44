"""The serving lab for a test: a site file of its own with secrets in it, and what must not be left of a run."""

import os
import signal
import threading
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from kit.paths import root

SECRETS = {"HF_TOKEN": "hf_plantedByATest0123456789", "KIT_PLANTED": "planted $ecret 'of' a test"}
DEADLINE_S = 240


def site_file(folder: Path, **serving: object) -> str:
    """`lab-pd` with more in its serving section; secrets are named in it, not told."""
    site = yaml.safe_load((root() / "params/sites/lab-pd.yaml").read_text())
    site["name"] = "lab-pd-test"
    site["serving"] |= {"env": {name: f"env:{name}" for name in SECRETS}, **serving}
    path = folder / "site.yaml"
    path.write_text(yaml.safe_dump(site))
    return str(path)


def processes() -> dict[int, tuple[list[str], bytes]]:
    """Every process of this machine that runs: pid -> its words and its environment."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "stat").read_text().rpartition(")")[2].split()[0] in "ZX":
                continue
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            found[int(entry.name)] = (words, (entry / "environ").read_bytes())
        except OSError:
            continue
    return found


def of_run(*run_ids: str) -> dict[int, list[str]]:
    """The processes that carry one of these run ids."""
    marks = [f"KIT_RUN_ID={run_id}".encode() for run_id in run_ids]
    return {pid: words for pid, (words, environ) in processes().items()
            if any(mark in environ.split(b"\0") for mark in marks)}


def pids_of(part: str, *run_ids: str) -> list[int]:
    """The processes that are this part itself: no supervisor, no child with a title of its own."""
    said = {"prefiller": ("serve", "7100"), "decoder": ("serve", "7200"), "proxy": ("proxy.py", "9000"),
            "master": ("mooncake/mooncake_master", "50052"), "bench": ("bench", "--save-result")}[part]
    return [pid for pid, words in of_run(*run_ids).items()
            if ("python" in Path(words[0]).name or words[0].endswith(said[0]))
            and any(word.endswith(said[0]) for word in words) and said[1] in words]


def shown() -> list[str]:
    """Secrets that any process shows in its arguments."""
    return [name for words, _ in processes().values() for name, value in SECRETS.items()
            if any(value in word for word in words)]


def told_in(*folders: Path) -> list[str]:
    """Files below these folders that hold a secret."""
    return [str(file) for folder in folders for file in folder.rglob("*") if file.is_file() and not file.is_symlink()
            and any(value.encode() in file.read_bytes() for value in SECRETS.values())]


@dataclass
class Killer:
    """Kills a part once the benchmark has had some answers. ``at``: when; ``shown``: secrets seen in arguments."""

    part: str
    run_ids: tuple[str, ...]
    at: float = 0.0
    shown: list[str] = field(default_factory=list)
    holders: int = 0
    _thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._kill)
        self._thread.start()

    def join(self) -> None:
        if self._thread is not None:
            self._thread.join(DEADLINE_S)

    def _kill(self) -> None:
        until, begun = time.monotonic() + DEADLINE_S, None
        pause = threading.Event()
        while time.monotonic() < until:
            if pids_of("bench", *self.run_ids):
                answered = answers()
                begun = answered if begun is None else begun
                if answered >= begun + 2:
                    break
            pause.wait(0.2)
        self.shown += shown()
        self.holders = sum(SECRETS["KIT_PLANTED"].encode() in environ for _, environ in processes().values())
        for pid in pids_of(self.part, *self.run_ids):
            os.kill(pid, signal.SIGKILL)
            self.at = time.monotonic()


def answers() -> float:
    """Requests that the decoder has ended."""
    with urllib.request.urlopen("http://127.0.0.2:7200/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("vllm:request_success_total"))

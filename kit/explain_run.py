"""`kit explain`: the stacks of a serving run (stage 06) beside its aggregated baseline, and the figures of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, astuple, dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from kit import linkmodel
from kit.errors import ParamsError, StoreError
from kit.explain import COLUMNS, Explanation, Served, explain, link_use, parts_table, percent, predictions_table
from kit.linkmodel import LinkModel, short
from kit.observe.clocks import Clock, clock
from kit.params import ServeBenchParams
from kit.store import Run

if TYPE_CHECKING:
    import pandas as pd

    from kit.params import Stack

Lines = dict[str, dict[str, LinkModel]]
_LOAD = ("output_tokens", "concurrency")
_SHOWN_MS = 0.5
_ENGINES = ("prefiller", "decoder")
_CLOCKED = ("stack", "input_tokens", "output_tokens", "concurrency", "repeat")
_NEAR = 0.1     # a prompt within 10 % of the asked length counts as one of that length


@dataclass(frozen=True)
class Account:
    """One stack under one load: an explanation a prompt length, and the share of the link that the load used.

    By a prediction's name: ``link_use``, total KV bytes over wall time over that line's bandwidth; ``rates_gbps``, that
    bandwidth; ``cautions``, why the line is not to be trusted. ``timed_ms``: prompt length -> what the connector itself
    says that a transfer took, at concurrency 1; ``clocks``: prompt length -> what the prefiller's and the decoder's own
    clocks say, of an account at concurrency 1. ``differs``: what else than the hand-over the comparison with the
    baseline holds.
    """

    stack: str
    output_tokens: int
    concurrency: int
    explanations: list[Explanation]
    link_use: dict[str, float]
    cautions: dict[str, str]
    rates_gbps: dict[str, float] = field(default_factory=dict)
    timed_ms: dict[int, float] = field(default_factory=dict)
    clocks: dict[int, dict[str, Clock]] = field(default_factory=dict)
    differs: str = ""

    @property
    def name(self) -> str:
        return f"{self.stack}, {self.output_tokens} tokens out, concurrency {self.concurrency}"

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the tables of `kit.explain`, a row a list entry."""
        tables = {"parts": parts_table(self.explanations), "predictions": predictions_table(self.explanations)}
        plain = {name: table.astype(object).where(table.notna(), None).to_dict("records")
                 for name, table in tables.items()}
        return {"stack": self.stack, "output_tokens": self.output_tokens, "concurrency": self.concurrency,
                "link_use": self.link_use, "cautions": self.cautions, "timed_ms": self.timed_ms,
                "clocks": {tokens: {node: asdict(told) for node, told in nodes.items()}
                           for tokens, nodes in self.clocks.items()},
                "differs": self.differs, **plain}

    def lines(self) -> list[str]:
        """For a person."""
        found = [self.name, *(f"  {line}" for each in self.explanations for line in each.lines())]
        found += [f"  used {share:.2%} of the {name} (all bytes over the wall time)"
                  for name, share in self.link_use.items()]
        return found + [f"  {line}" for line in self.notes()]

    def notes(self) -> list[str]:
        """What the longest prompt's numbers mean, what the engines say, and what speaks against them."""
        longest = self.explanations[-1]
        own = self.timed_ms.get(longest.prompt_tokens)
        found = [_meaning(source, told.value, longest, own) for source, told in longest.predicted_ms.items()]
        found += [f"{tokens} tokens, {_clocked(nodes)}" for tokens, nodes in self.clocks.items()]
        if not longest.separable:
            found.append("nothing ran at concurrency 1: the hand-over holds the wait in the queue as well")
        found += [f"careful with the {name}: {why}" for name, why in self.cautions.items() if why]
        return found + ([self.differs] if self.differs else [])


def accounts(run: Run, baseline: Run, lines: Lines | Callable[[float | None], Lines]) -> list[Account]:
    """Every valid stack of the run that hands over, under every closed-loop load that the baseline has too.

    ``lines``: name of the prediction -> operation -> line, or what gives them for the size of a stack's pieces. Raises
    StoreError for a run that is none of serving, ParamsError where nothing can be compared.
    """
    from kit.serving.stacks import read_stack

    points, requests = run.points, _requests(run)
    found, bases = [], _requests(baseline)
    plain = [one for one in map(read_stack, bases["stack"].unique()) if one.kind == "aggregated"]
    for name in requests["stack"].unique():
        stack = read_stack(str(name))
        if stack.first_token is None or not plain:
            continue
        beside = _beside(stack, plain)
        base = bases[bases["stack"] == beside.name]
        mine = requests[requests["stack"] == name]
        own = points[(points["stack"] == name) & (points["outcome"] == "VALID")]
        known = lines(_piece_bytes(own)) if callable(lines) else lines
        predicted = {told: line for told, each in known.items() if (line := _way(each, stack.kind)) is not None}
        for (output, concurrency), rows in mine.groupby(list(_LOAD), observed=True):
            others = base[(base["output_tokens"] == output) & (base["concurrency"] == concurrency)]
            if others.empty:
                continue
            quiet, quiet_base = ({"quiet": _served(str(name), part)} if concurrency > 1 and len(part) else {}
                                 for part in (_at_rest(mine, output), _at_rest(base, output)))
            explained = explain(_served(str(name), rows), _served("baseline", others), first_from=stack.first_token,
                                size_of=_sizes(own), predicted=predicted, quiet=quiet.get("quiet"),
                                quiet_baseline=quiet_base.get("quiet"))
            load = own[(own["output_tokens"] == output) & (own["concurrency"] == concurrency)]
            moved, wall_s = float(load["kv_expected_bytes"].sum()), float(load["duration_s"].sum())
            found.append(Account(str(name), int(output), int(concurrency), explained,
                                 {told: link_use(moved, wall_s, line) for told, line in predicted.items()},
                                 {told: line.caution(explained[-1].size_bytes) for told, line in predicted.items()},
                                 {told: line.gbps.value for told, line in predicted.items()},
                                 _timed(own[own["output_tokens"] == output], explained),
                                 _clocks(run, load, explained) if concurrency == 1 else {},
                                 _differs(stack, beside)))
    if not found:
        raise ParamsError("no valid stack that hands over has an aggregated baseline under the same load",
                          remedy="run stage 06 with an aggregated stack and the same lengths and concurrency")
    return found


def _piece_bytes(points: pd.DataFrame) -> float | None:
    """What the stack's connector cuts a hand-over into; None where it does not say."""
    if "piece_bytes" not in points or points["piece_bytes"].isna().all():
        return None
    return float(points["piece_bytes"].median())


def _timed(points: pd.DataFrame, explained: list[Explanation]) -> dict[int, float]:
    """Prompt length -> the median of what the connector says at concurrency 1, as the hand-over is that load's."""
    if "transfer_ms" not in points:
        return {}
    told = points[(points["concurrency"] == 1) & points["transfer_ms"].notna()]
    near = {each.prompt_tokens: told[(told["input_tokens"] / each.prompt_tokens - 1).abs() < _NEAR]["transfer_ms"]
            for each in explained}
    return {tokens: float(values.median()) for tokens, values in near.items() if len(values)}


def _clocks(run: Run, points: pd.DataFrame, explained: list[Explanation]) -> dict[int, dict[str, Clock]]:
    """Prompt length -> engine -> its clock in these points, the median over the repeats."""
    import pandas as pd

    from kit.serving.bench import points as all_points

    if not (run.folder / "samples").is_dir():
        return {}
    try:
        params = ServeBenchParams.model_validate(run.lock["stages"][0]["params"])
    except ValueError:      # of another version of the kit: its files have other names as well
        return {}
    valid = {tuple(row) for row in points[[*_CLOCKED]].itertuples(index=False)}
    found: dict[int, dict[str, list[Clock]]] = {each.prompt_tokens: {} for each in explained}
    for point in all_points(params):
        path = run.folder / "samples" / f"{point.key(params)}.parquet"
        if tuple(getattr(point, name) for name in _CLOCKED) not in valid or not path.exists():
            continue
        samples = pd.read_parquet(path)
        told = {node: each for node in _ENGINES if (each := clock(samples, node)) is not None}
        for tokens, nodes in found.items():
            if abs(point.input_tokens / tokens - 1) < _NEAR:
                for node, each in told.items():
                    nodes.setdefault(node, []).append(each)
    return {tokens: {node: _median(nodes[node]) for node in _ENGINES} for tokens, nodes in found.items()
            if set(nodes) == set(_ENGINES)}


def _median(clocks: list[Clock]) -> Clock:
    return Clock(*(median(values) for values in zip(*map(astuple, clocks), strict=True)))


def _clocked(nodes: dict[str, Clock]) -> str:
    """Both engines' clocks, in a sentence."""
    each = []
    for node, told in nodes.items():
        waits = f"{short(told.waits_ms)} waiting, " if told.waits_ms >= _SHOWN_MS else ""
        each.append(f"{node} {short(told.ttft_ms)} ms ({waits}{short(told.computes_ms)} computing)")
    return f"by vLLM's own clocks at concurrency 1 (means): {', '.join(each)}"


def _beside(stack: Stack, plain: list[Stack]) -> Stack:
    """The aggregated stack to hold a stack against: one of the same vLLM where there is one."""
    return next((one for one in plain if one.versions["vllm"] == stack.versions["vllm"]), plain[0])


def _differs(stack: Stack, beside: Stack) -> str:
    """What a baseline of another version leaves in the numbers."""
    mine, other = stack.versions["vllm"], beside.versions["vllm"]
    if mine == other:
        return ""
    where = {"decoder": "hand-over", "prefiller": "queueing"}[str(stack.first_token)]
    return (f"{beside.name} is vLLM {other}, {stack.name} vLLM {mine}: the {where} holds the difference of the two "
            f"engines as well")


def _meaning(source: str, told_ms: float, each: Explanation, own_ms: float | None) -> str:
    """Predicted beside measured, in a sentence; ``own_ms``: what the connector itself timed."""
    measured, rest = each.handover_ms, each.residual_ms[source]
    low = measured.value if measured.low is None else measured.low
    high = measured.value if measured.high is None else measured.high
    if low <= 0:
        return (f"no hand-over can be told from the noise ({measured.text()} ms); the {source} predicts "
                f"{short(told_ms)} ms")
    share = f"the {source} explains {percent(told_ms / measured.value)} of the hand-over"
    if low <= told_ms <= high:
        return f"{share}: all of it, within what the requests differ"
    if told_ms > high:
        return f"{share}: more than there is, so the hand-over does not go the way that was swept"
    if own_ms is None:
        return f"{share}; the other {short(rest.value)} ms are the connector's, the proxy's, or a wait to be run"
    own = f"{share}; the connector itself timed {short(own_ms)} ms (a mean)"
    times = f"{short(own_ms / told_ms, 2)} times the prediction"
    if own_ms >= measured.value:
        return f"{own}: all of it, {times}"
    return (f"{own}: {percent(own_ms / measured.value)} of it, {times}; the other {short(measured.value - own_ms)} ms "
            "are the proxy's, the decoder's front end's, or a wait to be run")


def write_figures(found: list[Account], folder: Path, *, note: str) -> list[Path]:
    """Both figures of every account, as PNG files in ``folder``."""
    from kit import explain_plots

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for account in found:
        said = f"{account.name}\n{note}" if note else account.name
        for kind, figure in (("attribution", explain_plots.attribution(account.explanations, note=said)),
                             ("break-even", explain_plots.break_even(account.explanations, links=account.rates_gbps,
                                                                     note=said))):
            path = folder / f"{kind}-{account.stack}-{account.output_tokens}-c{account.concurrency}.png"
            figure.savefig(path)
            written.append(path)
    return written


def _requests(run: Run) -> pd.DataFrame:
    """The requests of the run's valid closed-loop points that have every time."""
    import pandas as pd

    path = run.folder / "requests.parquet"
    if not path.exists():
        raise StoreError(f"{run.folder} holds no requests.parquet",
                         remedy="name the folder of a finished 06_serve_bench")
    frame = pd.read_parquet(path)
    good = frame[(frame["outcome"] == "VALID") & frame["ok"].fillna(value=False) & frame["concurrency"].notna()]
    whole: pd.DataFrame = good.dropna(subset=list(COLUMNS))
    return whole


def _served(name: str, rows: pd.DataFrame) -> Served:
    return Served(name, rows, int(rows["concurrency"].iloc[0]))


def _at_rest(rows: pd.DataFrame, output: Any) -> pd.DataFrame:
    found: pd.DataFrame = rows[(rows["output_tokens"] == output) & (rows["concurrency"] == 1)]
    return found


def _sizes(points: pd.DataFrame) -> Callable[[int], int]:
    """Prompt length -> bytes that had to move, as the validity gate counted them for that length."""
    known = {int(tokens): float(moved) / int(completed) for tokens, moved, completed in _counted(points)}

    def size_of(tokens: int) -> int:
        if not known:
            raise ParamsError("the run does not say how many KV bytes had to move", remedy="run stage 06 again")
        nearest = min(known, key=lambda length: abs(length - tokens))
        return round(known[nearest] * tokens / nearest)

    return size_of


def _counted(points: pd.DataFrame) -> Iterator[tuple[Any, Any, Any]]:
    valid = points[(points["kv_expected_bytes"] > 0) & (points["completed"] > 0)]
    yield from zip(valid["input_tokens"], valid["kv_expected_bytes"], valid["completed"], strict=True)


def _way(lines: dict[str, LinkModel], kind: str) -> LinkModel | None:
    """The line for a stack's kind. A direct one writes. A store's master puts each object into either instance's
    segment: half of the bytes are written across, the other half read, and each half stays at home the other time."""
    line = lines.get("link") or lines.get("write")
    if kind == "direct" or line is None:
        return line
    read = lines.get("link") or lines.get("read")
    return line if read is None else linkmodel.in_turn(linkmodel.of_share(line, 0.5), linkmodel.of_share(read, 0.5))

"""The driver stage as the notebook walks through it: look, plan, bring about, look again, and ask the doctor."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from kit.files import write_json
from kit.params import SetupParams, check
from kit.prepare.doctor import examine
from kit.prepare.doctor import shown as findings_shown
from kit.prepare.engine import Done, Planned
from kit.prepare.facts import Facts, read_facts
from kit.prepare.finding import Finding
from kit.prepare.site import Preparation, question, read_wanted, shown
from kit.sites import open_site, read_site
from kit.stage import open_folder, run_id_of, write_verdict
from kit.store import Run

if TYPE_CHECKING:
    import pandas as pd

STAGE = "01_driver_setup"


@dataclass(frozen=True)
class Verdict:
    """VALID: both nodes are as the preparation wants them, and nothing stops the device stage."""

    outcome: str
    reason: str
    expected: bool

    def __str__(self) -> str:
        return f"{self.outcome}: {self.reason}"


@dataclass
class Setup:
    """One preparation of a site; ``apply`` False only plans."""

    preparation: Preparation
    run: Run
    apply: bool
    done: list[Done] = field(default_factory=list)
    found: list[Finding] = field(default_factory=list)

    def look(self) -> pd.DataFrame:
        """What both nodes are now. Raises HostError."""
        import pandas as pd

        wanted = self.preparation.wanted
        facts = self.preparation.pair.both(lambda end: read_facts(end.host, question(end.address, wanted)))
        return pd.DataFrame({name: _described(each) for name, each in facts.items()})

    def plan(self) -> str:
        """Every missing step of both nodes with its command; what stands in the way comes first."""
        return shown(self.preparation.plan())

    def bring(self) -> pd.DataFrame:
        """Apply the preparation, or with ``apply`` False only say what is missing: one row an item."""
        import pandas as pd

        rows = self.preparation.plan()
        if self.apply and not any(row.plan.refused for row in rows):
            self.done = self.preparation.apply(lambda _: None)
        else:
            self.done = [_as_it_stands(row) for row in rows]
        cells: dict[str, dict[str, str]] = {}
        for row in self.done:
            cells.setdefault(row.node, {})[row.item] = row.outcome
        return pd.DataFrame(cells)

    def reasons(self) -> str:
        """Why something failed or was not tried; one line each."""
        return "\n".join(f"{row.node}: {row.item}: {row.why}" for row in self.done if row.why) or "nothing failed"

    def doctor(self) -> str:
        """What would stop or spoil which later stage, worst first, each with its remedy."""
        self.found = examine(self.preparation.pair, self.preparation.name)
        return findings_shown(self.found)

    def verdict(self) -> Verdict:
        """Judged by the last application and by what the doctor found."""
        bad = [row for row in self.done if row.outcome != "unchanged"]
        stopped = [it for it in self.found if it.weight == "stops" and it.stage < "03"]
        if bad:
            verdict = Verdict("FAILED", f"{len(bad)} items are not as wanted: {bad[0].node}: {bad[0].item}: "
                              f"{bad[0].outcome}{': ' if bad[0].why else ''}{bad[0].why}", False)
        elif stopped:
            verdict = Verdict("FAILED", f"{stopped[0].stage} cannot run: {stopped[0].what}", False)
        else:
            verdict = Verdict("VALID", "both nodes are as wanted; applied again, nothing changes", True)
        write_verdict(self.run, STAGE, self.preparation.pair.site, asdict(verdict))
        write_json(self.run.folder / "preparation.json", [asdict(row) for row in self.done])
        return verdict

    def close(self) -> None:
        self.preparation.close()


def open_setup(site: str, run_folder: str = "", **parameters: Any) -> Setup:
    """Check the parameters, open the site, make the run's folder. Raises ParamsError."""
    params = check(SetupParams, parameters, where=STAGE)
    name = params.preparation or read_site(site).name
    wanted = read_wanted(name)
    folder = open_folder(STAGE, site, params, run_folder)
    pair = open_site(site, run_id=run_id_of(folder), record=folder.record)
    return Setup(Preparation(pair, wanted, name), folder.run, params.apply)


def _as_it_stands(row: Planned) -> Done:
    plan = row.plan
    if plan.refused is not None:
        return Done(row.node, row.item.name, "failed", plan.refused.why)
    missing = "; ".join(step.what for step in plan.steps) or plan.waits or plan.reboot
    return Done(row.node, row.item.name, "not tried" if missing else "unchanged", missing)


def _described(facts: Facts) -> dict[str, str]:
    limit = "unlimited" if facts.memlock_bytes is None else f"{facts.memlock_bytes // 1024} KiB"
    mode = {"Y": "compat", "N": "standard"}.get(facts.params.get("compat_mode", ""), "-")
    return {"system": f"{facts.os_id} {facts.os_version}".strip(), "kernel": facts.kernel, "rights": facts.rights,
            "erdma on disk": facts.modinfo_version or ("yes" if facts.modinfo else "no"),
            "erdma loaded": "yes" if facts.loaded else "no", "mode": mode,
            "devices": ", ".join(f"{name} ({kind})" for name, kind in facts.devices.items()) or "none",
            "held by": ", ".join(user.name for user in facts.users) or "nobody", "locked memory": limit,
            "interface": f"{facts.netdev or 'none'}, {', '.join(facts.ipv4) or 'no IPv4'}",
            "MTU": str(facts.mtu_bytes or "-"), "GPUs": str(facts.gpus)}

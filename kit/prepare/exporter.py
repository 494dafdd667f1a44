"""erdma-exporter: the device's counters for Prometheus, as a systemd unit or a container, scraped once as the proof.

Source: shaowenchen/erdma-exporter (flags, port, labels). Every scrape runs `eadm`, so it needs the vendor's user space.
"""

from __future__ import annotations

from kit.params import ExporterWanted
from kit.prepare.container import container_steps, no_device, removal
from kit.prepare.facts import Facts
from kit.prepare.item import Item, Plan, Step, Wanted, refuse, remove_file, shell, write_file

UNIT = "erdma-exporter.service"
PATH = f"/etc/systemd/system/{UNIT}"
CONTAINER = "erdma-exporter"
_START = 'systemctl daemon-reload && systemctl enable -q -- "$1" && systemctl restart -- "$1"'
_STOP = 'systemctl disable -q --now -- "$1"'
# $1 port. It is proven by a metric that only a device brings.
SCRAPE = r"""
read -r up _ </proc/uptime; until=$((${up%.*} + 20))
while :; do
    page=$(curl --fail --silent --max-time 5 "http://127.0.0.1:$1/metrics" || wget -q -T 5 -O - "http://127.0.0.1:$1/metrics")
    case $page in *erdma_device_info*) exit 0 ;; esac
    read -r up _ </proc/uptime
    [ "${up%.*}" -ge "$until" ] && break
    sleep 0.3
done
echo "error: nothing of an eRDMA device on port $1 after 20 s; eadm must work on this node" >&2
exit 1
"""


def plan(facts: Facts, wanted: Wanted) -> Plan:
    """The exporter running as wanted; a changed one is scraped once."""
    want = _want(wanted)
    steps = _container(facts, want, wanted) if want.kind == "container" else _unit(facts, want)
    if isinstance(steps, Plan):
        return steps
    if not steps and want.port not in facts.listening:
        return refuse(f"the exporter runs, but nothing listens on port {want.port}",
                      "see its log: journalctl -u erdma-exporter")
    proof = (shell("scrape it once", SCRAPE, want.port, deadline_s=40),) if steps else ()
    return Plan((*steps, *proof))


def undo(facts: Facts, wanted: Wanted) -> Plan:
    """Stopped and removed."""
    if CONTAINER in facts.containers:
        return Plan((removal(facts.containers[CONTAINER].runtime, CONTAINER),))
    return Plan((shell(f"stop {UNIT}", _STOP, UNIT), remove_file(PATH)) if PATH in facts.files else ())


def unit_text(want: ExporterWanted) -> str:
    """The unit's content."""
    return ("# Written whole by erdma-kit; changes to it are lost.\n"
            "[Unit]\nDescription=eRDMA counters for Prometheus\nAfter=network-online.target\n\n"
            f"[Service]\nEnvironment=NODE_NAME=%H\nExecStart={want.binary} -web.listen-address=:{want.port}\n"
            "Restart=on-failure\nRestartSec=5\n\n[Install]\nWantedBy=multi-user.target\n")


def _unit(facts: Facts, want: ExporterWanted) -> tuple[Step, ...] | Plan:
    if not facts.systemd:
        return refuse("the node has no systemd to keep the exporter running", "use `kind: container`")
    if want.binary not in facts.executables:
        return refuse(f"there is no program {want.binary}", "build or copy erdma-exporter there, or `kind: container`")
    if facts.text(PATH) == unit_text(want) and facts.units.get(UNIT) == ("enabled", "active"):
        return ()
    return (write_file(PATH, unit_text(want)), shell(f"start {UNIT}", _START, UNIT))


def _container(facts: Facts, want: ExporterWanted, wanted: Wanted) -> tuple[Step, ...] | Plan:
    if want.runtime not in facts.tools:
        return refuse(f"{want.runtime} is not installed", f"install {want.runtime}, or `kind: unit`")
    if not facts.dev_files:
        return no_device(wanted)
    devices = tuple(word for path in facts.dev_files for word in ("--device", path))
    # eadm talks to the driver by netlink in the host's network namespace
    options = (*devices, "--network", "host", "--cap-add", "NET_ADMIN", "--restart", "unless-stopped")
    return container_steps(facts, want.runtime, CONTAINER, str(want.image), options,
                           (f"-web.listen-address=:{want.port}",))


def _want(wanted: Wanted) -> ExporterWanted:
    assert wanted.prepare.exporter is not None, "only asked for what is wanted"  # noqa: S101
    return wanted.prepare.exporter


ITEM = Item("exporter", "exporter", plan, undo, after=("user space", "mode"))

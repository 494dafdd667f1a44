"""The driver's mode: a modprobe.d file of our own, the module reloaded only while nobody uses it, the mode read back.

Sources: elastic-rdma-drivers (erdma_main.c, erdma_compat.c: parameters and the 16 ports), modprobe.d(5).
"""

from __future__ import annotations

from kit.prepare.facts import Facts
from kit.prepare.item import Item, Plan, Refusal, Step, Wanted, refuse, remove_file, shell, write_file

# Last of all by its name: of an option given twice the kernel takes the later one.
PATH = "/etc/modprobe.d/zz-erdma-kit.conf"
PORTS = 16
_FALSE, _TRUE = ("N", "0"), ("Y", "1")
_TRANSPORT = {"standard": "iWARP", "compat": "InfiniBand"}

LOAD = "modprobe erdma"
# $1 the wanted value of compat_mode. The module says itself which mode it is in.
RELOAD = r"""
modprobe -r erdma && modprobe erdma || exit 1
read -r now </sys/module/erdma/parameters/compat_mode
[ "$now" = "$1" ] || { echo "compat_mode is $now after the reload, expected $1" >&2; exit 1; }
"""
INITRAMFS = r"""
if command -v update-initramfs >/dev/null 2>&1; then exec update-initramfs -u -k "$1"; fi
exec dracut --force --kver "$1"
"""


def plan(facts: Facts, wanted: Wanted) -> Plan:
    """The mode as wanted, now and after the next boot."""
    mode = wanted.prepare.mode
    assert mode is not None, "only asked for what is wanted"  # noqa: S101
    if facts.in_container:
        return refuse("the mode belongs to the host's kernel, and this node is a container",
                      "prepare the host that the container runs on")
    if not facts.modinfo and not facts.loaded and wanted.prepare.driver is None:
        return refuse(f"there is no erdma module for kernel {facts.kernel}",
                      "add `driver:` to the preparation, or install the driver")
    steps = _files(facts, _options(wanted))
    value = "Y" if mode.mode == "compat" else "N"
    if not facts.loaded:
        blocked = _ports_taken(facts, wanted)
        return Plan((*steps, shell("load erdma", LOAD, deadline_s=120)), refused=blocked)
    if _loaded_as_wanted(facts, wanted):
        return Plan(steps, refused=_contradiction(facts, mode.mode))
    blocked = in_use(facts) or _ports_taken(facts, wanted)
    return Plan((*steps, shell(f"reload erdma in {mode.mode} mode", RELOAD, value, deadline_s=120)), refused=blocked)


def undo(facts: Facts, wanted: Wanted) -> Plan:
    """Back to the driver's own default at its next load; the loaded module stays as it is."""
    if PATH not in facts.files:
        return Plan()
    return Plan((remove_file(PATH), *_initramfs(facts)))


def in_use(facts: Facts) -> Refusal | None:
    """Why the module must not be unloaded, with whoever uses it."""
    users = [f"{user.name} (pid {user.pid})" for user in facts.users] + [f"module {name}" for name in facts.used_by]
    if not users and facts.refcount == 0:
        return None
    named = ", ".join(users) or f"{facts.refcount} references that no process owns"
    return Refusal(f"erdma is in use and a reload would break its users: {named}",
                   "end them (kit clean SITE ends what the kit started), then apply again")


def _options(wanted: Wanted) -> str:
    mode = wanted.prepare.mode
    assert mode is not None, "only asked for what is wanted"  # noqa: S101
    value = "Y" if mode.mode == "compat" else "N"
    base = "" if mode.ports_base == 30608 else f" reserve_ports_base={mode.ports_base}"
    return f"# Written whole by erdma-kit; changes to it are lost.\noptions erdma compat_mode={value}{base}\n"


def _files(facts: Facts, text: str) -> tuple[Step, ...]:
    """The file, and the initramfs when it is older than the file: also where an earlier run was killed between."""
    if facts.text(PATH) != text:
        return (write_file(PATH, text), *_initramfs(facts))
    stale = facts.initramfs_s is not None and facts.initramfs_s < facts.modprobe_file_s
    return _initramfs(facts) if stale else ()


def _initramfs(facts: Facts) -> tuple[Step, ...]:
    if facts.initramfs_s is None or not facts.tools & {"update-initramfs", "dracut"}:
        return ()
    return (shell("put it into the initramfs", INITRAMFS, facts.kernel, deadline_s=600),)


def _loaded_as_wanted(facts: Facts, wanted: Wanted) -> bool:
    mode = wanted.prepare.mode
    assert mode is not None, "only asked for what is wanted"  # noqa: S101
    if facts.params.get("compat_mode", "") not in (_TRUE if mode.mode == "compat" else _FALSE):
        return False
    base = facts.params.get("reserve_ports_base", str(mode.ports_base))
    return mode.mode == "standard" or base == str(mode.ports_base)


def _ports_taken(facts: Facts, wanted: Wanted) -> Refusal | None:
    """In compat mode the driver binds 16 TCP ports in the kernel; one that is taken makes the load fail."""
    mode = wanted.prepare.mode
    assert mode is not None, "only asked for what is wanted"  # noqa: S101
    if mode.mode == "standard":
        return None
    own = set()
    if facts.params.get("compat_mode") in _TRUE:
        base = int(facts.params.get("reserve_ports_base", "30608"))
        own = set(range(base, base + PORTS))
    taken = sorted(facts.listening & set(range(mode.ports_base, mode.ports_base + PORTS)) - own)
    if not taken:
        return None
    last = mode.ports_base + PORTS - 1
    return Refusal(f"compat mode needs TCP ports {mode.ports_base}-{last}, and something listens on "
                   + ", ".join(map(str, taken)),
                   "move that service (ss -ltnp tells which), or choose another ports_base")


def _contradiction(facts: Facts, mode: str) -> Refusal | None:
    """The device must show the mode as well: its node type is what user space sees."""
    wrong = [f"{name} is {kind}" for name, kind in facts.devices.items()
             if name.startswith("erdma") and kind != _TRANSPORT[mode]]
    if not wrong:
        return None
    return Refusal(f"the module says {mode} mode, but {', '.join(wrong)}",
                   "reload the module (modprobe -r erdma; modprobe erdma), and see dmesg")


ITEM = Item("mode", "mode", plan, undo, after=("driver",))

"""What a device is and what its numbers mean: family, eRDMA mode, and the notes that keep a reader from wrong ends.

Pure: judges parsed facts. Sources: rdma-core's devinfo.c, Alibaba's elastic-rdma-drivers (erdma_verbs.c), Linux'
siw and rxe.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from kit.parse.ibv import IbvDevice

Mode = Literal["standard", "compat", "not eRDMA"]
Family = Literal["erdma", "siw", "rxe", "mlx5", "other"]

_ALIBABA, _SIW, _RXE, _MELLANOX = 0x1DED, 0x626D74, 0xFFFFFF, (0x02C9, 0x15B3)
_IWARP = 1
# entries of the GID table that the eRDMA driver announces in each mode
_GID_TABLE: dict[int | None, Mode] = {1: "standard", 16: "compat"}
_COMPAT_MODE: dict[str, Mode] = {"N": "standard", "Y": "compat", "0": "standard", "1": "compat"}
_GIB = 2**30
_NO_LIMIT = 2**64 - 1  # what siw and rxe announce as the largest memory region

SPEED_NOTE = ("active_speed is a constant of the eRDMA driver (4X EDR), not the link's speed: "
              "the instance type's bandwidth is the real limit")
JUMBO_NOTE = "active_mtu 1024 means that jumbo frames are off on the network interface (MTU 1500)"
SOFT_NOTE = "software device: its numbers say nothing about hardware"
CM_NOTE = "iWARP: connections need RDMA_CM (-R of perftest)"


@dataclass(frozen=True)
class DeviceSummary:
    """One device for a reader. Sizes in the units of the names; None where the node did not tell or has no limit."""

    name: str
    family: Family
    mode: Mode
    state: str
    rc_only: bool
    needs_rdma_cm: bool
    max_mr_size_gib: float | None
    active_mtu_bytes: int | None
    netdev_mtu_bytes: int | None
    gid_count: int
    srq: bool
    notes: tuple[str, ...] = ()

    @property
    def qp_types(self) -> str:
        """Which queue pairs can be made: eRDMA and siw refuse all but RC as long as they are iWARP."""
        return "RC only" if self.rc_only else "RC and others"


def family(device: IbvDevice) -> Family:
    """The driver behind a device, by vendor id, else by transport and name."""
    if device.vendor_id == _ALIBABA or device.transport == "eRDMA" or device.hca_id.startswith("erdma"):
        return "erdma"
    if device.vendor_id == _SIW or device.hca_id.startswith("siw"):
        return "siw"
    if device.vendor_id == _RXE or device.hca_id.startswith("rxe"):
        return "rxe"
    if device.vendor_id in _MELLANOX or device.hca_id.startswith("mlx5"):
        return "mlx5"
    return "other"


def mode(device: IbvDevice, module_params: Mapping[str, str] | None = None) -> Mode:
    """The eRDMA mode. The transport's code decides, as the device itself announces it.

    Standard is iWARP (1), printed ``eRDMA (1)`` by Alibaba's libibverbs and ``iWARP (1)`` by the stock one in a
    container; compat is ``InfiniBand (0)``. The GID table and the driver's parameter decide only when no code is there.
    """
    if family(device) != "erdma":
        return "not eRDMA"
    return next(iter(_mode_evidence(device, module_params or {}).values()), "standard")


def _mode_evidence(device: IbvDevice, module_params: Mapping[str, str]) -> dict[str, Mode]:
    """What each source says of the mode, the most trusted first; sources that say nothing are left out."""
    found: dict[str, Mode] = {}
    if device.transport_code in (0, _IWARP):
        found[f"transport {device.transport} ({device.transport_code})"] = (
            "standard" if device.transport_code == _IWARP else "compat")
    table = device.ports[0].gid_tbl_len if device.ports else None
    if table in _GID_TABLE:
        found[f"gid_tbl_len {table}"] = _GID_TABLE[table]
    parameter = module_params.get("compat_mode", "").strip()
    if parameter in _COMPAT_MODE:
        found[f"compat_mode {parameter}"] = _COMPAT_MODE[parameter]
    return found


def _notes(device: IbvDevice, kind: Family, module_params: Mapping[str, str]) -> list[str]:
    notes = []
    if kind in ("siw", "rxe"):
        notes.append(SOFT_NOTE)
    if device.transport_code == _IWARP:
        notes.append(CM_NOTE)
    mtu = device.ports[0].active_mtu_bytes if device.ports else None
    # siw announces 1024 whatever the interface has, so there it tells nothing
    if mtu == 1024 and kind != "siw":
        notes.append(JUMBO_NOTE)
    if kind == "erdma":
        notes.append(SPEED_NOTE)
        evidence = _mode_evidence(device, module_params)
        if len(set(evidence.values())) > 1:
            notes.append("contradiction on the mode: "
                         + ", ".join(f"{source} says {says}" for source, says in evidence.items()))
    return notes


def describe(device: IbvDevice, *, module_params: Mapping[str, str] | None = None, gid_count: int | None = None,
             netdev_mtu_bytes: int | None = None) -> DeviceSummary:
    """Sum a device up. ``gid_count`` is of entries in use, from sysfs; without it those that ibv_devinfo printed."""
    params = module_params or {}
    kind = family(device)
    port = device.ports[0] if device.ports else None
    return DeviceSummary(
        name=device.hca_id, family=kind, mode=mode(device, params), state=port.state if port else "",
        rc_only=device.transport_code == _IWARP, needs_rdma_cm=device.transport_code == _IWARP,
        max_mr_size_gib=None if device.max_mr_size_bytes in (None, _NO_LIMIT) else device.max_mr_size_bytes / _GIB,
        active_mtu_bytes=port.active_mtu_bytes if port else None, netdev_mtu_bytes=netdev_mtu_bytes,
        gid_count=len(port.gids) if gid_count is None and port else gid_count or 0,
        srq=bool(device.max_srq), notes=tuple(_notes(device, kind, params)))


def compare_pair(a: DeviceSummary, b: DeviceSummary) -> list[str]:
    """Warnings about two ends of one link: what makes them fail to connect or be slower than they look."""
    warnings = []
    if a.active_mtu_bytes != b.active_mtu_bytes:
        warnings.append(f"different active MTU: {a.name} {a.active_mtu_bytes}, {b.name} {b.active_mtu_bytes} bytes; "
                        "the smaller one is used, and jumbo frames are likely on at one end only")
    if a.netdev_mtu_bytes != b.netdev_mtu_bytes:
        warnings.append(f"different MTU of the network interface: {a.name} {a.netdev_mtu_bytes}, "
                        f"{b.name} {b.netdev_mtu_bytes} bytes; large messages may stall")
    if a.mode != b.mode:
        warnings.append(f"different mode: {a.name} is {a.mode}, {b.name} is {b.mode}; they do not connect")
    elif a.needs_rdma_cm != b.needs_rdma_cm:
        warnings.append(f"different transport: only {a.name if a.needs_rdma_cm else b.name} is iWARP; "
                        "they do not connect")
    if a.family != b.family:
        warnings.append(f"different drivers: {a.name} is {a.family}, {b.name} is {b.family}")
    return warnings

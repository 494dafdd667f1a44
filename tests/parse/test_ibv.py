"""The readers of ibv_devices and ibv_devinfo, against real output."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.errors import ParseError
from kit.parse.ibv import Gid, IbvDevice, parse_ibv_devices, parse_ibv_devinfo

DATA = Path(__file__).parent.parent / "data"
INFO = {path.name: path.read_text() for path in sorted((DATA / "ibv_devinfo").iterdir())}
LIST = {path.name: path.read_text() for path in sorted((DATA / "ibv_devices").iterdir())}
SEED = INFO["erdma_standard_v.txt"]


def words(device: IbvDevice) -> str:
    """Everything that a parsed device holds, as text to look things up in."""
    return json.dumps(asdict(device))


def test_seed_device_has_its_typed_values() -> None:
    [device] = parse_ibv_devinfo(SEED)
    assert (device.hca_id, device.transport, device.transport_code) == ("erdma_0", "eRDMA", 1)
    assert (device.vendor_id, device.vendor_part_id) == (0x1DED, 0x107F)
    assert (device.fw_ver, device.node_guid) == ("0.2.0", "0216:3eff:fe52:33a9")
    assert device.max_mr_size_bytes == 64 * 2**30
    assert (device.max_qp, device.max_qp_wr, device.max_sge, device.max_srq) == (15359, 8192, 1, 0)
    assert (device.max_cq, device.max_mr, device.max_qp_rd_atom) == (30719, 30720, 128)
    [port] = device.ports
    assert (port.state, port.state_code, port.link_layer) == ("PORT_ACTIVE", 4, "Ethernet")
    assert (port.max_mtu_bytes, port.active_mtu_bytes, port.gid_tbl_len) == (4096, 4096, 1)
    assert (port.active_width, port.active_speed_gbps_per_lane) == ("4X", 25.0)


@pytest.mark.parametrize("name", [name for name in INFO if name.endswith(("_v.txt", "_mtu9000.txt"))])
def test_every_line_is_kept(name: str) -> None:
    devices = parse_ibv_devinfo(INFO[name])
    text = " ".join(words(device) for device in devices)
    kept = 0
    for line in filter(str.strip, INFO[name].split("\n")):
        key, _, value = (part.strip() for part in line.partition(":"))
        if key in ("hca_id", "port") or key.startswith("GID["):
            assert value.split(",")[0] in text
        elif line.strip().endswith(" not supported"):
            assert line.strip().removesuffix(" not supported") in text
        else:
            assert key.lower() in text.lower() or key == "Unknown flags"
        kept += 1
    typed = sum(value is not None and field not in ("ports", "attributes", "transport_code")
                for device in devices for field, value in asdict(device).items())
    ports = [port for device in devices for port in device.ports]
    of_ports = sum(value is not None and field not in ("gids", "attributes", "state_code")
                   for port in ports for field, value in asdict(port).items())
    gids = sum(len(port.gids) for port in ports)
    rest = sum(value.count(", ") + 1 for holder in (*devices, *ports) for value in holder.attributes.values())
    assert typed + of_ports + gids + rest == kept


def test_flags_sections_and_bare_lines() -> None:
    [device] = parse_ibv_devinfo(SEED)
    extra = device.attributes
    assert extra["device_cap_flags.flags"] == "MEM_MGT_EXTENSIONS, Unknown flags: 0x8000"
    assert extra["rc_odp_caps.flags"] == "NO SUPPORT"
    assert extra["tso_caps.max_tso"] == "0"
    assert extra["max_wq_type_rq"] == "0"
    assert extra["packet_pacing_caps.qp_rate_limit_min"] == "0kbps"
    assert extra["core clock"] == extra["tag matching"] == extra["completion_timestamp_mask"] == "not supported"


def test_several_devices_and_their_gids() -> None:
    siw, rxe = parse_ibv_devinfo(INFO["siw_rxe_v.txt"])
    assert (siw.hca_id, siw.transport, siw.ports[0].gids) == ("siw0", "iWARP", ())
    assert (rxe.hca_id, rxe.transport, rxe.ports[0].phys_state) == ("rxe0", "InfiniBand", "LINK_UP")
    assert rxe.ports[0].gids == (Gid(0, "fe80::5054:ff:fe77:1", "RoCE v2"), Gid(1, "::ffff:10.77.0.1", "RoCE v2"))


def test_without_v_and_with_l() -> None:
    [rxe] = parse_ibv_devinfo(INFO["rxe.txt"])
    assert (rxe.max_qp, rxe.ports[0].active_mtu_bytes, rxe.ports[0].gid_tbl_len) == (None, 1024, None)
    assert [device.hca_id for device in parse_ibv_devinfo(INFO["list.txt"])] == ["siw0", "rxe0"]
    assert {device.ports[0].state for device in parse_ibv_devinfo(INFO["port_down.txt"])} == {"PORT_DOWN"}


@pytest.mark.parametrize("indented", [re.sub(r"(?m)^ +", "", SEED), re.sub(r"(?m)^( {8})+", "\t", SEED)])
def test_indentation_may_be_lost(indented: str) -> None:
    [device] = parse_ibv_devinfo(indented)
    [seed] = parse_ibv_devinfo(SEED)
    assert {**asdict(device), "attributes": {}} == {**asdict(seed), "attributes": {}}


@pytest.mark.parametrize(("name", "symptom"), [
    ("err_no_devices.txt", "no_devices"),
    ("err_no_kernel_support.txt", "no_devices"),
    ("err_wrong_device.txt", "device_not_found"),
])
def test_failures_have_a_symptom_and_a_remedy(name: str, symptom: str) -> None:
    with pytest.raises(ParseError) as caught:
        parse_ibv_devinfo(INFO[name])
    assert caught.value.symptom == symptom
    assert caught.value.remedy
    assert caught.value.line == INFO[name].strip()


@pytest.mark.parametrize(("text", "symptom"), [
    ("", "unreadable"),
    ("hca_id:\terdma_0\n", "truncated"),
    (SEED[:SEED.index("state:")], "truncated"),
    (SEED + "Segmentation fault\n", "unreadable"),
    (SEED.replace("15359", "١٥٣٥٩"), "unreadable"),
    (SEED.replace("15359", "9" * 9999), "unreadable"),
    (SEED.replace("25.0 Gbps", "9" * 999 + " Gbps"), "unreadable"),
    (SEED.replace("port:   1", "port:   " + "1" * 5000), "unreadable"),
])
def test_broken_text_is_a_parse_error(text: str, symptom: str) -> None:
    with pytest.raises(ParseError) as caught:
        parse_ibv_devinfo(text)
    assert caught.value.symptom == symptom


def test_ibv_devices() -> None:
    assert parse_ibv_devices(LIST["siw_rxe.txt"]) == [("siw0", "505400fffe770001"), ("rxe0", "505400fffe770001")]
    assert parse_ibv_devices(LIST["header_only.txt"]) == []
    assert parse_ibv_devices("erdma_0  02163efffe5233a9") == [("erdma_0", "02163efffe5233a9")]
    with pytest.raises(ParseError, match="Function not implemented") as caught:
        parse_ibv_devices(LIST["err_no_kernel_support.txt"])
    assert caught.value.symptom == "no_devices"
    with pytest.raises(ParseError):
        parse_ibv_devices("bash: ibv_devices: command not found")


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """A sample with some spans deleted, repeated or replaced by other text."""
    text = draw(st.sampled_from([*INFO.values(), *LIST.values()]))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        stop = draw(st.integers(start, min(len(text), start + 60)))
        text = text[:start] + draw(st.one_of(st.text(max_size=8), st.just(text[start:stop] * 2))) + text[stop:]
    return text


@settings(max_examples=500, deadline=None)
@given(mutated())
def test_any_text_gives_a_result_or_a_parse_error(text: str) -> None:
    for parse in (parse_ibv_devices, parse_ibv_devinfo):
        try:
            parse(text)
        except ParseError:
            continue

"""The readers of kernel and distribution facts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.errors import ParseError
from kit.parse import kernel

DATA = Path(__file__).parent.parent / "data" / "kernel"


def sample(name: str) -> str:
    return (DATA / name).read_text()


def test_rxe_counters_count_packets_but_no_bytes() -> None:
    found = kernel.parse_hw_counters(sample("hw_counters_rxe.txt"))
    assert (found.family, found.tx_packets, found.rx_packets, found.tx_bytes) == ("rxe", 31403, 69578, None)
    assert found.drops["out_of_seq_request"] == 216
    assert "lifespan" not in found.raw
    assert len(found.raw) == 15


@pytest.mark.parametrize(("name", "family", "tx_bytes", "drop"), [
    ("hw_counters_erdma_made_up_values.txt", "erdma", "hw_tx_bytes_cnt", "hw_bps_limit_drop_cnt"),
    ("hw_counters_erdma_mainline_made_up_values.txt", "erdma-mainline", "tx_bytes_cnt", "tx_bps_limit_drop_cnt"),
])
def test_both_erdma_families_give_the_same_names(name: str, family: str, tx_bytes: str, drop: str) -> None:
    found = kernel.parse_hw_counters(sample(name))
    assert found.family == family
    assert found.tx_bytes == found.raw[tx_bytes]
    assert None not in (found.rx_bytes, found.tx_packets, found.rx_packets)
    assert found.drops[drop] == found.raw[drop]
    assert len(found.drops) == 6


def test_no_counters_and_foreign_counters() -> None:
    assert kernel.parse_hw_counters("").family == "none"
    assert kernel.parse_hw_counters("np_cnp_sent 3\n").family == "other"


def test_lsmod_and_proc_modules() -> None:
    found = {module.name: module for module in kernel.parse_lsmod(sample("lsmod.txt"))}
    assert found["siw"].used_by == ()
    assert found["ib_uverbs"].used_by == ("rdma_rxe", "rdma_ucm")
    assert found["ib_core"].size_bytes == 442368
    [a, b] = kernel.parse_lsmod("erdma 98304 2 - Live 0x0000000000000000 (OE)\nib_core 442368 2 erdma,siw, Live 0x0\n")
    assert (a.used_by, b.used_by) == ((), ("erdma", "siw"))


def test_os_cpu_memory_and_limits() -> None:
    assert kernel.parse_os_release(sample("os_release_debian12.txt"))["ID"] == "debian"
    assert kernel.parse_os_release('A="x \\"y\\" \\$z"\n# c\n') == {"A": 'x "y" $z'}
    assert kernel.parse_cpu_model(sample("cpuinfo_qemu_first_lines.txt")) == "QEMU TCG CPU version 2.5+"
    assert kernel.parse_cpu_model("CPU implementer\t: 0x41\nCPU part\t: 0xd49\n") == "Arm implementer 0x41 part 0xd49"
    assert (kernel.parse_cpu_list("0\n"), kernel.parse_cpu_list("0-3,8\n")) == (1, 5)
    assert kernel.parse_mem_total("MemTotal:         248788 kB\n") == 248788 * 1024
    assert kernel.parse_uname_r("6.1.0-56-amd64\n") == "6.1.0-56-amd64"
    assert (kernel.parse_memlock("unlimited\n"), kernel.parse_memlock("8192\n")) == (None, 8 * 2**20)


READERS: list[Callable[[str], object]] = [
    kernel.parse_hw_counters, kernel.parse_lsmod, kernel.parse_os_release, kernel.parse_cpu_model,
    kernel.parse_cpu_list, kernel.parse_mem_total, kernel.parse_uname_r, kernel.parse_memlock,
]


@pytest.mark.parametrize("read", READERS)
def test_nonsense_is_a_parse_error(read: Callable[[str], object]) -> None:
    with pytest.raises(ParseError):
        read("bash: no such thing ٣٣")


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(READERS), st.text(max_size=40), st.sampled_from(sorted(DATA.iterdir())), st.integers(0, 900))
def test_any_text_gives_a_result_or_a_parse_error(
        read: Callable[[str], object], noise: str, path: Path, at: int) -> None:
    text = path.read_text()
    try:
        read(text[:at] + noise + text[at:])
    except ParseError:
        return

"""Each thing that commonly goes wrong ends in its own clear error, with the real command against the real lab."""

import subprocess
import sys

import pytest
import yaml

from kit.command import command
from kit.hosts.base import Listening
from kit.lab import guests
from kit.sites import open_site

pytestmark = pytest.mark.lab

SWEEP = {"tools": ["ib_write_bw"], "sizes_bytes": [1024], "repeats": 1, "iterations": 5}


def site_of(lab, **changes):
    """The lab as a site file of an ordinary site, so that it can be spoiled."""
    nodes = {node.name: {"host": node.host, "port": node.ssh_port, "user": node.user, "key_file": str(node.key_file),
                         "rdma_device": node.rdma_device, "rdma_address": node.rdma_address} for node in lab.nodes}
    known_hosts = changes.pop("known_hosts", str(lab.known_hosts))
    nodes["b"].update(changes)
    return {"name": "spoiled", "nodes": nodes, "known_hosts": known_hosts}


def run(folder, site, params=SWEEP, results=None):
    (folder / "site.yaml").write_text(yaml.safe_dump(site))
    experiment = {"name": "errors", "stages": [
        {"stage": "03_link_perftest", "site": str(folder / "site.yaml"), "params": params}]}
    (folder / "errors.yaml").write_text(yaml.safe_dump(experiment))
    done = subprocess.run([sys.executable, "-m", "kit.cli", "run", str(folder / "errors.yaml"), "--results",
                           str(results or folder / "results")], text=True, capture_output=True, timeout=120)
    said = done.stdout + done.stderr
    assert done.returncode != 0, said
    assert "Traceback" not in said
    return said


def test_wrong_device(siw_lab, tmp_path):
    said = run(tmp_path, site_of(siw_lab, rdma_device="erdma_0"))
    assert "erdma_0" in said
    assert "siw0" in said, "it says which devices there are"


def test_unreachable_node(siw_lab, tmp_path):
    assert "remedy" in (said := run(tmp_path, site_of(siw_lab, port=1)))
    assert "UnreachableError" in said


def test_changed_host_key(siw_lab, tmp_path):
    lines = siw_lab.known_hosts.read_text().splitlines()
    first, second = (line.split()[0] for line in lines)
    keys = [line.split(maxsplit=1)[1] for line in lines]
    changed = tmp_path / "known_hosts"      # each node under the other's key
    changed.write_text(f"{first} {keys[1]}\n{second} {keys[0]}\n")
    said = run(tmp_path, site_of(siw_lab, known_hosts=str(changed)))
    assert "HostKeyError" in said
    assert "SHA256" in said


def test_unknown_parameter(siw_lab, tmp_path):
    said = run(tmp_path, site_of(siw_lab), {**SWEEP, "queue_pairs": 4})
    assert "queue_pairs: unknown parameter" in said
    assert not (tmp_path / "results").exists(), "nothing was started"


def test_taken_port(siw_lab, tmp_path):
    with open_site("lab-siw", run_id="holder") as pair:
        held = pair.b.host.start(command("nc", "-l", "-p", 21515), deadline_s=60, ready=Listening(21515))
        said = run(tmp_path, site_of(siw_lab), {**SWEEP, "base_port": 21515})
        pair.b.host.finish(held, deadline_s=0)
    assert "port_taken" in said


def test_full_results_disk(siw_lab, tmp_path):
    """A real full file system where one can be mounted; the pure test in test_store covers the rest."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(disk)], capture_output=True)
    if mounted.returncode != 0:
        pytest.xfail("mounting a small disk needs root")
    try:
        said = run(tmp_path, site_of(siw_lab), {**SWEEP, "repeats": 20}, results=disk)
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    assert "is full" in said
    assert "free space" in said


def test_lab_is_still_well(siw_lab):
    assert guests.is_up("siw")

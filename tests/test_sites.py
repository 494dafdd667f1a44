"""A site whose nodes are the machine that runs the kit."""

import pytest
import yaml

from kit.command import command, script
from kit.errors import ParamsError
from kit.hosts.local import LocalHost
from kit.sites import open_site, read_site


def site_file(folder, **more):
    nodes = {name: {"host": "local", "rdma_address": "127.0.0.1", **more} for name in "ab"}
    path = folder / "here.yaml"
    path.write_text(yaml.safe_dump({"name": "here", "nodes": nodes}))
    return str(path)


def test_both_nodes_are_this_machine_and_are_told_apart(tmp_path):
    with open_site(site_file(tmp_path), run_id="kit-test-here") as pair:
        assert all(isinstance(end.host, LocalHost) for end in pair)
        said = pair.both(lambda end: end.host.run(script('echo "$KIT_RUN_ID"'), check=True).stdout.strip())
        assert said == {"a": "kit-test-here-a", "b": "kit-test-here-b"}
        left = pair.b.host.start(command("sleep", 60), deadline_s=60)
        assert pair.a.host.stop(pair.a.host.run_id) == 0
        assert pair.b.host.stop(pair.b.host.run_id) > 0
        pair.b.host.finish(left, deadline_s=5)


def test_what_belongs_to_ssh_is_refused(tmp_path):
    with pytest.raises(ParamsError, match="without ssh: leave out key_file, port"):
        read_site(site_file(tmp_path, port=22, key_file="x"))

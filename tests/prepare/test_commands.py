"""kit plan, apply and artifacts as commands, on the recorded guests."""

import fcntl
import os

import pytest
from click.testing import CliRunner

from kit.cli import main
from kit.paths import root


def kit(*argv, **how):
    return CliRunner().invoke(main, list(argv), **how)


def test_plan_prints_every_command_and_changes_nothing():
    done = kit("plan", "replay-lab")
    assert done.exit_code == 0
    assert "a: 4 steps, as root" in done.output
    assert "modprobe erdma" in done.output


def test_apply_asks_once_and_no_means_no():
    done = kit("apply", "replay-lab", input="n\n")
    assert done.exit_code == 1
    assert "Apply this?" in done.output
    assert "changed" not in done.output


def test_what_stands_in_the_way_keeps_everything_untouched(tmp_path):
    wanted = tmp_path / "mine.yaml"
    wanted.write_text("name: mine\nlimits: {}\nnetwork: {mtu_bytes: 9216}\nmode: {mode: compat}\n")
    done = kit("apply", "replay-lab", "--yes", "--with", str(wanted))
    assert done.exit_code == 1
    assert done.output.startswith("a: network: CANNOT: eth1 carries at most 9000 bytes")
    assert "nothing was touched" in done.output


def test_two_at_once_are_refused():
    folder = root() / "results" / "prepare-lab"
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".held", "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        done = kit("apply", "replay-lab", "--yes")
    assert done.exit_code == 1
    assert "another kit is at work" in done.stderr


@pytest.mark.parametrize(("argv", "word"), [
    (("plan", "replay-lab", "--with", "nothing"), "no preparation"),
    (("apply", "replay-lab", "--undo", "nothing"), "no item"),
    (("artifacts", "record", "nothing"), "no artifact"),
    (("doctor", "replay-lab", "--with", "nothing"), "no preparation"),
])
def test_wrong_names_are_bad_input(argv, word):
    done = kit(*argv)
    assert done.exit_code == 2
    assert word in done.stderr


def test_a_mirror_that_does_not_answer_is_told():
    done = kit("artifacts", "record", "env_setup.sh", "--mirror", "http://127.0.0.1:9", env=dict(os.environ))
    assert done.exit_code == 1
    assert "--mirror" in done.stderr

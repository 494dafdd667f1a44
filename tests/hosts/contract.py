"""What every live host must do; run against this machine and against a guest over ssh."""

import time
from concurrent.futures import ThreadPoolExecutor, wait

import pytest

from kit.command import Secret, command, script
from kit.errors import CommandError, DeadlineError, PortTakenError
from kit.hosts.base import Listening

STRANGE = "a'b\"c $HOME `id` \\ * ; & | \n é \t--"


class HostContract:
    """Subclasses give a ``host`` fixture with a run id of its own, and a program that listens."""

    @pytest.fixture
    def listener(self):
        return lambda port: command("nc", "-l", "-p", port)

    def test_output_exit_code_and_quoting(self, host):
        done = host.run(command("printf", "%s", STRANGE))
        assert (done.stdout, done.stderr, done.exit_code) == (STRANGE, "", 0)
        done = host.run(script('echo out; echo err >&2; exit "$1"', 3))
        assert (done.stdout, done.stderr, done.exit_code) == ("out\n", "err\n", 3)

    def test_a_signal_is_told(self, host):
        assert host.run(script("kill -SEGV $$")).exit_code == -11

    def test_check(self, host):
        with pytest.raises(CommandError, match="exit code 7") as caught:
            host.run(script("echo why >&2; exit 7"), check=True)
        assert "why" in str(caught.value)

    def test_both_streams_at_once(self, host):
        size = 8 << 20
        done = host.run(script('head -c "$1" /dev/zero & head -c "$1" /dev/zero >&2; wait', size))
        assert (len(done.stdout), len(done.stderr)) == (size, size)

    def test_deadline_ends_the_command_and_its_children(self, host):
        done = host.run(script("echo so far; sleep 71 & setsid sleep 72 & env -i sleep 73 & sleep 74"), deadline_s=1)
        assert (done.stdout, done.exit_code) == ("so far\n", None)
        assert host.stop(host.run_id) == 0
        with pytest.raises(DeadlineError):
            host.run(command("sleep", 60), deadline_s=1, check=True)

    def test_exit_code_124_is_not_a_deadline(self, host):
        assert host.run(script("exit 124"), deadline_s=20).exit_code == 124

    def test_environment_and_secrets(self, host):
        asked = command("sh", "-c", 'printf %s "$TOKEN"').with_env(TOKEN=Secret("s3 cr3t"))
        assert host.run(asked).stdout == "s3 cr3t"
        with pytest.raises(CommandError) as caught:
            host.run(command("false").with_env(TOKEN=Secret("s3 cr3t")), check=True)
        assert "s3 cr3t" not in str(caught.value)
        assert "***" in str(caught.value)

    def test_a_secret_is_on_no_command_line(self, host):
        look = script('cat /proc/[0-9]*/cmdline 2>/dev/null; echo "$TOKEN" >&2').with_env(TOKEN=Secret("c4n'ary\n"))
        done = host.run(look)
        assert "c4n'ary" not in done.stdout
        assert done.stderr == "c4n'ary\n\n"
        done = host.finish(host.start(look, deadline_s=20), deadline_s=20)
        assert "c4n'ary" not in done.stdout
        assert done.stderr == "c4n'ary\n\n"

    def test_what_is_left_behind_does_not_hold_the_answer(self, host):
        started = time.monotonic()
        done = host.run(script("(sleep 0.2; echo late >&2; sleep 30) & echo done; exit 3"))
        assert (done.stdout, done.exit_code) == ("done\n", 3)
        assert time.monotonic() - started < 15
        assert host.stop(host.run_id) >= 1

    def test_service_is_ready_when_it_listens(self, host, listener, port):
        service = host.start(listener(port), deadline_s=60, ready=Listening(port))
        with pytest.raises(PortTakenError, match=str(port)):
            host.start(listener(port), deadline_s=60, ready=Listening(port))
        assert host.finish(service, deadline_s=0).exit_code is None
        again = host.start(listener(port), deadline_s=60, ready=Listening(port))
        assert host.finish(again, deadline_s=0).exit_code is None

    def test_service_waits_for_a_port_to_be_left(self, host, listener, port):
        first = host.start(listener(port), deadline_s=60, ready=Listening(port))
        with ThreadPoolExecutor(1) as pool:
            second = pool.submit(host.start, listener(port + 1), deadline_s=60, ready=Listening(port + 1, after=port))
            assert not wait([second], timeout=1).done
            host.finish(first, deadline_s=0)
            assert host.finish(second.result(timeout=30), deadline_s=0).exit_code is None

    def test_service_that_ends_early_tells_its_last_words(self, host, port):
        with pytest.raises(CommandError, match="ended before it was ready") as caught:
            host.start(script("echo no such device >&2; exit 1"), deadline_s=60, ready=Listening(port))
        assert "no such device" in str(caught.value)

    def test_service_that_never_listens_is_stopped(self, host, port):
        with pytest.raises(DeadlineError, match="not ready"):
            host.start(command("sleep", 60), deadline_s=60, ready=Listening(port), ready_s=1)
        assert host.stop(host.run_id) == 0

    def test_service_output_and_exit_code(self, host):
        service = host.start(script("echo out; echo err >&2; exit 5"), deadline_s=60)
        done = host.finish(service, deadline_s=20)
        assert (done.stdout, done.stderr, done.exit_code) == ("out\n", "err\n", 5)

    def test_service_ends_by_its_own_deadline(self, host):
        service = host.start(command("sleep", 60), deadline_s=1)
        assert host.finish(service, deadline_s=20).exit_code is None

    def test_stop_ends_the_run_with_all_descendants_and_nothing_else(self, host, other):
        theirs = other.start(command("sleep", 60), deadline_s=60)
        host.start(script("trap '' TERM; setsid sleep 61 & sleep 62; sleep 63"), deadline_s=60)
        assert host.stop(host.run_id) >= 2
        assert host.stop(host.run_id) == 0
        assert other.finish(theirs, deadline_s=0).exit_code is None

    def test_stop_finds_who_lost_the_mark(self, host):
        """Children that cleared their environment, one in a session of its own."""
        orphans = script('env -i setsid sleep 61 & echo $!; env -i sh -c "sleep 62; sleep 63" & echo $!; wait')
        service = host.start(orphans, deadline_s=60)
        pids = host.run(script('until [ "$(wc -l <"$1")" = 2 ]; do sleep 0.05; done; cat "$1"',
                               f"{service.folder}/out")).stdout.split()
        assert host.stop(host.run_id) >= 3
        for pid in pids:
            assert not host.run(command("cat", f"/proc/{pid}/cmdline")).stdout

    def test_an_id_is_no_pattern_and_no_prefix(self, host, other):
        service = other.start(command("sleep", 60), deadline_s=60)
        for near in (other.run_id[:-1], other.run_id.replace("-", "."), ".*", other.run_id.upper()):
            assert host.stop(near) == 0
        hidden = other.start(command("sleep", 60).with_env(NOTE=f"x\nKIT_RUN_ID={host.run_id}"), deadline_s=60)
        assert host.stop(host.run_id) == 0
        for each in (service, hidden):
            assert other.finish(each, deadline_s=0).exit_code is None

    def test_a_stopped_service_is_told_at_once(self, host):
        service = host.start(script("echo out; sleep 60; sleep 60"), deadline_s=60)
        assert host.stop(host.run_id) >= 1
        started = time.monotonic()
        done = host.finish(service, deadline_s=30)
        assert (done.stdout, done.exit_code) == ("out\n", -15)
        assert time.monotonic() - started < 10

    def test_what_a_service_leaves_behind_ends_with_it(self, host):
        host.finish(host.start(script("setsid sleep 65 & exit 0"), deadline_s=60), deadline_s=20)
        assert host.stop(host.run_id) == 0

    def test_files(self, host, folder):
        path = f"{folder}/a b/c"
        host.write(path, b"\0\xff data", mode=0o640)
        assert host.read(path) == b"\0\xff data"
        assert host.run(command("stat", "-c", "%a", path)).stdout == "640\n"
        with pytest.raises(CommandError, match="nowhere"):
            host.read(f"{folder}/nowhere")
        with pytest.raises(CommandError, match="cannot write"):
            host.write(folder, bytes(4 << 20))
        big = bytes(range(256)) * 8192
        host.write(path, big)
        assert host.read(path) == big
        assert host.run(command("ls", f"{folder}/a b")).stdout == "c\n"

    def test_many_threads(self, host):
        with ThreadPoolExecutor(20) as pool:
            asked = [pool.submit(host.run, script('sleep 0.2; echo "$1"', number)) for number in range(20)]
            assert [each.result().stdout for each in asked] == [f"{number}\n" for number in range(20)]

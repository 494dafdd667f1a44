"""What every live host must do; run against this machine and against a guest over ssh."""

import threading

import pytest

from kit.command import Secret, command, script
from kit.errors import CommandError, DeadlineError, PortTakenError
from kit.hosts.base import Listening

STRANGE = "a'b\"c $HOME `id` \\ * ; & | \n é \t--"
LISTEN = script('exec nc -l -p "$1"', 0).argv    # replaced a test: the port is the last argument


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
        size = 6_000_000
        done = host.run(script('head -c "$1" /dev/zero & head -c "$1" /dev/zero >&2; wait', size))
        assert (len(done.stdout), len(done.stderr)) == (size, size)

    def test_deadline_ends_the_command_and_its_children(self, host):
        done = host.run(script("sleep 71 & sleep 72"), deadline_s=1)
        assert done.exit_code is None
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

    def test_service_is_ready_when_it_listens(self, host, listener, port):
        service = host.start(listener(port), deadline_s=60, ready=Listening(port))
        with pytest.raises(PortTakenError, match=str(port)):
            host.start(listener(port), deadline_s=60, ready=Listening(port))
        assert host.finish(service, deadline_s=0).exit_code is None
        again = host.start(listener(port), deadline_s=60, ready=Listening(port))
        assert host.finish(again, deadline_s=0).exit_code is None

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

    def test_files(self, host, folder):
        path = f"{folder}/a b/c"
        host.write(path, b"\0\xff data", mode=0o640)
        assert host.read(path) == b"\0\xff data"
        assert host.run(command("stat", "-c", "%a", path)).stdout == "640\n"
        with pytest.raises(CommandError, match="nowhere"):
            host.read(f"{folder}/nowhere")

    def test_many_threads(self, host):
        said: dict[int, str] = {}

        def ask(number: int) -> None:
            said[number] = host.run(script('sleep 0.2; echo "$1"', number)).stdout

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert said == {number: f"{number}\n" for number in range(6)}

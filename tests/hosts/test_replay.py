"""A recording answers as the node did, and nothing else."""

import pytest

from kit.command import Secret, command, script
from kit.errors import CommandError, ReplayError
from kit.hosts.local import LocalHost
from kit.hosts.replay import RecordingHost, ReplayHost


@pytest.fixture
def recording(tmp_path):
    path = tmp_path / "a.json"
    live = RecordingHost(LocalHost("a", run_id="kit-test-replay"), path, about={"device": "siw0", "address": "x"})
    counter = tmp_path / "count"
    count = script('echo x >>"$1"; wc -l <"$1"', "count").argv
    count = command(*count[:-1], str(counter))
    assert [live.run(count).stdout.strip() for _ in range(3)] == ["1", "2", "3"]
    live.finish(live.start(script("echo served"), deadline_s=20), deadline_s=20)
    assert live.run(script('echo "$TOKEN"').with_env(TOKEN=Secret("canary"))).stdout == "canary\n"
    (tmp_path / "binary").write_bytes(b"\xff\0")
    assert live.read(str(tmp_path / "binary")) == b"\xff\0"
    live.run(command("echo", f"/tmp/{live.run_id}/x"))
    with pytest.raises(CommandError):
        live.run(command("false").with_env(TOKEN=Secret("canary")), check=True)
    return path, count


def test_answers_come_in_their_order_and_the_last_stays(recording):
    path, count = recording
    host = ReplayHost("a", path, run_id="other")
    assert [host.run(count).stdout.strip() for _ in range(4)] == ["1", "2", "3", "3"]
    assert host.about["device"] == "siw0"


def test_a_service_is_replayed(recording):
    host = ReplayHost("a", recording[0], run_id="other")
    done = host.finish(host.start(script("echo served"), deadline_s=20), deadline_s=20)
    assert (done.stdout, done.exit_code) == ("served\n", 0)


def test_an_error_is_replayed_and_no_secret_kept(recording):
    host = ReplayHost("a", recording[0], run_id="other")
    with pytest.raises(CommandError, match="exit code 1"):
        host.run(command("false").with_env(TOKEN=Secret("another")), check=True)
    assert "canary" not in recording[0].read_text()


def test_an_unknown_question_names_the_nearest(recording):
    host = ReplayHost("a", recording[0], run_id="other")
    with pytest.raises(ReplayError, match="echo served"):
        host.start(script("echo served too"), deadline_s=20)


def test_bytes_stay_and_run_ids_do_not_matter(recording, tmp_path):
    host = ReplayHost("a", recording[0], run_id="kit-another-run")
    assert host.read(str(tmp_path / "binary")) == b"\xff\0"
    assert host.run(command("echo", "/tmp/kit-another-run/x")).ok


def test_check_is_the_askers_own(recording):
    host = ReplayHost("a", recording[0], run_id="other")
    failing = command("false").with_env(TOKEN=Secret("another"))
    assert host.run(failing).exit_code == 1
    with pytest.raises(CommandError):
        host.run(failing, check=True)


def test_what_differs_in_every_run_has_a_fixed_name(tmp_path):
    path, serve = tmp_path / "a.json", script("echo served")
    inner = LocalHost("a", run_id="kit-test-alias")
    live = RecordingHost(inner, path, about={"serving": f"{tmp_path}/venv"}, aliases={str(tmp_path): "LAB"})
    folder = live.run(command("echo", f"{tmp_path}/kit-test-alias")).stdout.strip()
    live.run(command("echo", f"{folder}/again"))
    service = live.start(serve, deadline_s=20)
    live.finish(service, deadline_s=20)
    assert live.read(f"{service.folder}/out") == b"served\n"

    host = ReplayHost("a", path, run_id="kit-another-run")
    assert host.about["serving"] == "LAB/venv"
    folder = host.run(command("echo", "LAB/kit-another-run")).stdout.strip()
    assert folder == "LAB/RUN-ID"
    assert host.run(command("echo", f"{folder}/again")).ok
    assert host.read(f"{host.start(serve, deadline_s=20).folder}/out") == b"served\n"
    assert str(tmp_path) not in path.read_text()

"""The lab's two ssh servers: real OpenSSH on two loopback addresses, for root or for a plain user.

OpenSSH looks up its user in the system's accounts, wants a user ``sshd`` when it runs as root, and refuses an account
whose password is locked. nss_wrapper (Debian's libnss-wrapper) gives it accounts of the lab's own instead, so that
nothing on this machine is changed. Only the lab's key is let in, and only from this machine.
"""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from kit.errors import LabError
from kit.files import write_atomic
from kit.lab.packages import find_tool
from kit.lab.pd.debian import LIBRARIES
from kit.lab.pd.processes import MARK

ADDRESSES = {"a": "127.0.0.1", "b": "127.0.0.2"}
_PRIVILEGE_SEPARATION = Path("/run/sshd")     # compiled into Debian's sshd; wanted as root only
_ACCOUNTS = ("passwd", "group", "shadow")
_POLL_S = 0.05
_CONFIG = """\
ListenAddress {address}
Port {port}
HostKey "{folder}/host_key"
AuthorizedKeysFile "{folder}/id_ed25519.pub"
AllowUsers {user}
SetEnv "{mark}={folder}"
Subsystem sftp internal-sftp
AcceptEnv KIT_*
AuthenticationMethods publickey
PermitRootLogin prohibit-password
UsePAM no
UseDNS no
StrictModes no
PidFile none
MaxSessions 64
MaxStartups 64:30:128
"""


@dataclass(frozen=True)
class SshServer:
    """One running server. ``folder`` holds its keys, accounts, configuration and log."""

    folder: Path
    address: str
    port: int
    user: str

    @property
    def key_file(self) -> Path:
        return self.folder / "id_ed25519"

    @property
    def host_key(self) -> str:
        """``ssh-ed25519 AAAA…``"""
        return " ".join((self.folder / "host_key.pub").read_text().split()[:2])

    @property
    def log(self) -> Path:
        return self.folder / "sshd.log"


def prepare(folder: Path, address: str, port: int, tools: Path) -> SshServer:
    """Write what a server needs. Keys that are there stay."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    user = _account(folder)
    for name in ("host_key", "id_ed25519"):
        if not (folder / f"{name}.pub").exists():
            (folder / name).unlink(missing_ok=True)
            _make_key(folder / name)
    config = _CONFIG.format(address=address, port=port, folder=folder, user=user, mark=MARK)
    for program, option in (("sshd-session", "SshdSessionPath"), ("sshd-auth", "SshdAuthPath")):
        if (found := tools / "usr/lib/openssh" / program).exists():     # of their own since OpenSSH 9.8 and 10.0
            config += f'{option} "{found}"\n'
    write_atomic(folder / "sshd_config", config)
    return SshServer(folder, address, port, user)


def start(server: SshServer, tools: Path, library_path: str) -> subprocess.Popen[bytes]:
    """Start the server. It is ready when `wait_until_ready` returns. Raises LabError where there is no sshd."""
    sshd = tools / "usr/sbin/sshd"
    program = str(sshd) if sshd.exists() else find_tool("sshd")
    wrapper = next((path for root in (tools, Path("/")) for name in LIBRARIES
                    if (path := root / name / "libnss_wrapper.so").exists()), None)
    if program is None or wrapper is None:
        raise LabError("the lab's ssh server is missing from the cache", remedy=f"remove {tools} and try again")
    if os.geteuid() == 0:
        _PRIVILEGE_SEPARATION.mkdir(mode=0o755, exist_ok=True)
    environment = {"LD_LIBRARY_PATH": library_path, "LD_PRELOAD": str(wrapper), MARK: str(server.folder),
                   **{f"NSS_WRAPPER_{name.upper()}": str(server.folder / name) for name in _ACCOUNTS}}
    with open(server.log, "wb") as log:
        return subprocess.Popen([program, "-D", "-e", "-f", str(server.folder / "sshd_config")], cwd=server.folder,
                                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                                env=environment)


def wait_until_ready(server: SshServer, process: subprocess.Popen[bytes], deadline: float) -> None:
    """Until it greets. ``deadline`` is a time of time.monotonic. Raises LabError with its log's last lines."""
    while time.monotonic() < deadline:
        if answers(server.address, server.port):
            return
        try:
            process.wait(_POLL_S)
            break
        except subprocess.TimeoutExpired:
            continue
    last = server.log.read_text(errors="replace").splitlines()[-8:] if server.log.exists() else []
    raise LabError("\n".join([f"the ssh server on {server.address} port {server.port} did not get ready:", *last]),
                   remedy=f"see {server.log}")


def answers(address: str, port: int) -> bool:
    """Whether an ssh server greets there."""
    try:
        with socket.create_connection((address, port), timeout=2) as connection:
            connection.settimeout(5)
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def free_port(address: str) -> int:
    with socket.create_server((address, 0)) as server:
        return int(server.getsockname()[1])


def _account(folder: Path) -> str:
    """Accounts that name the user we run as, with a shell and no locked password, and OpenSSH's own."""
    uid, gid = os.geteuid(), os.getegid()
    try:
        entry = pwd.getpwuid(uid)
        name, home, shell = entry.pw_name, entry.pw_dir, entry.pw_shell
    except KeyError:     # a container may run under a number that has no name
        name, home, shell = "kit", "", ""
    if not Path(home or "/nonexistent").is_dir():
        home = str(folder)
    if Path(shell).name in {"", "nologin", "false"} or shutil.which(shell) is None:
        shell = "/bin/sh"
    try:
        group = grp.getgrgid(gid).gr_name
    except KeyError:
        group = "kit"
    write_atomic(folder / "passwd", f"{name}:*:{uid}:{gid}::{home}:{shell}\n"
                                    f"sshd:*:65533:65534::{_PRIVILEGE_SEPARATION}:/usr/sbin/nologin\n")
    write_atomic(folder / "group", f"{group}:x:{gid}:\nnogroup:x:65534:\n")
    write_atomic(folder / "shadow", f"{name}:*:19000:0:99999:7:::\n")
    return name


def _make_key(path: Path) -> None:
    tool = find_tool("ssh-keygen")
    if tool is None:
        raise LabError("the lab cannot be started without: openssh-client", remedy="apt install openssh-client")
    subprocess.run([tool, "-q", "-t", "ed25519", "-N", "", "-C", f"lab-{path.name}", "-f", str(path)], check=True,
                   capture_output=True, stdin=subprocess.DEVNULL, timeout=30)

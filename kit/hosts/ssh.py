"""A node over ssh: one paramiko connection, reused by all threads; host keys only from the project's known_hosts."""

from __future__ import annotations

import base64
import hashlib
import socket
import threading
import time
from pathlib import Path

import paramiko

from kit.errors import HostKeyError, UnreachableError
from kit.hosts.base import OnOutput
from kit.hosts.shell import Answer, ShellHost

_KEEPALIVE_S = 5
_CHUNK = 65536
_TRUST = "look at the fingerprint on the node's own console, then: kit trust SITE"


class SshHost(ShellHost):
    """`Host` over ssh. Connects at the first command; a connection found dead before a command is made again once."""

    def __init__(self, name: str, host: str, port: int, user: str, *, run_id: str, known_hosts: Path,
                 key_file: Path | None = None, jump: SshHost | None = None, connect_s: float = 15) -> None:
        super().__init__(name, run_id, self._over_ssh)
        self.address = (host, port)
        self._user, self._known_hosts, self._key_file = user, known_hosts, key_file
        self._jump, self._connect_s = jump, connect_s
        self._client: paramiko.SSHClient | None = None
        self._lock = threading.Lock()

    def close(self) -> None:
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None
        if self._jump is not None:
            self._jump.close()

    def _over_ssh(self, line: str, stdin: bytes, wait_s: float, on_output: OnOutput | None) -> Answer:
        channel = self._open_channel()
        deadline = time.monotonic() + wait_s
        try:
            channel.settimeout(wait_s)
            channel.exec_command(line)
            channel.sendall(stdin)
            channel.shutdown_write()
            return self._answer(channel, deadline, on_output)
        except (OSError, EOFError, paramiko.SSHException) as error:
            if isinstance(error, TimeoutError) and self._alive():
                return Answer(b"", b"", None)
            raise self._lost(error) from error
        finally:
            channel.close()

    def _answer(self, channel: paramiko.Channel, deadline: float, on_output: OnOutput | None) -> Answer:
        """Both streams until the end. stderr is drained beside stdout: a full window would stop the command."""
        errors: list[bytes] = []
        drain = threading.Thread(target=_drain, args=(channel, errors), daemon=True)
        drain.start()
        output = []
        try:
            while chunk := channel.recv(_CHUNK):
                output.append(chunk)
                if on_output is not None:
                    on_output(b"".join(output).decode(errors="replace"))
                channel.settimeout(max(deadline - time.monotonic(), 0.1))
            in_time = channel.status_event.wait(max(deadline - time.monotonic(), 0.1))
        except TimeoutError:
            in_time = False
        drain.join(1)
        if not in_time and not self._alive():
            raise self._lost(EOFError("the connection ended"))
        if in_time and channel.exit_status == -1 and not self._alive():
            raise self._lost(EOFError("the connection ended"))
        # Without an exit status, though the connection stands, the command was ended by a signal.
        return Answer(b"".join(output), b"".join(errors), channel.exit_status if in_time else None)

    def _open_channel(self) -> paramiko.Channel:
        for last in (False, True):
            client = self._connected()
            transport = client.get_transport()
            try:
                if transport is None:
                    raise paramiko.SSHException("no transport")
                return transport.open_session(timeout=self._connect_s)
            except (OSError, EOFError, paramiko.SSHException) as error:
                with self._lock:
                    if self._client is client:
                        client.close()
                        self._client = None
                if last:
                    raise self._lost(error) from error
        raise AssertionError("the loop returns or raises")

    def _connected(self) -> paramiko.SSHClient:
        with self._lock:
            if self._client is not None and self._alive():
                return self._client
            if self._client is not None:
                self._client.close()
            self._client = self._connect()
            return self._client

    def _connect(self) -> paramiko.SSHClient:
        client = paramiko.SSHClient()
        client.set_missing_host_key_policy(paramiko.RejectPolicy())
        if self._known_hosts.exists():
            client.load_host_keys(str(self._known_hosts))
        host, port = self.address
        try:
            client.connect(host, port=port, username=self._user, look_for_keys=False,
                           allow_agent=self._key_file is None, key_filename=str(self._key_file) if self._key_file else None, sock=self._through(),
                           timeout=self._connect_s, banner_timeout=self._connect_s, auth_timeout=self._connect_s)
        except paramiko.BadHostKeyException as error:
            raise HostKeyError(f"the host key of {host}:{port} has CHANGED: trusted {fingerprint(error.expected_key)}, "
                               f"now {fingerprint(error.key)}", node=self.name,
                               remedy=f"somebody may be in between; if the node was made anew, remove its line from "
                                      f"{self._known_hosts} and {_TRUST}") from error
        except paramiko.AuthenticationException as error:
            raise UnreachableError(f"{host}:{port} refused the key of user {self._user}", node=self.name,
                                   remedy="check user and key_file of the site, or load the key: ssh-add") from error
        except (OSError, EOFError, paramiko.SSHException) as error:
            if "not found in known_hosts" in str(error):
                raise HostKeyError(f"the host key of {host}:{port} is unknown", node=self.name,
                                   remedy=_TRUST) from error
            raise UnreachableError(f"no ssh connection to {host}:{port}: {error or type(error).__name__}",
                                   node=self.name, remedy="check the address, the security group and that sshd runs"
                                   ) from error
        transport = client.get_transport()
        if transport is not None:
            transport.set_keepalive(_KEEPALIVE_S)
            if isinstance(transport.sock, socket.socket):
                transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                # A node that died without a word: give up on unanswered packets after a while, not after minutes.
                transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 4 * _KEEPALIVE_S * 1000)
        return client

    def _through(self) -> paramiko.Channel | None:
        """A channel to this node over the jump host, where there is one."""
        if self._jump is None:
            return None
        transport = self._jump._connected().get_transport()
        if transport is None:
            raise UnreachableError("the connection to the jump host was lost", node=self.name)
        return transport.open_channel("direct-tcpip", self.address, ("127.0.0.1", 0), timeout=self._connect_s)

    def _alive(self) -> bool:
        transport = self._client.get_transport() if self._client is not None else None
        return transport is not None and transport.is_active()

    def _lost(self, error: Exception) -> UnreachableError:
        return UnreachableError(f"the connection was lost: {error or type(error).__name__}", node=self.name,
                                remedy="see whether the node is up; what it runs ends by its own deadline")


def fingerprint(key: paramiko.PKey) -> str:
    """As ``ssh-keygen -l`` prints it."""
    digest = base64.b64encode(hashlib.sha256(key.asbytes()).digest()).decode().rstrip("=")
    return f"{key.get_name()} SHA256:{digest}"


def _drain(channel: paramiko.Channel, into: list[bytes]) -> None:
    try:
        while chunk := channel.recv_stderr(_CHUNK):
            into.append(chunk)
    except (OSError, EOFError):
        return  # the reader of stdout meets the same end and says so

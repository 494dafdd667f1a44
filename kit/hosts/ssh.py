"""A node over ssh: one paramiko connection, reused by all threads; host keys only from the project's known_hosts."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import paramiko

from kit.errors import DeadlineError, KitError, UnreachableError
from kit.hosts.keys import KnownHostsOnly, fingerprint
from kit.hosts.shell import Answer, ShellHost

__all__ = ["SshHost", "fingerprint"]

_KEEPALIVE_S = 5
_CHUNK = 65536
_SESSIONS = 8       # sshd refuses more than 10 on one connection (MaxSessions); one is kept open ahead
_FRESH_S = 1.0      # a session opened ahead is only taken so soon: opening one proves that the connection still stands
_SILENCE_S = 2.0    # after the exit status, output may still come; a process left behind may hold it open for ever
_LOST = (OSError, EOFError, paramiko.SSHException)


class SshHost(ShellHost):
    """`Host` over ssh. Connects at the first command; a connection found dead before a command is made again once."""

    def __init__(self, name: str, host: str, port: int, user: str, *, run_id: str, known_hosts: Path,
                 key_file: Path | None = None, jump: SshHost | None = None, connect_s: float = 10) -> None:
        super().__init__(name, run_id, self._over_ssh)
        self.address = (host, port)
        self._user, self._known_hosts, self._key_file = user, known_hosts, key_file
        self._jump, self._connect_s = jump, connect_s
        self._client: paramiko.SSHClient | None = None
        self._spare: tuple[paramiko.Channel, float] | None = None    # and when it was opened
        self._lock = threading.Lock()               # of the two above; held while connecting
        self._sessions = threading.BoundedSemaphore(_SESSIONS)
        self._ahead = threading.Lock()              # held while a session is opened ahead: one at a time
        self._opening = threading.Lock()            # paramiko keeps one error for all opens of a connection

    def close(self) -> None:
        with self._lock:
            self._drop()
        if self._jump is not None:
            self._jump.close()

    def _over_ssh(self, line: str, stdin: bytes, wait_s: float) -> Answer:
        deadline = time.monotonic() + wait_s
        with self._session(wait_s) as channel:
            # paramiko waits without a limit for the reply to a request; only closing the channel ends that.
            limit = threading.Timer(wait_s, _close, [channel])
            limit.daemon = True
            limit.start()
            try:
                channel.settimeout(wait_s)
                channel.exec_command(line)
                threading.Thread(target=self._open_ahead, args=(channel.get_transport(),), daemon=True).start()
                _send(channel, stdin)
                return self._answer(channel, deadline)
            except _LOST as error:
                if time.monotonic() >= deadline - 0.05 and _alive(channel):
                    return Answer(b"", b"", None)
                raise self._lost(error) from error
            finally:
                limit.cancel()

    def _answer(self, channel: paramiko.Channel, deadline: float) -> Answer:
        """Both streams until the end. stderr is drained beside stdout: a full window would stop the command."""
        channel.settimeout(min(_SILENCE_S, max(deadline - time.monotonic(), 0.05)))
        output: list[bytes] = []
        errors: list[bytes] = []
        drain = threading.Thread(target=_drain, args=(channel, channel.recv_stderr, errors, deadline), daemon=True)
        drain.start()
        _drain(channel, channel.recv, output, deadline)
        drain.join(max(deadline - time.monotonic(), 0.1))
        ended = channel.status_event.wait(max(deadline - time.monotonic(), 0.1))
        if not _alive(channel) and channel.exit_status == -1:
            raise self._lost(EOFError("the node does not answer"))
        if time.monotonic() >= deadline and channel.exit_status == -1:
            ended = False       # the limit closed the channel
        # Without an exit status, though the connection stands, the shell was ended by a signal.
        return Answer(b"".join(output), b"".join(errors), channel.exit_status if ended else None)

    @contextlib.contextmanager
    def _session(self, wait_s: float) -> Iterator[paramiko.Channel]:
        """A channel for one command; no more at a time than the server allows."""
        if not self._sessions.acquire(timeout=wait_s):
            raise DeadlineError(f"{_SESSIONS} commands at once, none has ended in {wait_s:g} s", node=self.name)
        try:
            channel = self._take_spare() or self._open_channel()
            try:
                yield channel
            finally:
                _close(channel)
        finally:
            self._sessions.release()

    def _take_spare(self) -> paramiko.Channel | None:
        with self._lock:
            spare, self._spare = self._spare, None
        if spare is None:
            return None
        channel, opened = spare
        if time.monotonic() - opened < _FRESH_S and not channel.closed and _alive(channel):
            return channel
        _close(channel)
        return None

    def _open_ahead(self, transport: paramiko.Transport) -> None:
        """While a command runs, open the next one's session: that is then one round trip instead of two."""
        if self._spare is not None or not self._ahead.acquire(blocking=False):
            return
        try:
            with self._opening:
                channel = transport.open_session(timeout=self._connect_s)
            with self._lock:
                stands = self._client is not None and self._client.get_transport() is transport
                if stands and self._spare is None:
                    self._spare = channel, time.monotonic()
                    return
            _close(channel)
        except _LOST:
            return  # the next command opens its own, and says what is wrong
        finally:
            self._ahead.release()

    def _open_channel(self) -> paramiko.Channel:
        for last in (False, True):
            transport = self._connected()
            try:
                with self._opening:
                    return transport.open_session(timeout=self._connect_s)
            except paramiko.ChannelException as error:      # the connection stands, with other threads' commands on it
                if last:
                    raise UnreachableError("the server refuses another session", node=self.name,
                                           remedy="raise MaxSessions in its sshd_config to 10 or more") from error
            except _LOST as error:
                with self._lock:
                    if self._client is not None and self._client.get_transport() is transport:
                        self._drop()
                if last:
                    raise self._lost(error) from error
        raise AssertionError("the loop returns or raises")

    def _connected(self) -> paramiko.Transport:
        with self._lock:
            transport = self._client.get_transport() if self._client is not None else None
            if transport is None or not transport.is_active():
                self._drop()
                self._client = self._connect()
                transport = self._client.get_transport()
            if transport is None:
                raise self._lost(EOFError("it ended at once"))
            return transport

    def _drop(self) -> None:
        if self._client is not None:
            self._client.close()
        self._client = self._spare = None

    def _connect(self) -> paramiko.SSHClient:
        client = paramiko.SSHClient()
        client.set_missing_host_key_policy(KnownHostsOnly(self.name, self._known_hosts))
        host, port = self.address
        try:
            if self._known_hosts.exists():
                client.load_host_keys(str(self._known_hosts))
            client.connect(host, port=port, username=self._user, look_for_keys=False,
                           allow_agent=self._key_file is None,
                           key_filename=str(self._key_file) if self._key_file else None, sock=self._road(),
                           timeout=self._connect_s, banner_timeout=self._connect_s, auth_timeout=self._connect_s)
            transport = client.get_transport()
            if transport is not None:
                transport.set_keepalive(_KEEPALIVE_S)
            return client
        except KitError:        # an unknown host key, or the jump host
            client.close()
            raise
        except _LOST as error:
            client.close()
            raise self._refused(error) from error

    def _refused(self, error: Exception) -> KitError:
        """Why there is no connection, in our own words."""
        host, port = self.address
        if isinstance(error, paramiko.BadHostKeyException):
            return KnownHostsOnly(self.name, self._known_hosts).changed(f"{host}:{port}", [error.expected_key],
                                                                        error.key)
        what, remedy = f"no ssh connection to {host}:{port}: {error or type(error).__name__}", \
            "check the address and port of the site, the security group, and that sshd runs"
        if isinstance(error, paramiko.PasswordRequiredException):
            what, remedy = f"{self._key_file} is locked by a passphrase", "ssh-add it, and leave key_file out"
        elif isinstance(error, paramiko.AuthenticationException):
            what = f"{host}:{port} refused the key of user {self._user}"
            remedy = "check user and key_file of the site, or load the key: ssh-add"
        elif self._key_file is not None and not self._key_file.is_file():
            what, remedy = f"there is no key file {self._key_file}", "check key_file of the site"
        return UnreachableError(what, node=self.name, remedy=remedy)

    def _road(self) -> socket.socket | paramiko.Channel:
        """A socket to this node, or a channel to it over the jump host; the jump host's own key is checked too."""
        if self._jump is not None:
            return self._jump._connected().open_channel("direct-tcpip", self.address, ("127.0.0.1", 0),
                                                        timeout=self._connect_s)
        road = socket.create_connection(self.address, timeout=self._connect_s)
        road.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            # A node that died without a word: give up on unanswered packets after a while, not after minutes.
            road.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 4 * _KEEPALIVE_S * 1000)
        return road

    def _lost(self, error: BaseException) -> UnreachableError:
        return UnreachableError(f"the connection was lost: {error or type(error).__name__}", node=self.name,
                                remedy="see whether the node is up; what it runs ends by its own deadline")


def _alive(channel: paramiko.Channel) -> bool:
    return channel.get_transport().is_active()


def _close(channel: paramiko.Channel) -> None:
    """Closing tells the server, which fails on a lost connection; whoever needs the channel meets that by itself."""
    with contextlib.suppress(*_LOST):
        channel.close()


def _send(channel: paramiko.Channel, data: bytes) -> None:
    """All of the input, or as much as is taken: a command may end without reading it, and its exit code says why."""
    try:
        if data:
            channel.sendall(data)
        channel.shutdown_write()
    except _LOST:
        if not _alive(channel):
            raise


def _drain(channel: paramiko.Channel, receive: Callable[[int], bytes], into: list[bytes], deadline: float) -> None:
    """One stream to its end, or until there is silence after the command's end, or until the deadline."""
    with contextlib.suppress(OSError, EOFError):
        while time.monotonic() < deadline:
            try:
                chunk = receive(_CHUNK)
            except TimeoutError:
                if channel.status_event.is_set():
                    return
                continue
            if not chunk:
                return
            into.append(chunk)

"""The project's known_hosts: see a node's host key, and remember it once a person has said yes."""

from __future__ import annotations

import socket
from pathlib import Path

import paramiko

from kit.errors import UnreachableError
from kit.files import write_atomic


def scan(host: str, port: int, *, timeout_s: float = 15) -> list[paramiko.PKey]:
    """The host key that the node shows. Raises UnreachableError. Proves nothing by itself."""
    try:
        with socket.create_connection((host, port), timeout=timeout_s) as connection:
            transport = paramiko.Transport(connection)
            try:
                transport.start_client(timeout=timeout_s)
                return [transport.get_remote_server_key()]
            finally:
                transport.close()
    except (OSError, EOFError, paramiko.SSHException) as error:
        raise UnreachableError(f"no ssh server answers at {host}:{port}: {error}") from error


def trust(known_hosts: Path, host: str, port: int, key: paramiko.PKey) -> None:
    """Add the key to the file, whole or not at all; a key of the same type is replaced."""
    name = host if port == 22 else f"[{host}]:{port}"
    old = known_hosts.read_text().splitlines() if known_hosts.exists() else []
    kept = [line for line in old if line.split()[:2] != [name, key.get_name()]]
    write_atomic(known_hosts, "\n".join([*kept, f"{name} {key.get_name()} {key.get_base64()}"]) + "\n")

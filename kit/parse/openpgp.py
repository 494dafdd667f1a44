"""The fingerprint of an OpenPGP public key file, armored or not.

Source: RFC 4880, sections 4.2 (packet headers), 6.2 (armor), 12.2 (fingerprint of version 4).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re

from kit.errors import ParseError

_PUBLIC_KEY = 6
_ARMOR = re.compile(rb"-----BEGIN PGP PUBLIC KEY BLOCK-----\r?\n(.*?)\r?\n-----END PGP PUBLIC KEY BLOCK-----",
                    re.DOTALL)


def key_fingerprint(data: bytes) -> str:
    """40 upper-case hex digits. Raises ParseError for anything that does not begin with a version 4 public key."""
    packet = _dearmored(data)
    if not packet or not packet[0] & 0x80:
        raise ParseError("not an OpenPGP public key")
    tag, start, length = _new_header(packet) if packet[0] & 0x40 else _old_header(packet)
    body = packet[start:start + length]
    if tag != _PUBLIC_KEY or len(body) != length or length < 6:
        raise ParseError("the file does not begin with a whole OpenPGP public key")
    if body[0] != 4:
        raise ParseError(f"a key of version {body[0]}, only version 4 is known")
    return hashlib.sha1(b"\x99" + length.to_bytes(2, "big") + body, usedforsecurity=False).hexdigest().upper()


def _dearmored(data: bytes) -> bytes:
    armor = _ARMOR.search(data)
    if armor is None:
        return data
    lines = armor[1].replace(b"\r", b"").split(b"\n")
    if b"" in lines:                                   # headers end with an empty line
        lines = lines[lines.index(b"") + 1:]
    try:
        return base64.b64decode(b"".join(line for line in lines if not line.startswith(b"=")), validate=True)
    except binascii.Error as error:
        raise ParseError("an armored key whose base64 is broken") from error


def _old_header(packet: bytes) -> tuple[int, int, int]:
    size = {0: 1, 1: 2, 2: 4}.get(packet[0] & 3)
    if size is None or len(packet) < 1 + size:
        raise ParseError("an OpenPGP packet without a length")
    return packet[0] >> 2 & 0xF, 1 + size, _bounded(int.from_bytes(packet[1:1 + size], "big"))


def _new_header(packet: bytes) -> tuple[int, int, int]:
    tag, first = packet[0] & 0x3F, packet[1] if len(packet) > 1 else 255
    if first < 192:
        return tag, 2, first
    if first < 224 and len(packet) > 2:
        return tag, 3, (first - 192 << 8) + packet[2] + 192
    if first == 255 and len(packet) > 5:
        return tag, 6, _bounded(int.from_bytes(packet[2:6], "big"))
    raise ParseError("an OpenPGP packet without a length")


def _bounded(length: int) -> int:
    if length > 0xFFFF:
        raise ParseError("a public key of more than 64 KiB")
    return length

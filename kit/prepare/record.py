"""The checksum of an artifact as a mirror has it now. It is printed, never written: a person compares and adds it."""

from __future__ import annotations

import contextlib
import hashlib
import urllib.error
import urllib.request

from kit.errors import ParamsError, ParseError, StoreError
from kit.parse.openpgp import key_fingerprint
from kit.prepare.site import read_artifacts

_TIMEOUT_S = 60
_CHUNK = 1 << 20
_KEY_BYTES = 1 << 16


def record(name: str, mirror: str) -> list[str]:
    """The lines for params/artifacts.yaml. Raises ParamsError for an unknown name, StoreError for no answer."""
    known = read_artifacts()
    if name not in known.artifacts:
        raise ParamsError(f"no artifact {name!r}; there are: {', '.join(known.artifacts)}")
    url = known.artifacts[name].url.replace("{mirror}", known.mirrors.get(mirror, mirror).rstrip("/"))
    digest, size, start = hashlib.sha256(), 0, b""
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as answer:  # noqa: S310  the schema allows no other kind
            expected = answer.headers.get("Content-Length")
            while block := answer.read(_CHUNK):
                digest.update(block)
                size += len(block)
                start = (start + block)[:_KEY_BYTES]
    except (urllib.error.URLError, OSError) as error:
        raise StoreError(f"cannot fetch {url}: {error}", remedy="name a mirror that this machine reaches: --mirror") \
            from error
    if expected is not None and int(expected) != size:
        raise StoreError(f"{url} ended after {size} of {expected} bytes", remedy="try again, or another mirror")
    lines = [f"# {url}, {size} bytes: compare with what the vendor publishes before you add it",
             f"  {name}:", f"    sha256: {digest.hexdigest()}"]
    with contextlib.suppress(ParseError):      # most artifacts are no key
        lines.append(f"    fingerprint: {key_fingerprint(start)}")
    was = known.artifacts[name].sha256
    if was is not None and was != digest.hexdigest():
        lines.append(f"# DIFFERENT from the recorded {was}: do not use this file before you know why")
    return lines

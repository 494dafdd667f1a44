"""Fingerprints as gpg itself prints them; anything else is a ParseError."""

import contextlib
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.errors import ParseError
from kit.parse.openpgp import key_fingerprint


@pytest.fixture(scope="module")
def gpg(tmp_path_factory):
    if shutil.which("gpg") is None:
        pytest.skip("needs gpg")
    home = tmp_path_factory.mktemp("gpg")
    home.chmod(0o700)
    call = ["gpg", "--homedir", str(home), "--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", ""]
    yield call
    subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False, capture_output=True)


@pytest.mark.parametrize("kind", ["ed25519", "rsa1024"])
def test_as_gpg_says(gpg, kind):
    subprocess.run([*gpg, "--quick-gen-key", kind, kind, "sign", "never"], check=True, capture_output=True)
    told = subprocess.run([*gpg, "--with-colons", "--list-keys", kind], check=True, capture_output=True, text=True)
    wanted = next(line.split(":")[9] for line in told.stdout.splitlines() if line.startswith("fpr"))
    for armor in ([], ["--armor"]):
        public = subprocess.run([*gpg, *armor, "--export", kind], check=True, capture_output=True).stdout
        assert key_fingerprint(public) == wanted
        with pytest.raises(ParseError):
            key_fingerprint(public[:40])


@given(st.one_of(st.binary(max_size=200), st.binary(max_size=200).map(lambda data: b"\x98" + data)))
def test_any_bytes_give_a_fingerprint_or_a_parse_error(data):
    with contextlib.suppress(ParseError):
        assert len(key_fingerprint(data)) == 40


def test_broken_armor_is_told():
    with pytest.raises(ParseError, match="base64"):
        key_fingerprint(b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n@@@\n-----END PGP PUBLIC KEY BLOCK-----")

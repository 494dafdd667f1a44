"""Quoting and secrecy are types."""

import subprocess

from hypothesis import given
from hypothesis import strategies as st

from kit.command import Secret, command, script

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40)


@given(st.lists(TEXT, min_size=1, max_size=4))
def test_any_text_survives_two_shells(words):
    inner = script('for word; do printf "%s\\0" "$word"; done', *words)
    outer = script('eval "$1"', inner.line)
    said = subprocess.run(["sh", "-c", outer.line], capture_output=True, check=True).stdout
    assert said.decode().split("\0")[:-1] == words


@given(TEXT.filter(lambda text: len(text) > 3))
def test_a_secret_never_shows(text):
    asked = command("login", Secret(f"{text}#canary")).with_env(TOKEN=Secret(f"{text}#canary"))
    assert "#canary" not in str(asked) + repr(asked)
    assert "#canary" in asked.line

"""What the documentation says is what the code does. `KIT_WRITE_DOCS=1 pytest tests/test_docs.py` writes it anew."""

import os
import re

from click.testing import CliRunner

from kit.cli import main
from kit.paths import root
from kit.schemadoc import schema_page


def test_readme_shows_the_commands():
    readme = root() / "README.md"
    text = readme.read_text()
    shown = CliRunner().invoke(main, ["--help"], prog_name="kit", terminal_width=100).output.strip()
    block = f"<!-- kit --help: checked by tests/test_docs.py -->\n```text\n{shown}\n```\n<!-- end -->"
    written = re.sub(r"<!-- kit --help.*?<!-- end -->", lambda _: block, text, flags=re.DOTALL)
    if os.environ.get("KIT_WRITE_DOCS"):
        readme.write_text(written)
    assert readme.read_text() == written


def test_params_page_shows_every_key():
    page = root() / "params" / "README.md"
    if os.environ.get("KIT_WRITE_DOCS"):
        page.write_text(schema_page())
    assert page.read_text() == schema_page()

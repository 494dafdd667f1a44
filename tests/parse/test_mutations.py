"""Damaged output gives a result or an error object, never a traceback; KIT_MUTATIONS sets how many are tried."""

import json
import os
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kit.parse.document import parse_document

DATA = Path(__file__).parent.parent / "data"
TEXTS = [
    path.read_bytes()[:12000]
    for folder in (DATA / "softrdma", DATA / "perftest" / "derived")
    for path in sorted(folder.iterdir())
    if path.suffix in (".txt", ".json")
]
EXAMPLES = int(os.environ.get("KIT_MUTATIONS", "500"))
SCRAPS = [b"\0", b"\xed\xa0\x80", b"\xff", b"-nan", b"inf", b"-1", b"9" * 400, b"{", b"}", b'"', b":", b"\r", b"0x"]
SCRAPS += [b"===== CLIENT\n", b"--- stdout\n", b"--- stderr\n", b"$ ib_write_bw '\n", b"# host=x exit=None\n"]
SCRAPS += ["٣²".encode(), b"-" * 87 + b"\n", b"\t" * 300, b"[" * 3000, b" " * 3000]
KINDS = st.sampled_from(["perftest"] * 6 + ["ibv_devinfo", "ibv_devices", "bench"])

step = st.tuples(
    st.sampled_from(["drop", "double", "flip", "cut", "splice", "scrap", "swap", "digit"]),
    st.floats(0, 1, exclude_max=True),
    st.floats(0, 1, exclude_max=True),
    st.integers(0, 255),
)


def mutate(text, operation, where, other, byte):
    lines = text.split(b"\n")
    row, spot = int(where * len(lines)), int(where * len(text))
    if operation == "drop":
        del lines[row]
    elif operation == "double":
        lines.insert(row, lines[int(other * len(lines))])
    elif operation == "swap":
        another = int(other * len(lines))
        lines[row], lines[another] = lines[another], lines[row]
    elif operation == "flip":
        return text[:spot] + bytes([byte]) + text[spot + 1 :]
    elif operation == "cut":
        return text[:spot] if byte % 2 else text[spot:]
    elif operation == "scrap":
        return text[:spot] + SCRAPS[byte % len(SCRAPS)] + text[spot:]
    elif operation == "digit":
        return text.replace(b"%d" % (byte % 10), b"%d" % (byte // 10 % 10), 1 + byte % 3)
    else:
        donor = TEXTS[byte % len(TEXTS)]
        return text[:spot] + donor[int(other * len(donor)) :]
    return b"\n".join(lines)


def check(kind, text):
    document, status = parse_document(kind, text)
    json.dumps(document, ensure_ascii=True, allow_nan=False)
    if status == 0:
        assert document["kind"] == kind
        for row in document.get("rows", ()):
            assert row["iterations"] > 0
            assert row["size_bytes"] > 0
            assert all(figure is None or not isinstance(figure, float) or figure >= 0 for figure in row.values())
            assert row["bandwidth_gbps"] or row["bandwidth_printed"] or row["t_avg_us"]
    else:
        assert status == 3
        assert document["error"]["symptom"]


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(st.sampled_from(TEXTS), st.lists(step, min_size=1, max_size=4), KINDS)
def test_damaged_output(text, steps, kind):
    for operation, where, other, byte in steps:
        if text:
            text = mutate(text, operation, where, other, byte)
    check(kind, text.decode("utf-8", "surrogatepass" if b"\xed\xa0\x80" in text and _decodable(text) else "replace"))


@settings(max_examples=max(EXAMPLES // 5, 50), deadline=None, database=None)
@given(st.text(), st.sampled_from(["perftest", "ibv_devinfo", "ibv_devices", "bench"]))
def test_any_text(text, kind):
    check(kind, text)


def _decodable(text):
    try:
        text.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return False
    return True

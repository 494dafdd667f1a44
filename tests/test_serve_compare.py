"""Serving runs side by side: what is not VALID never becomes a ratio, and is crossed out wherever it is shown."""

import matplotlib.pyplot as plt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit import serve_compare, serve_plots
from kit.errors import StoreError
from kit.serving.table import COLUMNS, table
from kit.store import Run

AXES = {"site": "lab", "input_tokens": 512, "output_tokens": 32, "concurrency": 4}
VALID = {"outcome": "VALID", "symptom": "", "reason": "", "remedy": "", "hit_ratio": 0.9}
INVALID = {"outcome": "INVALID", "symptom": "hash_seed_differs", "reason": "0 B", "remedy": "set it", "hit_ratio": 0.0}
FAILED = {"outcome": "FAILED", "symptom": "part_ended", "reason": "the decoder ended", "remedy": "look"}


def rows(stack, outcome, ttft, *, repeats=3, **more):
    """Repeats of one stack whose TTFT is about this; a FAILED one has no measures."""
    measured = {} if ttft is None else {"tpot_ms": ttft / 10, "output_tokens_per_s": 1e4 / ttft}
    return [{**AXES, "stack": stack, "repeat": turn, **outcome, **measured,
             "ttft_ms": None if ttft is None else ttft + turn, **more} for turn in range(repeats)]


def points(*groups):
    return table([row for group in groups for row in group], COLUMNS)


ALL = points(rows("one", VALID, 100), rows("two", VALID, 200), rows("lie", INVALID, 50), rows("dead", FAILED, None))


def test_only_valid_stacks_have_a_ratio():
    found = serve_compare.against(ALL, "one").set_index("stack")["ttft_ms"]
    assert found["two"] == "x 1.99 (worse)"
    assert (found["lie"], found["dead"]) == ("not valid", "not valid")
    assert set(serve_compare.against(ALL, "lie")["ttft_ms"]) == {"not valid"}


def test_one_bad_repeat_spoils_its_stack():
    mixed = points(rows("one", VALID, 100), rows("two", VALID, 200, repeats=2),
                   [{**row, "repeat": 2} for row in rows("two", INVALID, 200, repeats=1)])
    assert set(serve_compare.against(mixed, "one")["ttft_ms"]) == {"not valid"}
    shown = serve_compare.summary(mixed).set_index("stack")
    assert (shown["outcome"]["two"], shown["symptom"]["two"]) == ("INVALID", "hash_seed_differs")


def test_a_difference_within_the_spread_is_none_and_one_repeat_says_so():
    near = points(rows("one", VALID, 100), rows("two", VALID, 100.5))
    assert serve_compare.against(near, "one")["ttft_ms"][0].endswith("(no difference)")
    once = points(rows("one", VALID, 100, repeats=1), rows("two", VALID, 200, repeats=1))
    assert serve_compare.against(once, "one")["ttft_ms"][0] == "x 2 (not repeated)"


@given(st.lists(st.sampled_from(["VALID", "INVALID", "FAILED"]), min_size=1, max_size=6))
def test_no_outcome_but_valid_ever_gets_a_ratio(outcomes):
    kinds = {"VALID": VALID, "INVALID": INVALID, "FAILED": FAILED}
    repeats = [{**rows("two", kinds[name], 150, repeats=1)[0], "repeat": turn} for turn, name in enumerate(outcomes)]
    mixed = points(rows("one", VALID, 100), repeats)
    (said,) = serve_compare.against(mixed, "one")["ttft_ms"]
    assert said.startswith("x ") == (set(outcomes) == {"VALID"})


def test_what_is_not_valid_is_crossed_out():
    html = serve_compare.crossed_out(serve_compare.summary(ALL)).data
    assert html.count("line-through") == 1, "one rule"
    rule = html[html.index("<style"):html.index("line-through")].rpartition("}")[2]
    struck = {f"row{row}" for row in range(4) if f"row{row}_" in rule}
    stacks = list(serve_compare.summary(ALL)["stack"])
    assert {stacks[int(name[3:])] for name in struck} == {"lie", "dead"}


def test_problems_are_listed_once_with_their_remedy():
    found = serve_compare.problems(ALL)
    assert sorted(zip(found["stack"], found["times"], found["remedy"], strict=True)) == [
        ("dead", 3, "look"), ("lie", 3, "set it")]
    assert serve_compare.problems(points(rows("one", VALID, 100))).empty


@pytest.mark.parametrize("frame", [ALL, points(rows("one", VALID, 100)), points(rows("dead", FAILED, None)),
                                   points(rows("a", VALID, 90, concurrency=None, requests_per_s=2.5))],
                         ids=["all", "one", "nothing measured", "open loop"])
def test_the_plot_says_what_is_no_result(frame, tmp_path):
    figure = serve_plots.stacks_side_by_side(frame, about="a made-up lab")
    figure.savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 5000
    said = " ".join(text.get_text() for ax in figure.axes for text in ax.texts)
    for _, point in frame[frame["outcome"] != "VALID"].iterrows():
        assert point["outcome"] in said
    hatched = [bar for bar in figure.axes[0].patches if bar.get_hatch()]
    assert len(hatched) == frame[(frame["outcome"] != "VALID") & frame["ttft_ms"].notna()]["stack"].nunique()
    assert "a made-up lab" in figure.get_suptitle()
    plt.close(figure)


def test_a_row_for_each_load_on_one_scale():
    both = points(rows("one", VALID, 100, concurrency=1), rows("two", VALID, 900), rows("one", VALID, 300))
    figure = serve_plots.stacks_side_by_side(both, about="here")
    assert [part.get_suptitle() for part in figure.subfigs] == [
        "512 tokens in, 32 out, concurrency 1", "512 tokens in, 32 out, concurrency 4"]
    assert figure.axes[0].get_xlim() == figure.axes[4].get_xlim()
    assert [text.get_text() for text in figure.axes[0].texts] == [" not measured"]
    plt.close(figure)


def kept(folder, frame):
    Run(folder).keep_points(frame)
    return folder


def test_one_run_keeps_its_names_and_more_are_told_apart_by_site(tmp_path):
    lab = kept(tmp_path / "lab", points(rows("one", VALID, 100)))
    again = kept(tmp_path / "again", points(rows("one", VALID, 100)).drop(columns="wire_share"))
    cloud = kept(tmp_path / "cloud", points(rows("one", VALID, 200, site="cloud")))
    assert set(serve_compare.load([lab])["stack"]) == {"one"}
    found = serve_compare.load([lab, cloud, again])
    assert list(found.columns) == list(COLUMNS)
    assert found.dtypes.astype(str).to_dict() == COLUMNS
    assert list(found["stack"]) == ["lab/one"] * 3 + ["cloud/one"] * 3 + ["lab/one"] * 3
    assert serve_compare.summary(found).set_index("stack")["repeats"].to_dict() == {"lab/one": 6, "cloud/one": 3}


def test_a_run_that_cannot_be_compared_is_refused(tmp_path):
    lab = kept(tmp_path / "lab", points(rows("one", VALID, 100)))
    link = kept(tmp_path / "link", points(rows("one", VALID, 100)).drop(columns="stack"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(StoreError, match="no serving run"):
        serve_compare.load([lab, link])
    with pytest.raises(StoreError, match=r"empty holds no points\.parquet"):
        serve_compare.load([lab, tmp_path / "empty"])

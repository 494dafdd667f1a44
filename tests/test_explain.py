"""Attribution: on real runs of one H200, and on requests whose parts are known."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from served import ENGINE, SIZE, h200, requests

from kit.errors import ParamsError
from kit.explain import (
    AGGREGATED,
    HANDOVER,
    QUEUEING,
    SPLIT,
    Served,
    explain,
    link_use,
    needed_gbps,
    parts_table,
    predictions_table,
)
from kit.linkmodel import nominal


@pytest.fixture(scope="module")
def explained():
    return explain(h200("moon"), h200("agg"), first_from="decoder", size_of=SIZE,
                   predicted={"link": nominal(100), "engine": ENGINE})


def test_the_handover_on_the_h200(explained):
    short, long = explained
    assert (short.prompt_tokens, long.prompt_tokens) == (512, 4096)
    assert long.size_bytes == 224 * 2**20
    assert long.handover_ms.value == pytest.approx(750.8 - 106.7 - 16.1, abs=0.5)
    assert long.handover_ms.low < long.handover_ms.value < long.handover_ms.high
    assert long.total_ms(SPLIT, "ttft") == pytest.approx(750.8, abs=0.1)
    assert long.total_ms(AGGREGATED, "ttft") == pytest.approx(106.7, abs=0.1)
    # Both lengths moved at the same rate: the hand-over is a matter of bytes, not of a fixed cost.
    assert short.handover_gbps == pytest.approx(long.handover_gbps, rel=0.1)
    assert long.handover_gbps == pytest.approx(3.0, abs=0.1)


def test_what_the_engine_does_not_explain(explained):
    long = explained[1]
    assert long.predicted_ms["engine"].value == pytest.approx(150, rel=0.1)
    assert long.residual_ms["engine"].value == pytest.approx(478, rel=0.05)
    assert long.residual_ms["engine"].low > 0          # the engine over host memory cannot be all of it
    assert "84% of the TTFT" in long.lines()[0]
    assert "engine predicts" in long.lines()[2]


def test_tables(explained):
    parts = parts_table(explained)
    shares = parts.groupby(["prompt_tokens", "stack", "where"])["share"].sum()
    assert shares.to_numpy() == pytest.approx(1.0)
    table = predictions_table(explained)
    assert set(table["source"]) == {"link", "engine"}
    assert (table["error"] < 0).all()


def test_link_use_is_bytes_over_wall_time():
    assert link_use(25e9, 8.0, nominal(100)) == pytest.approx(0.25)
    for wrong in ((1, 0), (-1, 1)):
        with pytest.raises(ParamsError):
            link_use(*wrong, nominal(100))


def test_no_gain_end_to_end_on_one_gpu(explained):
    long = explained[1]
    assert long.pays is False
    assert long.gain_ms.value == pytest.approx(long.saved_ms.value - long.handover_ms.value)
    needed = needed_gbps(long)
    assert needed is None or needed > 20 * long.handover_gbps
    assert needed_gbps(long, share_of_prefill=1.0) == pytest.approx(long.size_bytes * 8e-6 / 106.7, rel=1e-3)


PARTS = st.tuples(st.floats(5, 500), st.floats(1, 2000), st.floats(0, 500), st.floats(1, 50))


@settings(max_examples=15, deadline=None)
@given(PARTS, st.sampled_from(["decoder", "prefiller"]))
def test_known_parts_are_found_again(parts, kind):
    prefill, handover, queueing, step = parts
    in_ttft = kind == "decoder"

    def split(wait):
        return requests(ttft=prefill + (handover + step + wait if in_ttft else wait), tpot=step,
                        first_itl=step if in_ttft else handover + step)

    base = requests(ttft=prefill, first_itl=step, tpot=step)
    found = explain(Served("pd", split(queueing), 8), Served("agg", base, 8), first_from=kind,
                    size_of=SIZE, predicted={}, quiet=Served("quiet", split(0), 1),
                    quiet_baseline=Served("quiet agg", base, 1))[0]
    noise = 0.02 * (prefill + handover + queueing + step)
    assert found.handover_ms.value == pytest.approx(handover, abs=noise)
    waiting = sum(part.ms.value for part in found.parts if part.name == QUEUEING and part.stack == SPLIT)
    assert waiting == pytest.approx(queueing, abs=noise)
    places = {part.where for part in found.parts if part.name == HANDOVER}
    assert places == {"ttft" if in_ttft else "first_itl"}
    assert found.separable


def test_without_a_quiet_run_queueing_stays_inside():
    base = Served("agg", requests(ttft=100, first_itl=10, tpot=10), 8)
    run = Served("pd", requests(ttft=400, first_itl=10, tpot=10), 8)
    found = explain(run, base, first_from="decoder", size_of=SIZE, predicted={})[0]
    assert not found.separable
    assert "queueing included" in found.lines()[0]


def test_two_requests_have_no_interval():
    base = Served("agg", requests(2, ttft=100, first_itl=10, tpot=10), 1)
    run = Served("pd", requests(2, ttft=400, first_itl=10, tpot=10), 1)
    found = explain(run, base, first_from="decoder", size_of=SIZE, predicted={"link": nominal(25)})[0]
    assert found.handover_ms.low is None
    assert found.residual_ms["link"].low is None


def test_faster_than_the_baseline_is_no_error():
    base = Served("agg", requests(ttft=400, first_itl=10, tpot=10), 1)
    run = Served("pd", requests(ttft=100, first_itl=10, tpot=10), 1)
    found = explain(run, base, first_from="decoder", size_of=SIZE, predicted={"link": nominal(25)})[0]
    assert found.handover_ms.value < 0
    assert found.handover_gbps is None
    assert found.lines()
    assert predictions_table([found])["error"].isna().all()


def test_what_cannot_be_explained():
    base = Served("agg", requests(tokens=1000, ttft=100, first_itl=10, tpot=10), 1)
    other = Served("pd", requests(tokens=2000, ttft=100, first_itl=10, tpot=10), 1)
    with pytest.raises(ParamsError, match="no prompt length in common"):
        explain(other, base, first_from="decoder", size_of=SIZE, predicted={})
    bare = Served("pd", base.rows.drop(columns="first_itl_ms"), 1)
    with pytest.raises(ParamsError, match="first_itl_ms"):
        explain(bare, base, first_from="decoder", size_of=SIZE, predicted={})

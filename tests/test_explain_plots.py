"""The figures of explanations: what is drawn, from real runs and from made-up ones."""

import pytest
from served import ENGINE, SIZE, h200, requests

from kit import explain_plots
from kit.explain import Served, explain
from kit.linkmodel import nominal


@pytest.fixture(scope="module")
def h200_runs():
    return explain(h200("moon"), h200("agg"), first_from="decoder", size_of=SIZE,
                   predicted={"link": nominal(100), "transfer engine": ENGINE})


@pytest.fixture(scope="module")
def first_token_from_the_prefiller():
    base = Served("agg", requests(ttft=100, first_itl=12, tpot=12), 8)
    run = Served("pd", requests(ttft=140, first_itl=90, tpot=9), 8)
    quiet = Served("quiet", requests(ttft=100, first_itl=60, tpot=9), 1)
    return explain(run, base, first_from="prefiller", size_of=SIZE, predicted={"link": nominal(25)}, quiet=quiet,
                   quiet_baseline=base)


def words(figure):
    texts = [text.get_text() for ax in figure.axes for text in ax.texts] + [figure.get_suptitle()]
    return texts + [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def test_attribution_says_the_finding(h200_runs):
    said = words(explain_plots.attribution(h200_runs, note="one H200"))
    assert "765 ms, 82% hand-over" in said
    assert "predicted: transfer engine" in said
    assert any(text.startswith("4,096 tokens: 82% of the time to the second token is hand-over") and "one H200" in text
               for text in said)
    assert "waiting in a queue" not in said


def test_the_first_token_is_marked_where_it_comes(first_token_from_the_prefiller, h200_runs):
    def marks(explanations):
        ax = explain_plots.attribution(explanations).axes[0]
        return [float(line.get_xdata()[0]) for line in ax.lines if line.get_marker() == "v"]

    assert marks(first_token_from_the_prefiller) == pytest.approx([100, 140], abs=2)
    assert marks(h200_runs)[3] == pytest.approx(750.8, abs=0.1)


def test_queueing_is_drawn_where_it_is_known(first_token_from_the_prefiller):
    assert "waiting in a queue" in words(explain_plots.attribution(first_token_from_the_prefiller))


def test_parts_below_zero_take_no_room():
    base = Served("agg", requests(ttft=400, first_itl=10, tpot=10), 1)
    run = Served("pd", requests(ttft=100, first_itl=10, tpot=10), 1)
    found = explain(run, base, first_from="decoder", size_of=SIZE, predicted={"link": nominal(25)})
    ax = explain_plots.attribution(found).axes[0]
    assert all(bar.get_width() > 0 for bar in ax.patches)
    assert "From which link on does the split pay?" in words(explain_plots.break_even(found))


def test_several_stacks_in_one_figure(h200_runs, first_token_from_the_prefiller):
    both = [*first_token_from_the_prefiller, *h200_runs]
    figure = explain_plots.attribution(both, names=["store", "direct", "direct"])
    named = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert named[:4] == ["1,000 tokens, concurrency 8, aggregated", "store", "512 tokens, concurrency 1, aggregated",
                         "direct"]
    said = figure.get_suptitle().splitlines()
    assert said[0].startswith("direct: 82% of the time to the second token is hand-over; the ")
    assert said[1].startswith("store: ")


def test_break_even_shows_what_was_reached(h200_runs, first_token_from_the_prefiller):
    said = words(explain_plots.break_even(h200_runs, links={"link": 100.0}))
    assert "link: 100 Gb/s" in said
    assert "measured: the split does not pay" in said
    assert "4,096 tokens: the hand-over runs at 2.99 Gb/s; 17.6 would make it as short as the prefill" in said
    assert any("of the prefill's time" in text for text in words(
        explain_plots.break_even(first_token_from_the_prefiller)))
    assert "measured: the split pays" in words(explain_plots.break_even(first_token_from_the_prefiller))

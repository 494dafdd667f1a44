"""Closed schemas: a wrong key or value is named before anything starts."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.errors import ParamsError
from kit.params import Experiment, LinkParams, Site, check, load, secret
from kit.paths import root
from kit.sites import read_site

NODE = {"host": "h", "rdma_device": "erdma_0", "rdma_address": "10.0.0.1"}


@pytest.mark.parametrize("path", sorted((root() / "params" / "sites").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_site_in_git_is_valid(path):
    load(Site, path)


@pytest.mark.parametrize("path", sorted((root() / "params" / "experiments").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_experiment_in_git_is_valid(path):
    for stage in load(Experiment, path).stages:
        read_site(stage.site)


@pytest.mark.parametrize(("values", "said"), [
    ({"sizes": [1]}, "sizes: unknown parameter; known: tools, sizes_bytes"),
    ({"sizes_bytes": ["64"]}, "sizes_bytes.0: Input should be a valid integer"),
    ({"sizes_bytes": []}, "an axis needs at least one value"),
    ({"qps": [4, 4]}, "an axis names each value once"),
    ({"tools": ["ib_write_lag"]}, "tools.0"),
    ({"iterations": 100, "duration_s": 2}, "not both"),
    ({"duration_s": 60}, "more than 5 s above duration_s"),
    ({"repeats": True}, "repeats"),
])
def test_a_wrong_parameter_is_named(values, said):
    with pytest.raises(ParamsError) as caught:
        check(LinkParams, values, where="03_link_perftest")
    assert said in str(caught.value)
    assert "03_link_perftest" in str(caught.value)


@pytest.mark.parametrize(("values", "said"), [
    ({"name": "x"}, "exactly one of: nodes, lab, replay"),
    ({"name": "x", "lab": "siw", "replay": "y"}, "exactly one of"),
    ({"name": "x", "nodes": {"a": NODE}}, "the two nodes a and b"),
    ({"name": "x", "nodes": {"a": NODE, "b": {**NODE, "password": "p"}}}, "nodes.b.password: unknown parameter"),
    ({"name": "../x", "lab": "siw"}, "name"),
])
def test_a_wrong_site_is_named(values, said):
    with pytest.raises(ParamsError) as caught:
        check(Site, values, where="site.yaml")
    assert said in str(caught.value)


def test_stage_parameters_are_checked_inside_the_experiment():
    values = {"name": "x", "stages": [{"stage": "03_link_perftest", "site": "lab-siw", "params": {"qp": [1]}}]}
    with pytest.raises(ParamsError) as caught:
        check(Experiment, values, where="x.yaml")
    assert "qp" in str(caught.value)


def test_unknown_site_lists_the_known_ones():
    with pytest.raises(ParamsError, match="lab-siw"):
        read_site("nowhere")


def test_a_secret_is_named_and_looked_up(monkeypatch):
    monkeypatch.setenv("KIT_TEST_KEY", "/path")
    assert secret("env:KIT_TEST_KEY") == "/path"
    monkeypatch.delenv("KIT_TEST_KEY")
    with pytest.raises(ParamsError, match="KIT_TEST_KEY"):
        secret("env:KIT_TEST_KEY")


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner)
                    | st.dictionaries(st.text(), inner), max_leaves=8))
def test_any_yaml_gives_a_schema_or_a_params_error(values):
    for schema in (Site, Experiment, LinkParams):
        with contextlib.suppress(ParamsError):
            check(schema, values, where="x")

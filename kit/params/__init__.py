"""Closed schemas of sites, experiments and stage parameters: an unknown key is an error, before anything starts.

A site says which machines there are; an experiment says which stages run on which site, with which axes.
"""

from kit.params.closed import Closed, check, load, secret
from kit.params.engine import EngineParams
from kit.params.experiment import STAGES, Experiment, Stage
from kit.params.link import DeviceParams, Expect, LinkParams
from kit.params.site import Jump, Node, Site

__all__ = ["STAGES", "Closed", "DeviceParams", "EngineParams", "Expect", "Experiment", "Jump", "LinkParams", "Node",
           "Site", "Stage", "check", "load", "secret"]

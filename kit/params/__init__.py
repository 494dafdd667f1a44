"""Closed schemas of sites, experiments and stage parameters: an unknown key is an error, before anything starts.

A site says which machines there are; an experiment says which stages run on which site, with which axes.
"""

from kit.params.closed import Closed, check, load, secret
from kit.params.engine import EngineParams
from kit.params.experiment import STAGES, Experiment, Stage
from kit.params.link import DeviceParams, Expect, LinkParams
from kit.params.prepare import (
    Artifact,
    Artifacts,
    ContainerWanted,
    DriverWanted,
    ExporterWanted,
    LimitsWanted,
    ModeWanted,
    NetworkWanted,
    Prepare,
    SetupParams,
    StorageWanted,
    UserSpaceWanted,
)
from kit.params.serve import LaunchParams, ServeBenchParams, ServeExpect
from kit.params.serving import Environment, Serving
from kit.params.site import Jump, Node, Site
from kit.params.stack import Pool, Ports, Stack, Store

__all__ = ["STAGES", "Artifact", "Artifacts", "Closed", "ContainerWanted", "DeviceParams", "DriverWanted",
           "EngineParams", "Environment", "Expect", "Experiment", "ExporterWanted", "Jump", "LaunchParams",
           "LimitsWanted", "LinkParams", "ModeWanted", "NetworkWanted", "Node", "Pool", "Ports", "Prepare",
           "ServeBenchParams", "ServeExpect", "Serving", "SetupParams", "Site", "Stack", "Stage",
           "StorageWanted", "Store", "UserSpaceWanted", "check", "load", "secret"]

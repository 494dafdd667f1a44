"""An experiment: which stages run on which site, with which axes. ``params/experiments/*.yaml``"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from kit.params.closed import Closed, Name
from kit.params.engine import EngineParams
from kit.params.link import DeviceParams, LinkParams
from kit.params.prepare import SetupParams
from kit.params.serve import LaunchParams, ServeBenchParams

STAGES: dict[str, type[Closed]] = {
    "01_driver_setup": SetupParams, "02_device_info": DeviceParams, "03_link_perftest": LinkParams,
    "04_transfer_engine": EngineParams, "05_pd_launch": LaunchParams, "06_serve_bench": ServeBenchParams,
}
StageName = Literal["01_driver_setup", "02_device_info", "03_link_perftest", "04_transfer_engine", "05_pd_launch",
                    "06_serve_bench"]


class Stage(Closed):
    """One notebook on one site, with its parameters checked by the stage's own schema."""

    stage: StageName
    site: str
    params: dict[str, Any] = {}

    @model_validator(mode="after")
    def _params_fit(self) -> Stage:
        STAGES[self.stage](**self.params)
        return self


class Experiment(Closed):
    """What `kit run` runs. With ``compare``, link, transfer-engine and serving runs are put side by side at the end."""

    name: Name
    title: str = ""
    stages: Annotated[list[Stage], Field(min_length=1)]
    compare: bool = False

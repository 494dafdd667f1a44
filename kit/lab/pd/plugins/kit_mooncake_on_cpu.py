"""Lets vLLM's MooncakeConnector work on a CPU. Loaded by vLLM in each of its processes through the entry point
``vllm.general_plugins``; it lies in the lab's current environment only. Where a GPU is usable it does nothing.

It asks for the number of its GPU, which raises where there is none (vllm 0.32.0,
distributed/kv_transfer/kv_connector/v1/mooncake/mooncake_connector.py: ``torch.accelerator.current_device_index()``,
then ``current_platform.set_device``).

An engine that only waits for KV steps without a pause, and each step is a message to every other process of it. On a GPU
node that costs a core that is there; on two cores it starves the very transfer that it waits for: requests of 0.5 s took
15 to 30 s, and some failed. So such a step takes a millisecond here (``kv_connector_no_forward``, in
v1/worker/kv_connector_model_runner_mixin.py).
"""

from __future__ import annotations

import time
from typing import Any

_STEP_S = 0.001


def register() -> None:
    """vLLM calls this in every process before it reads its configuration."""
    import torch
    from vllm.platforms.cpu import CpuPlatform
    from vllm.v1.worker.kv_connector_model_runner_mixin import KVConnectorModelRunnerMixin

    if torch.cuda.is_available():
        return
    torch.accelerator.current_device_index = lambda: 0
    CpuPlatform.set_device = classmethod(lambda cls, device: None)
    step = KVConnectorModelRunnerMixin.kv_connector_no_forward

    def step_without_work(*args: Any) -> Any:
        time.sleep(_STEP_S)
        return step(*args)

    KVConnectorModelRunnerMixin.kv_connector_no_forward = staticmethod(step_without_work)

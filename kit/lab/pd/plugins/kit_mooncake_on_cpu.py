"""Lets vLLM's MooncakeConnector start on a CPU: it asks for the number of its GPU, which raises where there is none.

Loaded by vLLM in each of its processes through the entry point ``vllm.general_plugins``; it lies in the lab's current
environment only. Where a GPU is usable it does nothing. (vllm 0.32.0,
distributed/kv_transfer/kv_connector/v1/mooncake/mooncake_connector.py: ``torch.accelerator.current_device_index()``,
then ``current_platform.set_device``.)
"""

from __future__ import annotations


def register() -> None:
    """vLLM calls this in every process before it reads its configuration."""
    import torch
    from vllm.platforms.cpu import CpuPlatform

    if torch.cuda.is_available():
        return
    torch.accelerator.current_device_index = lambda: 0
    CpuPlatform.set_device = classmethod(lambda cls, device: None)

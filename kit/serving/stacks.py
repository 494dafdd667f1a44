"""A stack read, and wired for an open site."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from kit.errors import ParamsError
from kit.kv import CacheDtype, bytes_per_token
from kit.kv_config import shape_of
from kit.params import Stack, load
from kit.paths import root
from kit.serving.parts import Seat, Wiring, parts
from kit.serving.proxy_patch import patched
from kit.sites import Pair

if TYPE_CHECKING:
    import pandas as pd

_DTYPES: dict[str, CacheDtype] = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}


def read_stack(name: str) -> Stack:
    """By name under ``params/stacks/``, or by path. Raises ParamsError with the known names."""
    path = Path(name)
    if path.suffix in {".yaml", ".yml"}:
        return load(Stack, path)
    folder = root() / "params" / "stacks"
    if not (folder / f"{name}.yaml").exists():
        known = ", ".join(sorted(file.stem for file in folder.glob("*.yaml")))
        raise ParamsError(f"no stack {name!r}; there are: {known}")
    return load(Stack, folder / f"{name}.yaml")


def wired(pair: Pair, stack: Stack, folders: dict[str, str] | None = None) -> Wiring:
    """The stack on this site's two nodes; ``folders``: end -> the run's folder there. Raises ParamsError.

    Without ``folders`` it is only to be looked at: no node was asked for one, and the proxy's text is left out.
    """
    serving = pair.serving
    if serving is None:
        raise ParamsError(f"the site {pair.site.name} does not say how it serves", remedy="give it a serving section")
    if stack.environment not in serving.environments:
        raise ParamsError(f"the site {pair.site.name} has no environment {stack.environment!r} for the stack "
                          f"{stack.name}; it has: {', '.join(serving.environments)}",
                          remedy="name it under serving.environments of the site")
    prefill, decode = (Seat(end.name, end.address, end.device, folders[end.name] if folders else "RUN-FOLDER")
                       for end in (pair.prefill, pair.decode))
    return Wiring(stack, serving, prefill, decode, pair.prefill.host.run_id,
                  _proxy(stack, pair.lmcache_proxy) if folders else "")


def outline(wiring: Wiring) -> pd.DataFrame:
    """Every process of a stack as the command that starts it, in order."""
    import pandas as pd

    return pd.DataFrame([{"stack": wiring.stack.name, "what": part.role, "node": part.end, "port": part.port,
                          "command": str(part.command)} for part in parts(wiring)])


def _proxy(stack: Stack, source: Path | None) -> str:
    """LMCache's proxy, patched; empty where there is none to take it from, as in a replay or a plan."""
    if stack.store is None or source is None:
        return ""
    try:
        program = source.read_bytes()
    except OSError as error:
        raise ParamsError(f"cannot read {source}: {error.strerror}", remedy="take disagg_proxy_server.py from "
                          "LMCache's source distribution, and name it under serving.lmcache_proxy") from error
    if hashlib.sha256(program).hexdigest() != stack.store.proxy_sha256:
        raise ParamsError(f"{source} is not the proxy of LMCache {stack.versions['lmcache']}: its checksum is another",
                          remedy="take disagg_proxy_server.py from the source distribution of that version")
    return patched(program.decode(), waits_removed=stack.store.waits_removed, stored=stack.store.handover == "stored")


def kv_bytes_per_token(config: str, dtype: str) -> int:
    """Bytes of KV cache a token, from the text of a model's config.json and vLLM's --dtype. Raises ParamsError."""
    try:
        fields = json.loads(config)
    except ValueError as error:
        raise ParamsError(f"the model's config.json is not JSON: {error}") from error
    name = dtype if dtype != "auto" else str(fields.get("dtype") or fields.get("torch_dtype") or "")
    if name not in _DTYPES:
        raise ParamsError(f"the model's dtype is {name!r}", remedy=f"set serving.dtype to one of {', '.join(_DTYPES)}")
    return bytes_per_token(shape_of(fields), _DTYPES[name])

"""Runs on the prefiller's node, in the stack's environment: the proxy before vLLM's own Mooncake connectors.

Each request goes to the prefiller for one token, and then to the decoder, which takes over the KV and answers. So the
client's first token is the decoder's, and the hand-over is part of TTFT. What the decoder answers is passed on as it
comes; where either side fails, the client sees a failure and no empty success.

With ``--bootstrap`` both are told of one transfer, as vLLM's ``docs/features/mooncake_connector_usage.md`` says. With
``--master`` they share a Mooncake store: MooncakeStoreConnector puts blocks in a thread of its own, and no answer waits
for them (``kv_connector/v1/mooncake/store/worker.py``), so the decoder is asked once the master has counted them.
"""

import argparse
import asyncio
import json
import re
import time
import uuid
from collections.abc import AsyncIterator

from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector, web

_PATHS = ("/v1/completions", "/v1/chat/completions")
_PUT = re.compile(r"^master_batch_put_end_items_total (\d+)", re.MULTILINE)
_PAUSE_S = 0.003


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Proxy for a prefiller and a decoder with MooncakeConnector.")
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    for name in ("prefiller", "decoder"):
        parser.add_argument(f"--{name}", required=True, help="base URL")
    parser.add_argument("--bootstrap", help="base URL of the prefiller's bootstrap server")
    parser.add_argument("--master", help="base URL of the store's metrics: wait until a prompt's blocks are put")
    parser.add_argument("--block-tokens", type=int, default=16, help="tokens of one object in the store")
    parser.add_argument("--idle", type=float, default=5.0, help="seconds without any put after which none is awaited")
    return parser.parse_args()


class Puts:
    """The prefiller's puts, as the store's master counts them. They land in the order of the prompts.

    One that is slow is waited for as long as any are counted; to take it for one that never comes would let every later
    prompt go too early.
    """

    def __init__(self, master: str, block_tokens: int, idle_s: float) -> None:
        self._url, self._block, self._idle_s = f"{master}/metrics", block_tokens, idle_s
        self._asked = 0     # blocks of all prompts so far, and what was counted before the first
        self._never = 0     # of these, blocks that were given up: a prompt seen before puts nothing

    async def begin(self, client: ClientSession) -> None:
        self._asked = await self._seen(client)

    async def landed(self, client: ClientSession, prompt_tokens: int) -> None:
        """Wait until the blocks of all prompts so far are put, or none has been for a while, and then say so."""
        self._asked += prompt_tokens // self._block
        asked, begun = self._asked, time.monotonic()
        most, grew = 0, begun
        while (seen := await self._seen(client)) + self._never < asked:
            now = time.monotonic()
            if seen > most:
                most, grew = seen, now
            if now - grew > self._idle_s:
                print(f"kit: {asked - self._never - seen} blocks not put, and none in {self._idle_s:g} s", flush=True)
                self._never = asked - seen
                return
            await asyncio.sleep(_PAUSE_S)
        print(f"kit: stored after {1000 * (time.monotonic() - begun):.1f} ms", flush=True)

    async def _seen(self, client: ClientSession) -> int:
        async with client.get(self._url) as answer:
            found = _PUT.search(await answer.text())
        return int(found[1]) if found else 0


async def complete(request: web.Request) -> web.StreamResponse:
    """One request: prefill, then decode; the answer is the decoder's."""
    app, body = request.app, await request.json()
    identity = uuid.uuid4().hex
    headers = {"X-Request-Id": identity}
    # Without ignore_eos a prompt that the prefiller ends at once hands nothing over, and the decoder waits for it.
    first = {**body, "stream": False, "max_tokens": 1, "ignore_eos": True, **transfer(app, identity)}
    for key in ("stream_options", "min_tokens"):
        first.pop(key, None)
    if "max_completion_tokens" in first:
        first["max_completion_tokens"] = 1
    try:
        async with app["session"].post(app["prefiller"] + request.path, json=first, headers=headers) as answer:
            if answer.status != 200:
                return web.Response(status=answer.status, body=await answer.read(), content_type="application/json")
            prefilled = await answer.json()
        if app["puts"] is not None:
            await app["puts"].landed(app["session"], prefilled["usage"]["prompt_tokens"])
        engine = await engine_id(app) if app["bootstrap"] else ""
        then = {**body, **transfer(app, identity, engine)}
        async with app["session"].post(app["decoder"] + request.path, json=then, headers=headers) as answer:
            passed = web.StreamResponse(status=answer.status, headers={"Content-Type": answer.headers["Content-Type"]})
            await passed.prepare(request)
            async for piece in answer.content.iter_any():
                await passed.write(piece)
            await passed.write_eof()
            return passed
    except ClientError as error:
        app["engine"].clear()       # a restarted prefiller has another id
        return web.json_response({"error": {"message": f"{type(error).__name__}: {error}"}}, status=502)


def transfer(app: web.Application, identity: str, engine: str = "") -> dict[str, object]:
    """What either side is told of a transfer: the prefiller without ``engine``, which is its own id, the decoder with
    it. Instances that share a store are told nothing."""
    if not app["bootstrap"]:
        return {}
    source = {"remote_bootstrap_addr": app["bootstrap"], "remote_engine_id": engine} if engine else {}
    return {"kv_transfer_params": {"do_remote_decode": not engine, "do_remote_prefill": bool(engine),
                                   "transfer_id": f"kit-{identity}", **source}}


async def engine_id(app: web.Application) -> str:
    """The prefiller's engine id, as its bootstrap server tells it; asked once."""
    if not app["engine"]:
        async with app["session"].get(app["bootstrap"] + "/query") as answer:
            ranks = json.loads(await answer.text())
        app["engine"].append(ranks[min(ranks)]["engine_id"])
    return str(app["engine"][0])


async def health(request: web.Request) -> web.Response:
    """200 once both instances are well."""
    for side in ("prefiller", "decoder"):
        try:
            async with request.app["session"].get(request.app[side] + "/health") as answer:
                if answer.status != 200:
                    return web.Response(status=503, text=f"{side}: {answer.status}")
        except ClientError as error:
            return web.Response(status=503, text=f"{side}: {error}")
    return web.Response(text="ok")


async def models(request: web.Request) -> web.Response:
    async with request.app["session"].get(request.app["decoder"] + "/v1/models") as answer:
        return web.Response(status=answer.status, body=await answer.read(), content_type="application/json")


async def session(app: web.Application) -> AsyncIterator[None]:
    async with ClientSession(connector=TCPConnector(limit=0), timeout=ClientTimeout(total=None)) as made:
        app["session"] = made
        if app["puts"] is not None:
            await app["puts"].begin(made)
        yield


def application(given: argparse.Namespace) -> web.Application:
    app = web.Application(client_max_size=1 << 28)
    app["prefiller"], app["decoder"], app["bootstrap"] = given.prefiller, given.decoder, given.bootstrap
    app["engine"] = []
    app["puts"] = Puts(given.master, given.block_tokens, given.idle) if given.master else None
    app.cleanup_ctx.append(session)
    app.add_routes([*(web.post(path, complete) for path in _PATHS), web.get("/health", health),
                    web.get("/v1/models", models)])
    return app


if __name__ == "__main__":
    options = arguments()
    web.run_app(application(options), host=options.host, port=options.port, print=None)

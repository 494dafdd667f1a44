"""Runs on the prefiller's node, in the stack's environment: the proxy before vLLM's MooncakeConnector.

Each request goes to the prefiller for one token, under a transfer id, and then to the decoder, which fetches the KV of
that transfer and answers. So the client's first token is the decoder's, and the hand-over is part of TTFT. How the two
are told about a transfer: vLLM's ``docs/features/mooncake_connector_usage.md``. What the decoder answers is passed on
as it comes; where either side fails, the client sees a failure and no empty success.
"""

import argparse
import json
import uuid
from collections.abc import AsyncIterator

from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector, web

_PATHS = ("/v1/completions", "/v1/chat/completions")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Proxy for a prefiller and a decoder with MooncakeConnector.")
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    for name in ("prefiller", "decoder", "bootstrap"):
        parser.add_argument(f"--{name}", required=True, help="base URL")
    return parser.parse_args()


async def complete(request: web.Request) -> web.StreamResponse:
    """One request: prefill, then decode; the answer is the decoder's."""
    app, body = request.app, await request.json()
    identity = uuid.uuid4().hex
    transfer = {"transfer_id": f"kit-{identity}"}
    headers = {"X-Request-Id": identity}
    # Without ignore_eos a prompt that the prefiller ends at once hands nothing over, and the decoder waits for it.
    first = {**body, "stream": False, "max_tokens": 1, "ignore_eos": True,
             "kv_transfer_params": {"do_remote_decode": True, "do_remote_prefill": False, **transfer}}
    for key in ("stream_options", "min_tokens"):
        first.pop(key, None)
    if "max_completion_tokens" in first:
        first["max_completion_tokens"] = 1
    try:
        async with app["session"].post(app["prefiller"] + request.path, json=first, headers=headers) as answer:
            if answer.status != 200:
                return web.Response(status=answer.status, body=await answer.read(), content_type="application/json")
            await answer.read()
        then = {**body, "kv_transfer_params": {
            "do_remote_decode": False, "do_remote_prefill": True, **transfer,
            "remote_bootstrap_addr": app["bootstrap"], "remote_engine_id": await engine_id(app)}}
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
        yield


def application(given: argparse.Namespace) -> web.Application:
    app = web.Application(client_max_size=1 << 28)
    app["prefiller"], app["decoder"], app["bootstrap"] = given.prefiller, given.decoder, given.bootstrap
    app["engine"] = []
    app.cleanup_ctx.append(session)
    app.add_routes([*(web.post(path, complete) for path in _PATHS), web.get("/health", health),
                    web.get("/v1/models", models)])
    return app


if __name__ == "__main__":
    options = arguments()
    web.run_app(application(options), host=options.host, port=options.port, print=None)

"""The proxy's wait for a store's puts, against a real master and client of Mooncake, in their own environment."""

import os
import socket
import subprocess

import pytest

from kit.lab.pd.environments import environment
from kit.paths import root

pytestmark = pytest.mark.lab

# $1 the proxy's folder, then the ports of the master and of its metrics.
PROGRAM = """
import asyncio, sys, threading, time
sys.path.insert(0, sys.argv[1])
from aiohttp import ClientSession
from direct_proxy import Puts
from mooncake.store import MooncakeDistributedStore

store = MooncakeDistributedStore()
assert store.setup("127.0.0.1", "P2PHANDSHAKE", 1 << 26, 1 << 26, "tcp", "", f"127.0.0.1:{sys.argv[2]}") == 0

def slowly():       # longer than the proxy waits without any, and never so long in between
    for n in range(4):
        time.sleep(0.8)
        store.put_batch([f"slow{n}"], [b"x" * 4096])

async def main():
    async with ClientSession() as client:
        puts = Puts(f"http://127.0.0.1:{sys.argv[3]}", 16, 2.0)
        await puts.begin(client)
        later = threading.Timer(0.5, lambda: store.put_batch([f"key{n}" for n in range(4)], [b"x" * 4096] * 4))
        later.start()
        await puts.landed(client, 4 * 16 + 3)
        print("there:", all(store.is_exist(f"key{n}") == 1 for n in range(4)))
        later.join()
        await asyncio.gather(puts.landed(client, 32), puts.landed(client, 16))
        await puts.landed(client, 15)
        slow = threading.Thread(target=slowly)
        slow.start()
        await puts.landed(client, 4 * 16)
        print("there:", all(store.is_exist(f"slow{n}") == 1 for n in range(4)))
        slow.join()

asyncio.run(main())
"""


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def test_it_waits_for_what_is_put_and_gives_up_on_what_is_not(tmp_path):
    made, rpc, metrics = environment("current"), free_port(), free_port()
    variables = {**os.environ, **made.variables}
    with subprocess.Popen([made.packages / "mooncake/mooncake_master", f"-rpc_port={rpc}", f"-metrics_port={metrics}",
                           "-rpc_address=127.0.0.1"], env=variables, stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL) as master:
        try:
            done = subprocess.run([made.bin / "python", "-c", PROGRAM, root() / "kit/serving", str(rpc), str(metrics)],
                                  env=variables, capture_output=True, text=True, timeout=120, check=False)
        finally:
            master.kill()
    said = [line for line in done.stdout.splitlines() if line.startswith(("kit:", "there:"))]
    assert said[0].startswith("kit: stored after "), done.stdout + done.stderr
    assert float(said[0].split()[3]) >= 100, "it waited"
    assert said[1] == "there: True"
    given_up = [int(line.split()[1]) for line in said[2:4] if line.endswith("blocks not put, and none in 2 s")]
    assert sum(given_up) == 3, "whichever of the two gives up first"
    assert said[4].startswith("kit: stored after "), "what was given up is not waited for again"
    assert float(said[5].split()[3]) >= 2500, "slow puts are waited for"
    assert said[6] == "there: True"

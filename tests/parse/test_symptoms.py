"""The table of symptoms: sound, ordered, and each row reached by the words it is for."""

import re
import tomllib
from pathlib import Path

import pytest

from kit import symptoms

TABLE = tomllib.loads((Path(symptoms.__file__).parent / "symptoms.toml").read_text())["symptom"]

#: The tools' own words, from their sources and from captured output, to the symptom that they must give.
WORDS = [
    ("Couldn't connect to 10.0.0.1:18515\nUnable to init the socket connection", "server_unreachable"),
    ("Unable to init the socket connection", "control_connection_failed"),
    ("Failed to modify QP 300 to RTR\n Unable to Connect the HCA's through the link", "standard_mode_needs_rdma_cm"),
    ("Transport type : IW\nFailed to modify QP to RTS", "standard_mode_needs_rdma_cm"),
    ("Transport type : IB\nFailed to modify QP to RTS", "qp_rts_refused"),
    (" Unable to Connect the HCA's through the link", "qp_rts_refused"),
    (" Found Incompatibility issue with GID types.", "gid_mismatch"),
    ("ethernet_read_keys: Couldn't read remote address\n Unable to read to socket/rdma_cm", "peer_lost"),
    ("Unexpected CM event bl blka 8", "rdma_cm_rejected"),
    ("Unexpected CM event bl blka 7", "server_unreachable"),
    ("Unexpected CM event bl blka 1", "rdma_address_unresolved"),
    ("Unexpected CM event bl blka 10", "rdma_cm_failed"),
    ("Failed to connect RDMA CM client, tried 10 times.", "server_unreachable"),
    ("Function rdma_connect failed", "server_unreachable"),
    ("IB device mlx5_7 not found\n Unable to find the Infiniband/RoCE device", "device_not_found"),
    ("IB device 'mlx5_0' wasn't found", "device_not_found"),
    (" Unable to find the Infiniband/RoCE device", "no_devices"),
    ("No IB devices found", "no_devices"),
    ("Failed to get IB devices list: Function not implemented", "no_devices"),
    (" Port number 1 state is Down\n Couldn't set the link layer", "port_not_active"),
    (" Couldn't get context for the device", "no_context"),
    ("Couldn't allocate MR with error=12\nFailed to create MR", "memlock_or_mr_size"),
    ("Unable to create QP.", "qp_type_unsupported"),
    ("Current implementation is not compatible with versions older than 5.70", "perftest_too_old_or_mode_mismatch"),
    (" Completion with error at client\n Failed status 5: wr_id 0 syndrom 0x0\nscnt=1, ccnt=0", "completion_error"),
    ("Failed status-transport retry counter exceeded (12): wr_id 0 syndrom 0x81", "completion_error"),
    ("Couldn't listen to port 18601", "port_taken"),
    (" rdma_bind_addr failed", "port_taken"),
    ("Temporary failure in name resolution for nohost.lab:18515", "name_not_resolved"),
    ("ib_write_bw: unrecognized option '--x'", "bad_option"),
    ("ib_write_bw: invalid option -- 'K'", "bad_option"),
    ("please check that DURATION > 2*MARGIN", "bad_duration"),
    ("Duration mode currently doesn't support running on all sizes.", "duration_with_all_sizes"),
    (" Gid index should be between 0 and 64", "gid_index_out_of_range"),
    (" Message Size should be between 1 and 2147483647", "bad_value"),
    (" Error: BW result is below bw limit", "below_limit"),
    ("Failed to open NETLINK_RDMA socket", "no_rdma_netlink"),
    ("Version: 6.06", "version_only"),
    ("  ib_write_bw            start a server and wait for connection", "usage_only"),
    ("Conflicting CPU frequency values detected: 800.0 != 2600.0. CPU Frequency is not max.", None),
    ("WARNING: BW peak won't be measured in this run.", None),
    ("Device not recognized to implement inline feature. Disabling it", None),
    (" Requested mtu is higher than active mtu", None),
    ("", None),
]

#: The same of the serving stack: vLLM, LMCache, Mooncake and the benchmark.
SERVING_WORDS = [
    ("ERROR: unknown command line flag 'use_vram'", "engine_bad_flag"),
    ("transfer_engine_bench.cpp:522] Unsupported protocol: carrier", "engine_bad_flag"),
    ("tcp_transport_session_impl.h:706] ClientSession: WRITE rejected by server, status 1", "engine_rejected"),
    ("transfer_engine_bench.cpp:393] Unable to get target segment ID, please recheck", "engine_no_target"),
    ("transfer_engine_py.cpp:1201] batchTransferSync: all 1 retries exhausted for 127.0.0.1:15102 (batch of 14336 "
     "requests, 234881024 bytes)", "kv_handover_given_up"),
    ("OSError: libcudart.so.12: cannot open shared object file: No such file or directory", "library_missing"),
    ("ERROR: [Errno 98] error while attempting to bind on address ('0.0.0.0', 7100): address already in use",
     "server_port_taken"),
    ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.", "gpu_memory"),
    ("ValueError: No common block size for 16 (CPU_ATTN: [MultipleOf(32)])", "block_size_refused"),
    ("AttributeError: 'NoneType' object has no attribute 'num_transferred_tokens'", "disagg_spec_missing"),
    ("AttributeError: 'MooncakeDistributedStore' object has no attribute 'batch_get_buffer'", "store_versions_differ"),
    ("No handler registered for operation register_kv_cache_engine_driven_context", "transfer_mode_missing"),
    ("The number of retrieved tokens is less than the expected number of tokens! This should not happen!",
     "kv_load_failed"),
    ("Failing 1 request(s) due to KV load failure (failure_policy=fail, 512 tokens affected).", "kv_load_failed"),
    ("Timeout when putting key vllm@m@1@0@1 from mooncake store.Decode instance may redo prefill.", "put_timed_out"),
    ("Failed to put key k, error=NO_AVAILABLE_HANDLE", "store_full"),
    ("Failed to register memory 0x7f0000000000: Cannot allocate memory [12]", "kv_memory_not_registered"),
    ("E1 rdma_transport.cpp:1] No matched device found", "kv_device_missing"),
    ("Duplicate rpc_meta key not allowed: mooncake/rpc_meta/10.0.0.1:12345", "kv_rpc_duplicate"),
    ("Failed to get description of 10.0.0.2:13001", "kv_metadata_missing"),
    ("Worker: Cannot make connection for endpoint: 10.0.0.2:13001@erdma_0", "kv_handshake_failed"),
    ("Failed to complete transfers after 60 seconds for batch 1", "kv_transfer_stuck"),
    ("Worker: Process failed for slice: work request flushed error", "kv_transfer_failed"),
    ("Centralized cache sharing detected but PYTHONHASHSEED not set.", "hash_seed_not_set"),
    ('{"error":{"message":"The model `tiny` does not exist.","code":404}}', "model_unknown"),
    ("This model's maximum context length is 2048 tokens. However, you requested 4096 tokens", "prompt_too_long"),
    ("ValueError: Initial test run failed - Please make sure benchmark arguments are correctly specified. Error: Not "
     "Found", "bench_first_request_failed"),
    ("UserWarning: All requests failed. This is likely due to a misconfiguration", "bench_no_success"),
    ("Never received a valid chunk to calculate TTFT.This response will be marked as failed!", "no_tokens"),
    ("Failed requests during benchmark run detected (capping to 10):", "bench_some_failed"),
    ("vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue.", "engine_died"),
    ("WARNING: Logging before InitGoogleLogging() is written to STDERR", None),
    ("Found ulimit of 20000 and failed to automatically increase", None),
    ("Couldn't connect to 10.0.0.1:18515", None),
]


@pytest.mark.parametrize(("text", "name", "area"), [(*pair, "rdma") for pair in WORDS]
                         + [(*pair, "serving") for pair in SERVING_WORDS])
def test_words(text, name, area):
    found = symptoms.find(text, area=area)
    assert (found[0].name if found else None) == name
    if found:
        assert found[1] in text
        assert "\n" not in found[1]


def test_every_pattern_row_is_tried():
    for area, tried in (("rdma", WORDS), ("serving", SERVING_WORDS)):
        rows = {row["name"] for row in TABLE if "patterns" in row and row.get("area", "rdma") == area}
        assert rows == {name for _, name in tried if name}


def test_table():
    names = [row["name"] for row in TABLE]
    assert len(names) == len(set(names))
    assert [symptom.name for symptom in symptoms.all_symptoms()] == names
    for row in TABLE:
        assert re.fullmatch(r"[a-z0-9_]+", row["name"])
        assert row["remedy"].endswith(".")
        assert row["source"]
        assert row.get("kind") in (("local", "link", "consequence") if "patterns" in row else (None,))


def test_transport_given():
    assert symptoms.find("Failed to modify QP to RTS", transport="IB")[0].name == "qp_rts_refused"
    assert symptoms.find("Failed to modify QP to RTS", transport="IW")[0].name == "standard_mode_needs_rdma_cm"


def test_names():
    assert symptoms.named("dead_peer").kind == "judged"
    with pytest.raises(KeyError):
        symptoms.named("nonesuch")

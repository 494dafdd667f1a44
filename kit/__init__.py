"""Reproducible experiments on an eRDMA link: driver, device, link, transfer engine, prefill/decode serving.

The layers, from the ground up; a module imports only from those below its own:

1. pure      errors, files, stats, command, symptoms, parse/, describe, kv, kv_config, linkmodel, workload, explain
2. params    closed schemas of sites and experiments
3. hosts/    one small interface to a node: ssh, local, replay
4. store     run folders and keys
5. sites     a site opened, whatever kind it is; lab/ beside it
6. stages    device, inspection, link/, engine/, serving/, observe/, prepare/
7. faces     runner, compare, report, record, predict, explain_run, explain_report, serve_compare, the plots, cli, cli_*

`tests/test_layers.py` holds it.
"""

__version__ = "0.1.0"

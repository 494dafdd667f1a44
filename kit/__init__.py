"""Reproducible experiments on an eRDMA link: driver, device, link, transfer engine, prefill/decode serving.

The layers, from the ground up; a module imports only from those below its own:

1. pure      errors, units, stats, command, parse/
2. params    closed schemas of sites and experiments
3. hosts/    one small interface to a node: ssh, local, replay
4. stages    device, link/
5. store     run folders, keys, fingerprints
6. faces     runner, compare, plots, report, widgets, cli; and lab/ beside them
"""

__version__ = "0.1.0"

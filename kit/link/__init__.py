"""The link: perftest commands, trusted results, the sweep and its verdict."""

"""The lab's serving part: real vLLM on CPU, twice, reached through two loopback ssh servers."""

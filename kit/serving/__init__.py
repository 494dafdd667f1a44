"""Prefill/decode serving: launch, benchmark, and the verdict on what a run measured."""

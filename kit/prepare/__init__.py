"""Node preparation: facts first, then a plan, then its commands, then the facts again as the proof."""

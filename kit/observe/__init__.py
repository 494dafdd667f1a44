"""What the nodes did while a benchmark ran: counters sampled once a second, merged, tidied, drawn."""

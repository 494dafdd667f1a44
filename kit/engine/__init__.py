"""The transfer engine: Mooncake's own bench between two nodes, its sweep, table and verdict against the link."""

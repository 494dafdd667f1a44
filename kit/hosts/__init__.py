"""A node, reached over ssh, locally, or from a recording."""

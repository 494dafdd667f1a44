"""The embedded lab: real RDMA software in two small guests."""

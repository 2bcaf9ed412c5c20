"""The high-throughput executor of flowcore: an interchange, managers and worker processes over ZeroMQ."""

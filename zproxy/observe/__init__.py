"""What operators see: log lines, the access log, records of connections."""

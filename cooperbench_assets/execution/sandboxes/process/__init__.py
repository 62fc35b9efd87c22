"""The ``process`` sandbox: tests run on the host, isolated by bubblewrap where it works."""

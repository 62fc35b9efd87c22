"""Dagster's daemon looks for backfills every second, not every 30 s: that is a constant, without a setting.

Python imports this by itself where the folder is on PYTHONPATH (``ui.dagster_dev``). Only the daemon's process changes.
"""

import sys

if "dagster._daemon" in sys.orig_argv:
    from dagster._daemon import controller

    controller.DEFAULT_DAEMON_INTERVAL_SECONDS = 1

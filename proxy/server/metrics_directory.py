"""Where the metrics of several processes are kept: what reads the variable does so when it is imported."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from proxy.settings import Settings

METRICS_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"


def prepare_metrics_directory(settings: Settings) -> None:
    """For several workers: an empty directory for this start. Those of starts that are over go.

    Its own may be there already: in a container each start has the same process id.
    """
    if settings.llmgateway_workers == 1:
        return
    data = Path(settings.llmgateway_data_dir)
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    metrics = data / "metrics"
    metrics.mkdir(exist_ok=True)
    mine = metrics / str(os.getpid())
    for old in metrics.iterdir():
        if old == mine or not Path(f"/proc/{old.name}").exists():
            shutil.rmtree(old, ignore_errors=True)
    mine.mkdir(exist_ok=True)
    os.environ[METRICS_VARIABLE] = str(mine)

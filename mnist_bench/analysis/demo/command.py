"""What `mnist-bench demo` does: serve until it is told to stop."""

import signal
import threading
import webbrowser
from pathlib import Path
from types import FrameType

from mnist_bench.analysis.demo.server import Demo
from mnist_bench.loggers.console import info
from mnist_bench.runs.load import load


def serve(
    run: Path, config_dir: Path | None = None, port: int | None = None, browse: bool = True
) -> None:
    """Serve the page of a run's network until Ctrl-C or SIGTERM, and open it in a browser.

    Raises:
        ConfigError: the folder is not that of a run, or the port cannot be had.
    """
    network = load(run, config_dir)
    with Demo(network, port) as demo:

        def stop(number: int, frame: FrameType | None) -> None:
            # `shutdown` waits for the loop, which this thread would be in.
            threading.Thread(target=demo.shutdown).start()

        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            name = network.config.model.name
            info(f"{name} {network.when}: draw at {demo.url} (Ctrl-C stops)")
            if browse:
                threading.Thread(target=webbrowser.open, args=(demo.url,), daemon=True).start()
            demo.serve_forever(poll_interval=0.1)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    info("Stopped.")

"""A full disk stops the counting of a process, never the process: SIGBUS ends one that maps a file without space."""

import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.servers import ROOT, App, Store
from tests.small_disk import fill, small_disk
from web.counters import Counters

COUNT = """
import sys
from pathlib import Path
from tests.small_disk import fill
from web.counters import Counters
from web.live.history import History
file = Path(sys.argv[1])
counters, history = Counters(file), History(file.with_suffix(".history"))
history.record_depth("known", 1)
fill(file.parent)
for number in range(500):
    for operation in ("push", "pop", "reserve", "ack", "release"):
        counters.count_messages(operation, f"{number:0128}", {"success": True})
        counters.count_request(operation, str(number % 5), number % 5)
    history.record_depth(str(number), 1)
history.record_depth("known", 2)
assert len(Counters(file).totals()) == 2500 + 25
assert "known" in history._rows and "499" not in history._rows
for number in range(10_000):
    counters.increment(("requests", f"{number:0100}", "200", "1.0"))
assert 2525 < len(Counters(file).totals()) < len(counters.totals()) == 12_525
"""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", 3) as place:
        yield place


def test_a_process_counts_on_when_the_disk_becomes_full(disk: Path) -> None:
    """What it records already needs no more space; the depth of further queues is not recorded."""
    subprocess.run([sys.executable, "-c", COUNT, str(disk / "0.counts")], cwd=ROOT, check=True)


def test_a_full_file_of_counts_grows(tmp_path: Path) -> None:
    counters = Counters(tmp_path / "0.counts")
    for number in range(10_000):
        counters.increment(("requests", f"{number:0100}", "200", "1.0"))
    assert Counters(tmp_path / "0.counts").totals() == counters.totals()
    assert len(counters.totals()) == 10_000


def test_a_file_of_counts_that_does_not_fit_is_refused(disk: Path) -> None:
    fill(disk)
    with pytest.raises(OSError, match="No space left"):
        Counters(disk / "0.counts")


@pytest.mark.slow
@pytest.mark.parametrize("full_at_start", [True, False])
def test_workers_serve_while_the_folder_for_counts_is_full(
    serve: Callable[..., App], valkey: Store, disk: Path, name: str, full_at_start: bool
) -> None:
    if full_at_start:
        fill(disk)
    app = serve(REDIS_URL=valkey.url, WEB_CONCURRENCY="1", GUNICORN_CMD_ARGS=f"--worker-tmp-dir {disk}")
    workers = app.workers()
    fill(disk)
    for number in range(40):
        urllib.request.urlopen(f"{app.url}/api/queue/{name}-{number}/push", b"message=a", timeout=20).close()
    assert app.workers() == workers
    assert ("This process counts for itself" in app.log.read_text()) == full_at_start

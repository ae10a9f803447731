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
file = Path(sys.argv[1])
counters = Counters(file)
fill(file.parent)
for number in range(500):
    for operation in ("push", "pop", "reserve", "ack", "release"):
        counters.count_messages(operation, f"{number:0128}", {"success": True})
        counters.count_request(operation, str(number), 0)
assert len(Counters(file).totals()) == 5000
"""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", 3) as place:
        yield place


def test_an_open_file_of_counts_needs_no_more_space(disk: Path) -> None:
    subprocess.run([sys.executable, "-c", COUNT, str(disk / "0.counts")], cwd=ROOT, check=True)


def test_a_file_of_counts_that_does_not_fit_is_refused(disk: Path) -> None:
    fill(disk)
    with pytest.raises(OSError, match="No space left"):
        Counters(disk / "0.counts")


@pytest.mark.slow
def test_workers_serve_while_the_folder_for_counts_is_full(
    serve: Callable[..., App], valkey: Store, disk: Path, name: str
) -> None:
    fill(disk)
    app = serve(REDIS_URL=valkey.url, GUNICORN_CMD_ARGS=f"--worker-tmp-dir {disk}")
    workers = app.workers()
    for _ in range(20):
        urllib.request.urlopen(f"{app.url}/api/queue/{name}/push", b"message=a", timeout=20).close()
    assert app.workers() == workers
    assert "This process counts for itself" in app.log.read_text()

"""Who can read the data folder: only its owner. Messages must not be readable by the other users of the machine."""

import os
import stat
from pathlib import Path

from embedded.supervisor import APPEND_ONLY_DIR, LOCK_FILE, CannotStart

UMASK = 0o077  # of the supervisor, the server, and so of all files that they make
OTHERS = stat.S_IRWXG | stat.S_IRWXO  # all rights of the group and of everybody else
FILES = ("valkey.*", "*.rdb", "*.aof")  # beside the folders of APPEND_ONLY_DIR, its broken copies included


def close_folder(data_dir: Path) -> str:
    """Make the folder if needed, and close our files in it to other users; return a warning if they can enter it.

    Raises:
        CannotStart: every user can write in the folder.
        OSError: the folder cannot be made or written.
    """
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    mode = data_dir.stat().st_mode
    if mode & stat.S_IWOTH:
        raise CannotStart(
            f"every user of this machine can write in {data_dir} (mode {stat.S_IMODE(mode):o}); "
            f"close it with chmod 700, or set DATA_DIR to another folder"
        )
    # Whoever can open the lock file can hold the lock, and so prevent the next start.
    os.close(os.open(data_dir / LOCK_FILE, os.O_WRONLY | os.O_CREAT, 0o600))
    still_open = [path for path in _files(data_dir) if not _close(path)]
    if not still_open and not mode & OTHERS:
        return ""
    exposed = f"they may be able to read {still_open[0]}" if still_open else "its files are closed to them"
    return f"Other users can enter {data_dir} (mode {stat.S_IMODE(mode):o}); {exposed}. chmod 700 closes it."


def _files(data_dir: Path) -> list[Path]:
    """Return what the server, its supervisor and a repair have made in the folder."""
    folders = [path for path in data_dir.glob(f"{APPEND_ONLY_DIR}*") if path.is_dir()]
    inner = [path for folder in folders for path in folder.iterdir()]
    return [*folders, *inner, *(path for pattern in FILES for path in data_dir.glob(pattern))]


def _close(path: Path) -> bool:
    """Take all rights from other users; return whether they have none now."""
    try:
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            return True  # what it leads to is not ours
        if mode & OTHERS:
            path.chmod(stat.S_IMODE(mode) & stat.S_IRWXU)
        return not path.lstat().st_mode & OTHERS
    except FileNotFoundError:  # a running server has replaced it
        return True
    except OSError:
        return False

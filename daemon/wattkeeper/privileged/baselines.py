"""The limit each GPU had before our first write since boot, and which GPUs we have written and not given back.

Two files a GPU in ``run_dir/baseline``: ``UUID.json`` is written once and never again; ``UUID.ours`` is there from
just before a write until the GPU is given back. Both vanish at reboot, as the limits themselves do.
"""

import json
import os
import stat
import threading
from contextlib import suppress
from pathlib import Path

from wattkeeper.privileged.errors import DeviceError, Kind


class Baselines:
    """The files of one ``run_dir``. Each method touches one GPU's files only."""

    def __init__(self, folder: Path, boot_id: str) -> None:
        self._folder = folder
        self._boot_id = boot_id

    def load_mw(self, uuid: str) -> int | None:
        """The baseline saved since this boot, in milliwatts, or None. Raises DeviceError (STATE) if unreadable."""
        path = self._path(uuid)
        try:
            saved = json.loads(path.read_bytes())
            limit_mw, boot_id = int(saved["limit_mw"]), str(saved["boot_id"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            mend = "remove it if the present limit is not ours, or set gpus.baseline"
            raise DeviceError(Kind.STATE, uuid, f"baseline file {path} is unreadable ({error!r})", mend) from None
        if boot_id == self._boot_id:
            return limit_mw
        self.forget(uuid)  # of an earlier boot: the limit it speaks of is gone
        return None

    def save_mw(self, uuid: str, limit_mw: int) -> int:
        """Save a baseline unless there is one; the one that stands. Raises DeviceError (STATE) if it cannot."""
        known = self.load_mw(uuid)
        if known is not None:
            return known
        path = self._path(uuid)
        scratch = path.with_suffix(f".{os.getpid()}.{threading.get_ident()}.tmp")
        content = json.dumps({"uuid": uuid, "limit_mw": limit_mw, "boot_id": self._boot_id})
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._write(scratch, content)
            os.link(scratch, path)  # fails where somebody was faster: a baseline is never overwritten
        except FileExistsError:
            return self.save_mw(uuid, limit_mw)
        except OSError as error:
            mend = "without it the GPU could not be put back, so its limit is left alone"
            raise DeviceError(Kind.STATE, uuid, f"cannot save its baseline to {path} ({error})", mend) from None
        finally:
            scratch.unlink(missing_ok=True)
        return limit_mw

    def claim(self, uuid: str) -> None:
        """Note that the GPU's limit is ours from now on. Raises DeviceError (STATE) if it cannot be noted."""
        path = self._mark(uuid)
        try:
            if not self.owned(uuid):
                self._write(path, self._boot_id)
        except OSError as error:
            raise DeviceError(Kind.STATE, uuid, f"cannot write {path} ({error})", "its limit is left alone") from None

    def release(self, uuid: str) -> None:
        """Note that the GPU has been given back."""
        self._mark(uuid).unlink(missing_ok=True)

    def owned(self, uuid: str) -> bool:
        """True where we have written the GPU's limit since this boot and not given it back."""
        try:
            return self._mark(uuid).read_text() == self._boot_id
        except OSError:
            return False

    def forget(self, uuid: str) -> None:
        """Remove both files of a GPU."""
        self._path(uuid).unlink(missing_ok=True)
        self.release(uuid)

    def _path(self, uuid: str) -> Path:
        return self._trusted() / f"{uuid}.json"

    def _mark(self, uuid: str) -> Path:
        return self._trusted() / f"{uuid}.ours"

    def _trusted(self) -> Path:
        """The folder, if it is ours alone: in one that others change everything could be a link to somewhere else."""
        with suppress(FileNotFoundError):
            status = self._folder.lstat()
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
                mend = "remove it, and restart the agent and its actuator"
                raise DeviceError(Kind.STATE, str(self._folder), "no folder that its owner alone can change", mend)
        return self._folder

    def _write(self, path: Path, content: str) -> None:
        with path.open("w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())

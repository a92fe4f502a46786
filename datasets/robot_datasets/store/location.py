"""Where a store is: a local directory, a zip of one, or an address that fsspec understands."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robot_datasets.errors import DatasetError
from robot_datasets.store.arrays import require_zarr
from robot_datasets.store.blob import LocalBlob, RemoteBlob

if TYPE_CHECKING:
    import zarr


@dataclass(frozen=True)
class Location:
    """An address and how to reach it.

    Attributes:
        address: Local path, ``*.zip``, or URL (``s3://``, ``gs://``, ``https://``, ``memory://``, ...).
        storage_options: Passed to fsspec, e.g. credentials.
    """

    address: str
    storage_options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_local(self) -> bool:
        """Whether files can be mapped into memory."""
        return "://" not in self.address and not Path(self.address).is_file()

    def open_group(self) -> zarr.Group:
        """Open the root group for reading; `DatasetError` if there is none."""
        require_zarr()
        import zarr
        from zarr.errors import GroupNotFoundError
        from zarr.storage import FsspecStore, LocalStore, ZipStore

        if self.is_local:
            self._require_directory()
            store = LocalStore(self.address, read_only=True)
        else:
            self._filesystem()  # first, because its errors are told better
            if "://" in self.address:
                store = FsspecStore.from_url(self.address, dict(self.storage_options), read_only=True)
            else:
                store = ZipStore(self.address, mode="r", read_only=True)
        try:
            return zarr.open_group(store, mode="r", zarr_format=3)
        except (GroupNotFoundError, FileNotFoundError, NotADirectoryError) as error:
            raise DatasetError(
                f"{self.address} is not an episode store (no zarr v3 group there); "
                "make one with: robot-policies convert SOURCE OUT"
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise DatasetError(
                f"{self.address}/zarr.json is damaged ({error}); copy the store again"
            ) from error

    def blob(self, path: str, *, chunk_bytes: int, size: int) -> LocalBlob | RemoteBlob:
        """Return a reader of the image payload array at `path`."""
        if self.is_local:
            return LocalBlob(Path(self.address) / path, chunk_bytes=chunk_bytes, size=size)
        filesystem, root = self._filesystem()
        directory = f"{root}/{path}" if root else path
        return RemoteBlob(filesystem, directory, chunk_bytes=chunk_bytes, size=size)

    def missing(self, paths: Sequence[str]) -> list[str]:
        """Return those of `paths`, relative to the root, that are not there or empty."""
        if self.is_local:
            files = ((path, Path(self.address) / path) for path in paths)
            return [path for path, file in files if not file.is_file() or file.stat().st_size == 0]
        filesystem, root = self._filesystem()
        urls = ((path, f"{root}/{path}" if root else path) for path in paths)
        return [path for path, url in urls if not filesystem.exists(url) or filesystem.size(url) == 0]

    def _require_directory(self) -> None:
        path = Path(self.address)
        if not path.exists():
            staging = path.with_name(path.name + ".staging")
            hint = (
                f"; its conversion is unfinished ({staging.name}), run the same command again"
                if staging.exists()
                else "; check the path"
            )
            raise DatasetError(f"{path} does not exist{hint}")

    def _filesystem(self) -> tuple[Any, str]:
        import fsspec

        options = dict(self.storage_options)
        try:
            if "://" not in self.address:
                return fsspec.filesystem("zip", fo=self.address, **options), ""
            filesystem, root = fsspec.core.url_to_fs(self.address, **options)
        except (ImportError, OSError, ValueError, zipfile.BadZipFile) as error:
            raise DatasetError(
                f"cannot open {self.address}: {error}; expected an episode store: "
                "a directory, a zip of one, or an address with its storage options"
            ) from error
        return filesystem, root.rstrip("/")

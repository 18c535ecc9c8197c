"""An artifact as one .tar, and back, without trusting what the archive says."""

from __future__ import annotations

import io
import shutil
import tarfile
from collections.abc import Sequence
from pathlib import Path

from crosstune.tuner.manifest import MANIFEST_NAME, ArtifactRefused, read_manifest

MOST_FILES = 64


def pack(folder: Path, archive: Path | None = None) -> Path:
    """Write the files that the manifest lists into `archive` (default: beside the folder); equal in, equal out.

    Uncompressed, since weights do not compress. Raises ArtifactRefused when the folder is no finished artifact.
    """
    path = archive if archive is not None else folder.with_name(folder.name + ".tar")
    return pack_files(folder, [MANIFEST_NAME, *sorted(read_manifest(folder).files)], path)


def pack_files(folder: Path, names: Sequence[str], path: Path) -> Path:
    """The named files of a folder as one .tar; equal in, equal out."""
    temporary = path.with_name(f".{path.name}.part")
    with tarfile.open(temporary, "w") as tar:
        for name in names:
            content = folder / name
            entry = tarfile.TarInfo(f"{folder.name}/{name}")
            entry.size, entry.mode = content.stat().st_size, 0o644
            with content.open("rb") as file:
                tar.addfile(entry, file)
    temporary.replace(path)
    return path


def unpack(archive: Path, destination: Path) -> Path:
    """Unpack a .tar or .tar.gz into a new folder under `destination` and return it.

    Only plain files directly in the archive's one folder are taken, so nothing is written elsewhere and no link is
    followed. Raises ArtifactRefused for anything else.
    """
    folder = destination / "artifact"
    folder.mkdir(parents=True)
    try:
        with tarfile.open(archive, "r:*") as tar:
            for count, entry in enumerate(tar):
                if count >= MOST_FILES:
                    raise ArtifactRefused(f"{archive} holds more than {MOST_FILES} files: not an artifact")
                if not entry.isdir():
                    _write(tar.extractfile(entry) if entry.isreg() else None, entry.name, folder)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise ArtifactRefused(f"{archive} cannot be read as an artifact: {error}") from error
    return folder


def _write(content: object, name: str, folder: Path) -> None:
    parts = [part for part in name.split("/") if part != "."]
    plain = bool(parts) and len(parts) <= 2 and not any(part in {"", ".."} or "\\" in part for part in parts)
    if not plain or not isinstance(content, io.BufferedIOBase):
        raise ArtifactRefused(f"the archive holds {name!r}, which is no file of an artifact")
    with (folder / parts[-1]).open("xb") as file:
        shutil.copyfileobj(content, file, 1 << 20)

"""The files of a cost model's versions: one archive each in the artifact store, unpacked where a worker reads them."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection

from crosstune.cost_model.pretrained import model_folder
from crosstune.db.repositories import artifacts, cost_models
from crosstune.db.repositories.cost_models import CostModelRow
from crosstune.service.store import Store
from crosstune.tuner import archive

ARTIFACT_KIND, TRAINING_SET = "cost-model", "training-set"
NAME = "crosstune"
"""There is one line of versions."""
SHIPPED = "shipped"


@dataclass(frozen=True, slots=True)
class Champion:
    """The version in use; `key` and `folder` are None for the shipped one."""

    version: str
    key: int | None = None
    folder: Path | None = None


def pack(folder: Path) -> Path:
    """The files of a folder as one archive beside it."""
    return archive.pack_files(folder, sorted(path.name for path in folder.iterdir()), folder.with_suffix(".tar"))


def unpacked(connection: Connection, store: Store, model: CostModelRow) -> Path:
    """The folder of a version's files. Raises ArtifactRefused, or OSError, when they are gone or damaged."""
    folder = store.folder / "models" / model.id
    if not folder.exists():
        assert model.artifact_id is not None, "a version that can be used has files"
        source = store.path(artifacts.get(connection, model.artifact_id).uri)
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=folder.parent))
        try:
            made = archive.unpack(source, scratch)
            _rename_first(made, folder)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return folder


def _rename_first(made: Path, folder: Path) -> None:
    """Unless another process, here or on another machine, was faster."""
    try:
        made.rename(folder)
    except OSError:
        if not folder.exists():
            raise


def champion(connection: Connection, store: Store) -> Champion:
    """Raises as `unpacked`."""
    model = cost_models.champion(connection, NAME)
    return Champion(SHIPPED) if model is None else Champion(model.id, model.key, unpacked(connection, store, model))


def folder_of(connection: Connection, store: Store, version: str) -> Path:
    """Raises NotFound, and as `unpacked`."""
    return model_folder() if version == SHIPPED else unpacked(connection, store, cost_models.get(connection, version))

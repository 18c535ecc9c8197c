"""The declarative base and the column types that all tables share."""

from __future__ import annotations

from typing import Annotated, Any

from sqlalchemy import JSON, BigInteger, Double, ForeignKey, Integer, LargeBinary, MetaData, String
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, mapped_column

from crosstune.db.ids import ID_LENGTH

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}

BIG = BigInteger().with_variant(Integer, "sqlite")
"""64 bits everywhere; SQLite numbers rows by itself only where the type is called INTEGER."""
JSON_VALUE = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")

Key = Annotated[int, mapped_column(BIG, primary_key=True)]
Hash = Annotated[bytes, mapped_column(LargeBinary(32))]
Moment = Annotated[float, mapped_column(Double)]
"""UTC, seconds since the epoch."""
Seconds = Annotated[float, mapped_column(Double)]
PublicId = Annotated[str, mapped_column(String(ID_LENGTH), primary_key=True)]
UniqueId = Annotated[str, mapped_column(String(ID_LENGTH), unique=True)]
Word = Annotated[str, mapped_column(String(40))]
"""One of a short list of words that an enum in code fixes."""
Name = Annotated[str, mapped_column(String(200))]
Json = Annotated[Any, mapped_column(JSON_VALUE)]

ProjectId = Annotated[str, mapped_column(String(ID_LENGTH), ForeignKey("projects.id"))]
JobId = Annotated[str, mapped_column(String(ID_LENGTH), ForeignKey("jobs.id"))]
NetworkId = Annotated[str, mapped_column(String(ID_LENGTH), ForeignKey("networks.id"))]
ArtifactId = Annotated[str, mapped_column(String(ID_LENGTH), ForeignKey("artifacts.id"))]
ProjectKey = Annotated[int, mapped_column(BIG, ForeignKey("projects.key"))]
TargetKey = Annotated[int, mapped_column(BIG, ForeignKey("targets.key"))]
WorkloadKey = Annotated[int, mapped_column(BIG, ForeignKey("workloads.key"))]
DeviceKey = Annotated[int, mapped_column(BIG, ForeignKey("devices.key"))]
WorkerKey = Annotated[int, mapped_column(BIG, ForeignKey("workers.key"))]
StepKey = Annotated[int, mapped_column(BIG, ForeignKey("steps.key"))]
RecordKey = Annotated[int, mapped_column(BIG, ForeignKey("records.key"))]
CostModelKey = Annotated[int, mapped_column(BIG, ForeignKey("cost_models.key"))]


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING)

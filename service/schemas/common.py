"""Parts that several resources share."""

from __future__ import annotations

from typing import Annotated, Generic, TypeVar

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

ItemT = TypeVar("ItemT", bound=BaseModel)

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
SHA256_PATTERN = r"^[0-9a-f]{64}$"
MAX_TRIALS = 10_000_000
MAX_SECONDS = 30 * 24 * 3600.0
LARGEST_SEED = 2**31 - 1

Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
"""Letters, digits, dot, underscore and hyphen, at most 100; never looks like an id of another kind."""
Reference = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,120}$")]
"""An id (`net_...`, `tgt_...`) or a name."""
Sha256 = Annotated[str, StringConstraints(pattern=SHA256_PATTERN)]


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must be printable text on one line")
    return text


Text = Annotated[str, StringConstraints(max_length=200), AfterValidator(_printable)]
Labels = Annotated[
    dict[Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,62}$")], Text], Field(max_length=32)
]
Time = AwareDatetime


class In(BaseModel):
    """A body that comes in: an unknown member is a mistake of the caller's and is said so."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Out(BaseModel):
    model_config = ConfigDict(frozen=True)


class Page(Out, Generic[ItemT]):
    """One page of a list, newest first."""

    items: list[ItemT]
    next: str | None = Field(None, description="Cursor of the next page; absent on the last one.")


class Tensor(Out):
    """An input or output of a network."""

    name: str
    dtype: str
    shape: list[int]


class Failure(Out):
    """Why something did not work."""

    code: str = Field(description="Stable name of the reason.")
    detail: str = Field(description="What was wrong and, where it can be told, what would be right.")

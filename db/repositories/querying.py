"""The type of a query whose columns are read by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from sqlalchemy import Select

AnySelect: TypeAlias = "Select[*tuple[Any, ...]]"

"""The names of `methods.METHODS`, for those who only pass one on: numpy is not imported here."""

from __future__ import annotations

from enum import StrEnum


class PruningMethod(StrEnum):
    RANDOM = "random"
    TASK_DIVERSE = "task-diverse"
    LABEL_STRATIFIED = "label-stratified"
    STRATIFIED_DISTINCT = "stratified-distinct"
    NEAR_DUPLICATES = "near-duplicates"
    REPRESENTATIVE_DIVERSE_UNCERTAIN = "representative-diverse-uncertain"

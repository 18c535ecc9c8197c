"""What the database refuses on purpose; every text is fit for the user."""

from __future__ import annotations


class StoreError(Exception):
    """Base of every error that `crosstune.db` raises on purpose."""


class NotFound(StoreError):
    """There is no such resource, or not for this project."""

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(f"no {kind} {name!r}")
        self.kind, self.name = kind, name


class NameTaken(StoreError):
    """The name already stands for other content; `holder` is the id of what has it."""

    def __init__(self, kind: str, name: str, holder: str) -> None:
        super().__init__(f"the {kind} name {name!r} is taken by {holder}, which has other content; choose another name")
        self.kind, self.name, self.holder = kind, name, holder


class IllegalTransition(StoreError):
    """A job cannot go from `before` to `after`."""

    def __init__(self, job_id: str, before: str, after: str) -> None:
        super().__init__(f"job {job_id} is {before}, so it cannot become {after}")
        self.job_id, self.before, self.after = job_id, before, after


class StaleClaim(StoreError):
    """Another attempt owns the step or device by now; whatever this one was about to store must be rolled back."""

    def __init__(self, resource: str, owner: str, attempt: int) -> None:
        super().__init__(f"{owner} no longer holds {resource} (attempt {attempt})")
        self.resource, self.owner, self.attempt = resource, owner, attempt


class IdempotencyConflict(StoreError):
    """The Idempotency-Key was used for another request."""

    def __init__(self, key: str) -> None:
        super().__init__(f"the Idempotency-Key {key!r} was used for a request with another body; use a new key")
        self.key = key


class IdempotencyInProgress(StoreError):
    """The first request with this Idempotency-Key is still being answered."""

    def __init__(self, key: str) -> None:
        super().__init__(f"the first request with the Idempotency-Key {key!r} is still running; repeat it later")
        self.key = key


class SchemaOutdated(StoreError):
    """The tables are not those of this version of crosstune; `newer`: another version made them, which came later."""

    def __init__(self, current: str | None, head: str, newer: bool = False) -> None:
        found = "no crosstune tables" if current is None else f"revision {current}"
        help_ = "a newer crosstune has upgraded it: upgrade this one" if newer else "run `crosstune db upgrade`"
        super().__init__(f"the database has {found}, this version needs revision {head}: {help_}")
        self.current, self.head = current, head

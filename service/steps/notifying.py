"""Notify step: tell the address that a job names of its end; the body is the job as JSON.

A receiver that does not answer with 2xx is told again, three times in all. The job is what it is, whatever the receiver
says.
"""

from __future__ import annotations

import time

import httpx

from crosstune.db.engine import reading, retrying
from crosstune.db.repositories import jobs, steps
from crosstune.db.repositories.steps import Claim
from crosstune.service import job_views, webhooks
from crosstune.service.heart import Held
from crosstune.service.services import Services
from crosstune.service.steps.context import TryAgain, WorkerContext

TIMEOUT_S, RETRY_S = 10.0, 30.0


def execute(context: WorkerContext, claim: Claim, held: Held) -> None:
    url, settings = str(claim.input["url"]), context.settings
    webhooks.check_address(url, settings)
    with reading(context.engine) as connection:
        row = jobs.get(connection, claim.input["job_id"])
        (shown,) = job_views.outlines(Services(settings, context.engine), connection, [row])
    body = shown.model_dump_json().encode()
    headers = {"Content-Type": "application/json", "Idempotency-Key": claim.step_id}
    if settings.webhook_secret is not None:
        headers[webhooks.SIGNATURE] = webhooks.signature(settings.webhook_secret.get_secret_value(), time.time(), body)
    try:
        httpx.post(url, content=body, headers=headers, timeout=TIMEOUT_S, follow_redirects=False).raise_for_status()
    except httpx.HTTPError as error:
        raise TryAgain(f"the receiver did not take it: {error}", RETRY_S) from error
    retrying(context.engine, lambda connection: steps.finish(connection, claim))

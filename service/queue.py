"""Wake-ups for workers through Dramatiq: in process by default, over Redis where a URL is set.

A message carries a step's id and nothing else. The `steps` table is the only truth: a lost, doubled or late message
changes nothing, because the sweeper announces runnable steps again and a claim decides who runs one.
"""

from __future__ import annotations

from collections.abc import Callable

import dramatiq
from dramatiq.brokers.stub import StubBroker
from dramatiq.middleware import CurrentMessage, Middleware, ShutdownNotifications

ACTOR = "run_step"
DEFAULT_QUEUE = "crosstune"


def make_broker(redis_url: str | None = None) -> dramatiq.Broker:
    """A broker without retries, delays and time limits: all three live in the steps table.

    On Redis, maintenance runs with every command: by default dead workers are noticed only after minutes.
    """
    middleware: list[Middleware] = [CurrentMessage(), ShutdownNotifications()]
    if redis_url is None:
        return StubBroker(middleware=middleware)
    from dramatiq.brokers.redis import RedisBroker

    return RedisBroker(  # type: ignore[no-untyped-call]
        url=redis_url,
        middleware=middleware,
        maintenance_chance=1_000_000,
        heartbeat_timeout=15_000,
        namespace="crosstune",
    )


class Dispatcher:
    """Announces steps on their queue and runs those that this process takes."""

    def __init__(
        self, broker: dramatiq.Broker, run_step: Callable[[str], None], threads: int, queue: str = DEFAULT_QUEUE
    ) -> None:
        """`queue` is served from the start."""
        self._broker = broker
        self._actor = dramatiq.actor(broker=broker, actor_name=ACTOR, queue_name=queue)(run_step)
        self._worker = dramatiq.Worker(broker, worker_threads=threads, worker_timeout=100)

    def start(self) -> None:
        self._worker.start()

    def announce(self, step_id: str, queue: str) -> None:
        """Send a wake-up; a queue seen for the first time is served from now on, without a restart."""
        self._broker.declare_queue(queue)
        self._broker.enqueue(self._actor.message(step_id).copy(queue_name=queue))

    def stop(self, timeout_s: float = 20.0) -> None:
        self._worker.stop(timeout=int(timeout_s * 1000))
        self._broker.close()

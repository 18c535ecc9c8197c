"""Wake-ups for workers through Dramatiq: in process by default, over Redis where a URL is set.

A message carries a step's id and nothing else. The `steps` table is the only truth: a lost, doubled or late message
changes nothing, because the sweepers announce runnable steps again and a claim decides who runs one. While Redis does
not answer, a worker takes what it finds itself.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import dramatiq
from dramatiq.brokers.stub import StubBroker
from dramatiq.errors import BrokerConnectionError
from dramatiq.middleware import CurrentMessage, Middleware, ShutdownNotifications

logger = logging.getLogger(__name__)

ACTOR = "run_step"
DEFAULT_QUEUE = "crosstune"
PREFETCH = 1
"""Messages that a process takes from a queue before it is done with the last one would wait there for nothing."""
HEARTBEAT_TIMEOUT_MS = 15_000
REDIS_TIMEOUT_S = 3.0


def make_brokers(redis_url: str | None = None) -> list[dramatiq.Broker]:
    """In the order in which they are tried; each without retries, delays and time limits: all three live in the steps
    table.

    On Redis, maintenance runs with every command: by default dead workers are noticed only after minutes.
    """
    if redis_url is None:
        return [StubBroker(middleware=_middleware())]
    import redis
    from dramatiq.brokers.redis import RedisBroker

    # Without time limits a Redis that hangs would hold up the sweeper.
    client = redis.Redis.from_url(redis_url, socket_timeout=REDIS_TIMEOUT_S, socket_connect_timeout=REDIS_TIMEOUT_S)
    remote = RedisBroker(  # type: ignore[no-untyped-call]
        client=client,
        middleware=_middleware(),
        maintenance_chance=1_000_000,
        heartbeat_timeout=HEARTBEAT_TIMEOUT_MS,
        namespace="crosstune",
    )
    return [remote, StubBroker(middleware=_middleware())]


def _unreachable(broker: dramatiq.Broker) -> tuple[type[Exception], ...]:
    """What it raises when nothing answers; Redis' own errors come through as they are."""
    if isinstance(broker, StubBroker):
        return ()
    from redis.exceptions import RedisError

    return BrokerConnectionError, RedisError


def _middleware() -> list[Middleware]:
    return [CurrentMessage(), ShutdownNotifications()]


class Dispatcher:
    """Announces steps on their queue and runs those that this process takes."""

    def __init__(
        self,
        brokers: Sequence[dramatiq.Broker],
        run_step: Callable[[str], None],
        threads: int,
        queue: str = DEFAULT_QUEUE,
    ) -> None:
        """`queue` is served from the start. An announcement goes to the first of `brokers` that can be reached."""
        self._lines = [Line(broker, run_step, threads, queue) for broker in brokers]

    def start(self) -> None:
        for line in self._lines:
            line.worker.start()

    def announce(self, step_id: str, queue: str) -> None:
        """Send a wake-up; a queue seen for the first time is served from now on, without a restart."""
        *shared, own = self._lines
        for line in shared:
            try:
                line.announce(step_id, queue)
            except line.unreachable as error:
                logger.warning("the queue cannot be reached, %s is taken here: %s", step_id, error)
            else:
                return
        own.announce(step_id, queue)

    def stop(self, timeout_s: float = 20.0) -> None:
        for line in self._lines:
            line.worker.stop(timeout=int(timeout_s * 1000))
            line.broker.close()


class Line:
    """One broker, the actor on it, and the threads of this process that serve it."""

    def __init__(self, broker: dramatiq.Broker, run_step: Callable[[str], None], threads: int, queue: str) -> None:
        self.broker = broker
        self.unreachable = _unreachable(broker)
        self._actor = dramatiq.actor(broker=broker, actor_name=ACTOR, queue_name=queue)(run_step)
        self.worker = dramatiq.Worker(broker, worker_threads=threads, worker_timeout=100)
        self.worker.queue_prefetch = PREFETCH

    def announce(self, step_id: str, queue: str) -> None:
        self.broker.declare_queue(queue)
        self.broker.enqueue(self._actor.message(step_id).copy(queue_name=queue))

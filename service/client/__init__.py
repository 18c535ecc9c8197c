"""A typed client of the service; `Client`'s methods are the API's operation ids."""

from crosstune.service.client.client import Client
from crosstune.service.client.errors import ApiError, ClientError, ServiceUnreachable, WaitedTooLong

__all__ = ["ApiError", "Client", "ClientError", "ServiceUnreachable", "WaitedTooLong"]

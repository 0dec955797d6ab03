# SPDX-License-Identifier: Apache-2.0
"""The connection to RabbitMQ: a thread that sends what the outbox holds, and connects again."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

from worldsystem_bridge import exchanges
from worldsystem_bridge.config import BridgeConfig
from worldsystem_bridge.exchanges import Exchange, Message
from worldsystem_bridge.outbox import Outbox, Posting
from worldsystem_core.errors import ConfigError, MissingDependency
from worldsystem_core.priority import lower_thread_priority

log = logging.getLogger(__name__)

_PATIENCE_S = 5.0
_BLOCKED_S = 10.0
_HEARTBEAT_S = 30
_POLL_S = 0.1
_JOIN_S = 12.0
_NICENESS = 10
_REFUSED, _UNKNOWN, _WRONG_TYPE = 403, 404, 406


class Broker:
    """Sends with confirmation, so that what counts as used is with the broker.

    `on_restart` is called from this object's thread when a restart message came.
    """

    def __init__(
        self, url: str, config: BridgeConfig, outbox: Outbox, on_restart: Callable[[], None]
    ) -> None:
        self._pika = _library()
        self.place = place_of(url)
        self._parameters = self._parameters_of(url)
        self._config = config
        self._outbox = outbox
        self._on_restart = on_restart
        self._stop = threading.Event()
        self._held: Posting | None = None
        self._told = ""
        self._not_ours: set[str] = set()
        self._channel: Any = None  # a type of the library
        self.connected = False
        self.connects = 0
        self.problem = f"not connected to {self.place} yet"
        self._thread = threading.Thread(target=self._run, name="rabbitmq", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, patience_s: float = 2.0) -> None:
        """Send what waits, for `patience_s` at most, then let go of the rest and leave."""
        end = threading.Event()
        while self.connected and len(self._outbox) and patience_s > 0:
            end.wait(_POLL_S)
            patience_s -= _POLL_S
        self._stop.set()
        self._thread.join(_JOIN_S)
        if self._held is not None:
            self._outbox.refused(self._held, "broker_away")
            self._held = None
        self._outbox.close("broker_away")

    def _parameters_of(self, url: str) -> Any:  # a type of the library
        try:
            parameters = self._pika.URLParameters(url)
        except OSError as error:
            raise ConfigError(
                f"bridge.url: a certificate or key of its ssl_options cannot be used ({error})"
            ) from error
        except (ValueError, TypeError, SyntaxError, AttributeError) as error:
            raise ConfigError(f"bridge.url is no AMQP address ({type(error).__name__})") from error
        parameters.socket_timeout = parameters.stack_timeout = _PATIENCE_S
        parameters.blocked_connection_timeout = _BLOCKED_S
        parameters.heartbeat = _HEARTBEAT_S
        return parameters

    def _run(self) -> None:
        lower_thread_priority(_NICENESS)  # bodies are made here, Draco's among them
        pause_s = self._config.retry_first_s
        while not self._stop.is_set():
            try:
                before = self.connects
                self._talk()
            except (self._pika.exceptions.AMQPError, OSError) as error:
                reason = str(error) or type(error).__name__
                self.problem = f"{self.place} is away ({reason}); trying again"
                log.warning("RabbitMQ: %s", self.problem)
            except Exception as error:  # the edge of the thread: a new connection may do better
                self.problem = f"the connection to {self.place} failed ({error!r}); trying again"
                log.exception("RabbitMQ: %s", self.problem)
            finally:
                self.connected = False
            if self.connects > before:
                pause_s = self._config.retry_first_s
            self._stop.wait(pause_s)
            pause_s = min(2 * pause_s, self._config.retry_most_s)

    def _talk(self) -> None:
        """One connection, from its beginning to its end."""
        connection = self._pika.BlockingConnection(self._parameters)
        try:
            for exchange in exchanges.ALL:
                self._declare(connection, exchange)
            self._channel = None
            self._listen_for_restarts(connection)
            self.connects += 1
            self.connected, self.problem = True, ""
            log.info("RabbitMQ: connected to %s", self.place)
            while not self._stop.is_set():
                self._send_next(connection)
                connection.process_data_events(0)
        finally:
            if connection.is_open:
                connection.close()

    def _open_channel(self, connection: Any) -> Any:
        """The channel, anew where the broker closed it: it does where it refuses something."""
        if self._channel is None or self._channel.is_closed:
            self._channel = connection.channel()
            self._channel.confirm_delivery()
        return self._channel

    def _declare(self, connection: Any, exchange: Exchange) -> None:
        """Declare it; one that exists otherwise, or that we may not declare, is used as it is."""
        channel = connection.channel()
        try:
            channel.exchange_declare(
                exchange.name, exchange_type=exchange.type, durable=exchange.durable
            )
        except self._pika.exceptions.ChannelClosedByBroker as error:
            if error.reply_code not in (_WRONG_TYPE, _REFUSED):
                raise
            if error.reply_code == _REFUSED:
                self._not_ours.add(exchange.name)
            text = error.reply_text
            log.warning("RabbitMQ: using %s as it is, if it is there (%s)", exchange.name, text)
            return
        channel.close()

    def _listen_for_restarts(self, connection: Any) -> None:
        name = self._config.restart_exchange
        if not name:
            return
        self._declare(connection, Exchange(name, "fanout", False))
        channel = connection.channel()
        try:
            queue = channel.queue_declare("", exclusive=True).method.queue
            channel.queue_bind(queue, name, "#")
            channel.basic_consume(queue, lambda *_: self._on_restart(), auto_ack=True)
        except self._pika.exceptions.ChannelClosedByBroker as error:
            log.warning("RabbitMQ: restart messages are not heard (%s)", error.reply_text)

    def _send_next(self, connection: Any) -> None:
        """Send one posting; it is kept for the next connection when this one breaks meanwhile."""
        if self._held is None:
            self._held = self._outbox.get(_POLL_S)
        if self._held is None:
            return
        why_not = self._publish(connection, self._held)
        if why_not:
            self._outbox.refused(self._held, why_not)
        else:
            self._outbox.sent(self._held)
        self._held = None

    def _publish(self, connection: Any, posting: Posting) -> str:
        """Publish what `posting` tells; a reason why any of it can never be, else empty."""
        try:
            messages = posting.made()
        except Exception as error:  # the edge to whoever made the job: the others shall go on
            return self._why_not("not_encodable", f"a message was not made: {_words(error)}")
        reasons = [self._publish_one(connection, message) for message in messages]
        return next(filter(None, reasons), "")

    def _publish_one(self, connection: Any, message: Message) -> str:
        properties = self._pika.BasicProperties(content_type=message.content_type)
        try:
            self._open_channel(connection).basic_publish(
                message.exchange, message.routing_key, message.body, properties
            )
        except self._pika.exceptions.NackError:
            return "refused_by_broker"
        except self._pika.exceptions.ChannelClosedByBroker as error:
            if error.reply_code == _UNKNOWN and message.exchange not in self._not_ours:
                raise  # somebody deleted it: a new connection declares it
            return self._why_not("refused_by_broker", f"it refused a message: {error.reply_text}")
        except (TypeError, ValueError) as error:
            return self._why_not("not_encodable", f"a message was not sent: {_words(error)}")
        return ""

    def _why_not(self, reason: str, text: str) -> str:
        if text != self._told:
            log.error("RabbitMQ: %s; more of the same is only counted", text)
            self._told = text
        return reason


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def place_of(url: str) -> str:
    """Host and port of `url`, without the user and the password; raises `ConfigError`."""
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("amqp", "amqps") and bool(parts.hostname)
        port = parts.port or (5671 if parts.scheme == "amqps" else 5672)
    except ValueError:
        known, port = False, 0
    if not known:
        raise ConfigError(
            "bridge.url (or RABBITMQ_URL) must be amqp://user:password@host:5672/, or amqps://"
        )
    return f"{parts.hostname}:{port}"


def _library() -> ModuleType:
    try:
        import pika
    except ImportError as error:
        raise MissingDependency("pika", "the RabbitMQ bridge", "pip install pika") from error
    logging.getLogger("pika").setLevel(logging.CRITICAL)  # what it says is told here, once
    library: ModuleType = pika
    return library

# SPDX-License-Identifier: Apache-2.0
"""Our topics for consumers that listen on RabbitMQ."""

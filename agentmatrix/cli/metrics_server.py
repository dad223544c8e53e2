"""The metrics of a host for Prometheus: `serve --metrics ADDRESS` (extra `metrics`)."""

from __future__ import annotations

from agentmatrix.cli.error_report import CommandError
from agentmatrix.errors import MissingExtra

__all__ = ["serve_metrics"]


def serve_metrics(address: str) -> None:
    """Offers all metrics of this process at `http://ADDRESS/metrics`, from a thread of its own.

    Raises:
        CommandError: the address cannot be understood or bound.
        MissingExtra: the exporter is not installed.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise CommandError(f"{address!r} is no address for --metrics: write 127.0.0.1:9464")
    try:
        import prometheus_client
        from opentelemetry import metrics
        from opentelemetry.exporter.prometheus import PrometheusMetricReader
        from opentelemetry.sdk.metrics import MeterProvider
    except ImportError:
        raise MissingExtra("metrics: pip install opentelemetry-sdk opentelemetry-exporter-prometheus") from None
    metrics.set_meter_provider(MeterProvider(metric_readers=[PrometheusMetricReader()]))
    try:
        prometheus_client.start_http_server(int(port), host.strip("[]"))
    except OSError as error:
        raise CommandError(f"--metrics {address} cannot be bound: {error.strerror or error}") from None

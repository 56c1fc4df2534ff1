"""Prometheus: a snapshot of the monitor as text 0.0.4 or OpenMetrics 1.0.0.

No metric object is kept or mutated: each scrape formats one consistent snapshot, and waits for nothing but that
snapshot, neither for the broker nor for the store.

    families/     every metric: its name, type, labels and the HELP text that teaches it
    labels.py      hostile names -> label values that are printable, bounded and still distinct
    tasks.py       the per-task families, column by column: they are 99 % of a scrape
    collector.py   everything else, as a prometheus_client Collector
    exposition.py  negotiation, all of it together, gzip
    reference.py   docs/metrics.md, from the table
"""

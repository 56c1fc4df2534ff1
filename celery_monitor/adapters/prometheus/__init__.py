"""Exports a snapshot of the monitor in Prometheus text format 0.0.4 or OpenMetrics 1.0.0.

No metric objects are kept or mutated: each scrape formats one consistent snapshot, and waits neither for the broker
nor for the store.

    families/      all metrics: name, type, labels and HELP text
    labels.py      converts untrusted names to label values that are printable, bounded and distinct
    tasks.py       renders the per-task families, which are 99 % of a scrape, column by column
    collector.py   everything else, as a prometheus_client Collector
    exposition.py  content negotiation, assembly and gzip
    reference.py   generates docs/metrics.md
"""

# The image of the daemon: `make image`. Nothing in the last stage compiles, downloads or needs a shell.

FROM python:3.13-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src

# The dependencies change less often than the program: they are a layer of their own, and checked by hash.
COPY requirements.lock requirements-build.lock ./
RUN python -m venv --without-pip /opt/celery-monitor \
    && pip --python /opt/celery-monitor/bin/python install --only-binary :all: --no-compile \
        --no-deps --require-hashes -r requirements.lock \
    && pip install --only-binary :all: --no-deps --require-hashes -r requirements-build.lock

COPY pyproject.toml README.md LICENSE ./
COPY celery_monitor celery_monitor
RUN pip wheel --quiet --no-deps --no-build-isolation --no-index --wheel-dir /tmp/wheel . \
    && pip --python /opt/celery-monitor/bin/python install --no-deps --no-index --no-compile /tmp/wheel/*.whl \
    && find /opt/celery-monitor -depth -type d \( -name tests -o -name test -o -name testing \) \
        -path '*/site-packages/*' -exec rm -rf {} + \
    # Compiled here, because the root file system is read-only there; never checked against the sources again.
    && python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/celery-monitor/lib


FROM python:3.13-slim
LABEL org.opencontainers.image.title="celery-monitor" \
    org.opencontainers.image.description="Exact task counts, Prometheus metrics, PagerDuty incidents and a daily mail for any Celery fleet" \
    org.opencontainers.image.licenses="MIT" \
    org.opencontainers.image.version="0.2.0"

RUN groupadd --gid 10001 celery-monitor \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/celery-monitor \
        --shell /usr/sbin/nologin celery-monitor \
    && install -d -o 10001 -g 10001 -m 0750 /var/lib/celery-monitor \
    && install -d /etc/celery-monitor \
    && echo '# Nothing but defaults: mount a file of your own here.' > /etc/celery-monitor/config.yaml \
    # Nothing is ever installed here.
    && rm -rf /usr/local/bin/pip* /usr/local/lib/python3.13/site-packages/pip* /usr/local/lib/python3.13/ensurepip
COPY --from=build /opt/celery-monitor /opt/celery-monitor

ENV PATH=/opt/celery-monitor/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    CELERY_MONITOR_CONFIG=/etc/celery-monitor/config.yaml
# The default store is a file in the working directory.
WORKDIR /var/lib/celery-monitor
VOLUME ["/var/lib/celery-monitor"]
USER 10001:10001
EXPOSE 9808
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 CMD ["celery-monitor", "healthcheck"]
ENTRYPOINT ["celery-monitor"]
CMD ["run"]

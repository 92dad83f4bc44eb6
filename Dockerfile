# docker build -t nyc-trips .                     luigi, luigid and python -m pipeline
# docker build -t nyc-trips:cron --target cron .  the same, with a cron daemon that needs no root
ARG PYTHON=docker.io/library/python:3.13.9-slim-trixie
ARG GOLANG=docker.io/library/golang:1.25.3-trixie


# -- the environment: pip and its caches stay in this stage
FROM ${PYTHON} AS build
WORKDIR /srv/nyc-trips
RUN python3 -m venv .venv
COPY requirements.txt deploy/constraints.txt ./
RUN .venv/bin/pip install --no-cache-dir --requirement requirements.txt --constraint constraints.txt
COPY pyproject.toml README.md ./
COPY pipeline pipeline
RUN .venv/bin/pip install --no-cache-dir --no-deps .


# -- a cron daemon for containers: runs as any user, logs to stdout, supports time zones
FROM ${GOLANG} AS supercronic
RUN CGO_ENABLED=0 GOBIN=/usr/local/bin go install github.com/aptible/supercronic@v0.2.33


FROM ${PYTHON} AS runtime
LABEL org.opencontainers.image.title="nyc-trips" \
      org.opencontainers.image.description="Keeps a data lake and a warehouse complete with the NYC taxi trip records"
RUN groupadd --gid 10001 trips && useradd --uid 10001 --gid trips --home-dir /srv/nyc-trips --no-create-home trips \
    && install -d -o trips -g trips /srv/nyc-trips /srv/nyc-trips/data
WORKDIR /srv/nyc-trips
COPY --from=build /srv/nyc-trips/.venv .venv
COPY luigi.cfg ./
COPY deploy/crontab deploy/crontab
# All lasting data is below data: mount a volume there.
ENV PATH=/srv/nyc-trips/.venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    TZ=America/New_York \
    LUIGI_CONFIG_PATH=/srv/nyc-trips/luigi.cfg \
    PIPELINE_LAKE_URL=file:data/lake \
    PIPELINE_WORKSPACE_URL=file:data/workspace \
    PIPELINE_WAREHOUSE_URL=duckdb:///data/warehouse.duckdb
USER trips
VOLUME /srv/nyc-trips/data
# Checks that the settings are valid and the volume is writable. luigid has its own check in docker-compose.yml.
HEALTHCHECK --interval=60s --timeout=20s --start-period=20s \
    CMD ["python", "-c", "import os, pipeline; pipeline.validation.validate(); assert os.access('data', os.W_OK)"]
CMD ["python", "-m", "pipeline", "--help"]


FROM runtime AS cron
COPY --from=supercronic /usr/local/bin/supercronic /usr/local/bin/supercronic
CMD ["supercronic", "-passthrough-logs", "deploy/crontab"]


# The image that `docker build` makes without --target.
FROM runtime

# `make optimize` and `make test` in a container; docs/install.md says how.
FROM python:3.11-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends git libgomp1 make \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 user \
    && mkdir /app \
    && chown user:user /app
USER user
WORKDIR /app
# The environment and the embedded model first: they stay as they are while tests and manual change.
COPY --chown=user:user Makefile pyproject.toml requirements.lock README.md LICENSE ./
COPY --chown=user:user agent agent
COPY --chown=user:user promptassay promptassay
COPY --chown=user:user tasks tasks
RUN make setup
COPY --chown=user:user . .
CMD ["make", "optimize"]

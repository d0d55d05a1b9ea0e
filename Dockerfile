# Moorage as an image: a drop-in for registry:2 and registry:3 (docs/operations.md, "The image").
#
#   docker build -t moorage .
#
# BASE is any glibc Linux with Python 3.11 or newer as python3, its venv module, libstdc++ and CA certificates. Pin it by
# digest where you publish: --build-arg BASE=python:3.13-slim@sha256:... No step needs BuildKit, a compiler or apt.
ARG BASE=python:3.13-slim

FROM ${BASE} AS build
# Behind a mirror or a proxy that signs for others: --build-arg PIP_INDEX_URL=... --build-arg PIP_CERT=...
ARG PIP_INDEX_URL
ARG PIP_CERT
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PYTHONDONTWRITEBYTECODE=1
WORKDIR /src
# Two environments: pip and what builds stay in the first.
RUN python3 -m venv /tools && python3 -m venv --without-pip /opt/moorage
COPY deploy/image/build.txt deploy/image/requirements.txt ./
RUN /tools/bin/pip install --require-hashes --only-binary :all: -r build.txt && \
    /tools/bin/pip --python /opt/moorage/bin/python install --require-hashes --only-binary :all: --no-compile \
      -r requirements.txt
COPY pyproject.toml README.md LICENSE ./
COPY registry registry
COPY storage storage
RUN /tools/bin/pip wheel --no-index --no-deps --no-build-isolation --wheel-dir /wheels . && \
    /tools/bin/pip --python /opt/moorage/bin/python install --no-index --no-deps --no-compile /wheels/*.whl
# Half of the image would be botocore's descriptions of services. These are what S3, its logins and ECR need.
RUN cd /opt/moorage/lib/python3*/site-packages/botocore/data && \
    find . -mindepth 1 -maxdepth 1 -type d ! -name s3 ! -name sts ! -name sso ! -name sso-oidc ! -name signin \
      ! -name ecr ! -name ecr-public -exec rm -r {} +
COPY deploy/image/registry /opt/moorage/bin/registry
# Bytecode that is taken as it is: nothing to compare at a start, nothing to write on a read-only root file system.
RUN python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/moorage/lib

FROM ${BASE}
COPY --from=build /opt/moorage /opt/moorage
COPY deploy/image/entrypoint.sh /entrypoint.sh
COPY deploy/image/config.yml /etc/docker/registry/config.yml
# Both paths of a configuration are one: a mount at either is found. The owner of the volume is whom root becomes.
# The imports show that all is there, and leave the bytecode of the standard library, which official images lack.
RUN ln -s /opt/moorage/bin/registry /bin/registry && \
    ln -s docker/registry /etc/distribution && \
    mkdir -p /var/lib/registry && chown 10001:10001 /var/lib/registry && \
    /opt/moorage/bin/python3 -c 'import registry.app, registry.cli, registry.serving.server, registry.processes.workers, storage.drivers.s3, \
      registry.metrics.page, registry.proxy.mirrors, registry.watching.tracing, re2, opentelemetry.sdk.trace.export, \
      opentelemetry.exporter.otlp.proto.http.trace_exporter' && \
    registry check-config /etc/docker/registry/config.yml >/dev/null && registry --version
# As registry:3 has it: traces need OTEL_TRACES_EXPORTER=otlp, an endpoint that is set for every container is not enough.
ENV OTEL_TRACES_EXPORTER=none
VOLUME ["/var/lib/registry"]
EXPOSE 5000
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s CMD ["registry", "healthcheck"]
ENTRYPOINT ["/entrypoint.sh"]
CMD ["serve", "/etc/docker/registry/config.yml"]

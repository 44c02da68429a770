# syntax=docker/dockerfile:1
# Needs nothing but a writable /data: `docker run --read-only --tmpfs /tmp -v llmgateway:/data …` works.
ARG PYTHON_VERSION=3.11

FROM python:${PYTHON_VERSION}-slim AS build
WORKDIR /src
# Two environments: one with the build tools, and the one that is shipped, with all extras, whose bytecode pip compiles.
# What Semantic Kernel asks for and nothing here imports goes again: 250 of 606 MB (tests/project/test_image.py).
COPY requirements-image.txt requirements-build.txt ./
RUN python -m venv /opt/build \
    && /opt/build/bin/pip install --no-cache-dir --no-deps --require-hashes -r requirements-build.txt \
    && python -m venv /opt/llmgateway \
    && /opt/llmgateway/bin/pip install --no-cache-dir --no-deps --require-hashes -r requirements-image.txt \
    && /opt/llmgateway/bin/pip uninstall --yes aioice aiortc av pylibsrtp scipy
COPY pyproject.toml README.md piccolo_conf.py ./
COPY piccolo_migrations piccolo_migrations
COPY proxy proxy
RUN /opt/build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels . \
    && /opt/llmgateway/bin/pip install --no-cache-dir --no-deps /wheels/*.whl \
    && rm -rf /opt/llmgateway/lib/python*/site-packages/pip*

FROM python:${PYTHON_VERSION}-slim
RUN groupadd --system --gid 10001 llmgateway \
    && useradd --system --uid 10001 --gid 10001 --no-create-home --shell /usr/sbin/nologin llmgateway \
    && install --directory --owner 10001 --group 10001 /data
COPY --from=build /opt/llmgateway /opt/llmgateway
ENV PATH=/opt/llmgateway/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    LLMGATEWAY_HOST=0.0.0.0 \
    LLMGATEWAY_DATA_DIR=/data
USER 10001:10001
VOLUME /data
EXPOSE 4000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 CMD ["llmgateway", "health"]
ENTRYPOINT ["llmgateway"]
CMD ["serve"]

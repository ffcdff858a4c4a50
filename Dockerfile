# `make image` builds it, and `docker run --rm camelsight` says what it does. The project lies in /opt/camelsight, which
# nothing writes to; code/container.sh lays it out in /out, where results and unfinished work stay.
#
# torch's wheels bring the CUDA libraries they were built with, so the base is NVIDIA's smallest that holds the CUDA
# runtime and tells the container toolkit which driver is needed; "-runtime-" would put a second, unused set of the
# libraries, over 2 GB, beside them. Another base needs Python 3.11 or newer in its packages (Ubuntu 24.04: 3.12).
#
# With torch's CPU build (make image WHEELS=folder BASE=debian:bookworm) the image is small and has no compiler. With a
# CUDA build it has the C compiler and the headers that torch.compile needs at run time: Triton builds its launchers so.
ARG BASE=nvidia/cuda:13.0.2-base-ubuntu24.04

FROM ${BASE} AS run
WORKDIR /opt/camelsight
COPY code/setup.sh code/pip.sh code/
RUN bash code/setup.sh run tini && apt-get clean && rm -rf /var/lib/apt/lists/* /var/log/*

# What does not change with the code, so that an edit does not compile Pylians again.
FROM run AS build
ARG TORCH=
COPY requirements.lock pyproject.toml .wheel[s] .wheels/
RUN mv .wheels/requirements.lock .wheels/pyproject.toml . && mkdir -p code/camelsight && touch code/camelsight/__init__.py && \
    if ls .wheels/*.whl >/dev/null 2>&1; then export WHEELS=.wheels; fi && bash code/setup.sh build && rm -rf .wheels

FROM build AS code
COPY . .
RUN rm -rf .wheels && bash code/setup.sh compile && mv .venv/.ready code/ && rm -rf .venv

FROM run
COPY --from=build /opt/camelsight/.venv .venv
RUN bash code/setup.sh gpu && apt-get clean && rm -rf /var/lib/apt/lists/* /var/log/*
COPY --from=code /opt/camelsight .
# Any user may run it: who that is may have no name and no home, and DVC's cache goes where it may write. There is no USER,
# because code/container.sh hands over to the owner of the folder that is mounted, whoever that is, before it does anything.
ENV HOME=/tmp LOGNAME=camelsight DVC_SITE_CACHE_DIR=/out/.dvc/site \
    TRITON_CACHE_DIR=/out/.cache/triton TORCHINDUCTOR_CACHE_DIR=/out/.cache/inductor \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
RUN mv code/.ready .venv/ && find . -path ./.venv -prune -o -exec chmod a+rX {} + && \
    .venv/bin/python -m compileall -q code && \
    mkdir /out && cd /out && bash /opt/camelsight/code/container.sh lay && chmod -R a+rwX /out
WORKDIR /out
ENTRYPOINT ["/usr/bin/tini", "--", "/opt/camelsight/code/container.sh"]

ARG VERSION= REVISION=unknown SOURCE= CREATED=
ENV CAMELSIGHT_COMMIT=${REVISION}
LABEL org.opencontainers.image.title="camelsight" \
      org.opencontainers.image.description="Reproduces arXiv:2504.17839, or its pipeline on simulated maps" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.created="${CREATED}"

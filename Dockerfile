# `jinabert serve` in a container (docs/install.md).
#
#   docker build --target cpu      -t jinabert:cpu .        the CPU, without Vulkan
#   docker build --target lavapipe -t jinabert:lavapipe .   WGSL on Mesa's software driver, for trials without a GPU
#   docker build --target gpu      -t jinabert:gpu .        NVIDIA, AMD, Intel

FROM rust:1-trixie AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY src src
COPY shaders shaders
COPY crates crates
# Members and targets that manifests name: cargo reads them all and builds only the program.
COPY python/Cargo.toml python/
COPY python/src python/src
COPY benches benches
COPY examples examples
COPY tests tests
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked -p jinabert-cli \
    && install -D target/release/jinabert /out/bin/jinabert \
    && /out/bin/jinabert man --dir /out/share/man/man1

# Debian 13: its Mesa, 25.0, supports GPUs that Debian 12's 22.3 does not.
FROM debian:trixie-slim AS cpu
COPY --from=build /out /usr/local
COPY models/jinabert-mini-en /usr/local/share/jinabert/models/jinabert-mini-en
COPY LICENSE-APACHE LICENSE-MIT /usr/local/share/doc/jinabert/
# /models: models from the Hugging Face hub; /cache: compiled kernels and tuning results.  Writable for group 0, in which
# OpenShift runs images under a user id of its choice.
RUN useradd --system --uid 10001 --gid 0 --home-dir /nonexistent --no-create-home jinabert \
    && install -d -o 10001 -g 0 -m 0775 /models /cache
# No key: anyone who can reach a published port can send requests, unless JINABERT_API_KEY is set or a proxy restricts it.
ENV HF_HUB_CACHE=/models \
    JINABERT_CACHE=/cache \
    JINABERT_HOST=0.0.0.0 \
    JINABERT_PORT=8080 \
    JINABERT_DEVICE=cpu
# Numeric user, which Kubernetes can recognise as not root (runAsNonRoot).
USER 10001:0
VOLUME ["/models", "/cache"]
EXPOSE 8080
STOPSIGNAL SIGTERM
# Health check: status 200 once the models are loaded and warm, requested by bash, as the image has no curl.  The port is
# that of the server's --port or -p, else of JINABERT_PORT.
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s \
    CMD ["bash", "-c", "port=$JINABERT_PORT; mapfile -d '' -t words </proc/1/cmdline; for n in \"${!words[@]}\"; do case ${words[n]} in --port|-p) port=${words[n+1]} ;; --port=*|-p=*) port=${words[n]#*=} ;; -p[0-9]*) port=${words[n]#-p} ;; esac; done; case $port in ''|tcp://*) port=8080 ;; esac; exec 3<>\"/dev/tcp/127.0.0.1/$port\" && printf 'GET /health HTTP/1.0\\r\\n\\r\\n' >&3 && read -r _ status _ <&3 && [ \"$status\" = 200 ]"]
ENTRYPOINT ["jinabert"]
CMD ["serve"]

FROM cpu AS lavapipe
USER root
RUN apt-get update \
    && apt-get install -y --no-install-recommends libvulkan1 mesa-vulkan-drivers \
    && rm -rf /var/lib/apt/lists/*
USER 10001:0
# Directory without which Mesa prints a warning.
ENV XDG_RUNTIME_DIR=/tmp \
    JINABERT_DEVICE=vulkan

# Drivers: Mesa's for AMD and Intel; NVIDIA's is mounted from the host by the NVIDIA Container Toolkit if "graphics" is among
# the capabilities, and needs the X11 libraries and libegl1 even without a display.
FROM lavapipe AS gpu
USER root
RUN apt-get update \
    && apt-get install -y --no-install-recommends libegl1 libx11-6 libxext6 \
    && rm -rf /var/lib/apt/lists/*
USER 10001:0
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=graphics,compute,utility \
    JINABERT_DEVICE=auto

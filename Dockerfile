# jinabert serve in a container: docs/install.md has how to build and run it.
#
#   docker build --target cpu      -t jinabert:cpu .        no Vulkan at all
#   docker build --target lavapipe -t jinabert:lavapipe .   WGSL on Mesa's software Vulkan, to try without a card
#   docker build --target gpu      -t jinabert:gpu .        NVIDIA, AMD, Intel

FROM rust:1-trixie AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY src src
COPY shaders shaders
# The manifest names them as targets; they are not built.
COPY benches benches
COPY examples examples
COPY tests tests
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin jinabert \
    && install -D target/release/jinabert /out/bin/jinabert \
    && /out/bin/jinabert man --dir /out/share/man/man1

# Debian 13: its Mesa, 25.0, knows cards that 22.3 of Debian 12 does not.
FROM debian:trixie-slim AS cpu
COPY --from=build /out /usr/local
COPY models/jinabert-mini-en /usr/local/share/jinabert/models/jinabert-mini-en
COPY LICENSE-APACHE LICENSE-MIT /usr/local/share/doc/jinabert/
# /models keeps what comes from the Hugging Face hub, /cache compiled kernels and what tuning found.
# Group 0 may write there: OpenShift runs images under a user id of its choice, in that group.
RUN useradd --system --uid 10001 --gid 0 --home-dir /nonexistent --no-create-home jinabert \
    && install -d -o 10001 -g 0 -m 0775 /models /cache
# Whoever can reach a published port can ask: JINABERT_API_KEY, or a proxy, says who may.
ENV HF_HUB_CACHE=/models \
    JINABERT_CACHE=/cache \
    JINABERT_HOST=0.0.0.0 \
    JINABERT_PORT=8080 \
    JINABERT_DEVICE=cpu
# A number, so that Kubernetes can see that it is not root (runAsNonRoot).
USER 10001:0
VOLUME ["/models", "/cache"]
EXPOSE 8080
STOPSIGNAL SIGTERM
# 200 once the models are loaded and warm.  Debian's bash can ask for itself; there is no curl here.  The port is that of
# the server's --port or -p, else JINABERT_PORT's.
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
# Mesa complains where no directory of this name is given.
ENV XDG_RUNTIME_DIR=/tmp \
    JINABERT_DEVICE=vulkan

# Mesa's drivers are for AMD and Intel.  NVIDIA's comes from the host, by way of the NVIDIA Container Toolkit, if
# "graphics" is among the capabilities; it wants the X11 libraries and libegl1 even where nothing is shown.
FROM lavapipe AS gpu
USER root
RUN apt-get update \
    && apt-get install -y --no-install-recommends libegl1 libx11-6 libxext6 \
    && rm -rf /var/lib/apt/lists/*
USER 10001:0
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=graphics,compute,utility \
    JINABERT_DEVICE=auto

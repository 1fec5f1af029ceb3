# Two stages: the toolchain stays behind, the image holds one binary and a directory for data.
# tests/packaging.sh walks these steps without a container engine; RUN lines name no absolute path, so that it can.
FROM rust:1.95-slim-trixie AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /build

# The libraries of others first, over crates that are still empty: this layer is built anew only when a manifest changes.
COPY Cargo.toml Cargo.lock ./
COPY .cargo .cargo
COPY protocols/http/Cargo.toml protocols/http/
COPY protocols/json/Cargo.toml protocols/json/
COPY protocols/mqtt/Cargo.toml protocols/mqtt/
COPY protocols/stomp/Cargo.toml protocols/stomp/
COPY src/admin/Cargo.toml src/admin/
COPY src/bench/Cargo.toml src/bench/
COPY src/broker/Cargo.toml src/broker/
COPY src/model/Cargo.toml src/model/
COPY src/security/Cargo.toml src/security/
COPY src/store/Cargo.toml src/store/
RUN for crate in protocols/*; do mkdir "$crate/src" && touch "$crate/src/lib.rs"; done \
    && for crate in src/*; do touch "$crate/lib.rs"; done \
    && touch src/lib.rs && echo 'fn main() {}' >src/main.rs \
    && cargo build --release --locked --bin sabir

COPY . .
# Cargo goes by times, and a source may be older than the empty crate that it replaces.
RUN find src protocols -name '*.rs' -exec touch {} + \
    && cargo build --release --locked --bin sabir \
    && strip target/release/sabir

# The C library of the first stage. Nothing else is needed: the allocator is inside the binary.
FROM debian:trixie-slim
LABEL org.opencontainers.image.title="Sabir" \
      org.opencontainers.image.description="A multi-protocol message broker: every messaging client talks to every other through one small binary" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /build/target/release/sabir /usr/local/bin/sabir
# A new volume takes owner and mode from here. Nothing looks the user's name up, so there is none.
WORKDIR /var/lib/sabir
RUN chown 61613:61613 . && chmod 0750 .
USER 61613:61613
VOLUME /var/lib/sabir
# Inside a container loopback reaches nobody. These listeners refuse to start until there is a user
# (`docker run … sabir user add NAME`), or until SABIR__SECURITY__ALLOW_ANONYMOUS_REMOTE=true says that none is wanted.
# Engines kill ten seconds after they asked for a stop: the log has to be closed by then.
ENV SABIR__STORE__DIR=/var/lib/sabir \
    SABIR__LISTENERS__STOMP=0.0.0.0:61613 \
    SABIR__LISTENERS__MQTT=0.0.0.0:1883 \
    SABIR__LISTENERS__ANY=0.0.0.0:61616 \
    SABIR__LISTENERS__HTTP=0.0.0.0:8161 \
    SABIR__SERVER__DRAIN_TIMEOUT_MS=7000
EXPOSE 61613 1883 61616 8161
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["/usr/local/bin/sabir", "health"]
ENTRYPOINT ["/usr/local/bin/sabir"]
CMD ["serve"]

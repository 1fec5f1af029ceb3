# Two stages: the toolchain stays behind, the image holds one binary and a directory for data.
FROM rust:1.95-slim-trixie AS build
RUN apt-get update && apt-get install --yes --no-install-recommends make gcc libc6-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY . .
RUN cargo build --release --locked && strip target/release/sabir

FROM debian:trixie-slim
RUN useradd --system --uid 61613 --home-dir /var/lib/sabir --create-home sabir
COPY --from=build /build/target/release/sabir /usr/local/bin/sabir
USER sabir
WORKDIR /var/lib/sabir
VOLUME /var/lib/sabir
# Inside a container loopback reaches nobody. These listeners refuse to start until there is a user
# (`docker run … sabir user add NAME`), or until SABIR__SECURITY__ALLOW_ANONYMOUS_REMOTE=true says that none is wanted.
ENV SABIR__STORE__DIR=/var/lib/sabir \
    SABIR__LISTENERS__STOMP=0.0.0.0:61613 \
    SABIR__LISTENERS__ANY=0.0.0.0:61616 \
    SABIR__LISTENERS__HTTP=0.0.0.0:8161
EXPOSE 61613 61616 8161
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/sabir"]
CMD ["serve"]

# syntax=docker/dockerfile:1

# By tag, for those who build from source; deploy/pin-images.sh names them by digest.
ARG BUILD_IMAGE=rust:1.95.0-slim-bookworm
ARG BASE_IMAGE=debian:bookworm-20260803-slim

FROM ${BUILD_IMAGE} AS build
WORKDIR /src
# rust-toolchain.toml also asks for clippy and rustfmt, which this image would have to fetch.
ENV RUSTUP_TOOLCHAIN=1.95.0
COPY . .
# The caches stay with the builder and never become a layer, so the program is taken out of them here.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked -p roster \
    && install -D target/release/roster /out/roster

FROM ${BASE_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Roster" \
      org.opencontainers.image.description="Event-driven user and authentication service" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# For servers whose certificate comes from a public authority.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/roster /usr/local/bin/roster
# A number, so that an orchestrator can see that it is not root. Whoever owns the files of
# `roster init` must have the same one.
USER 10001:10001
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/roster"]

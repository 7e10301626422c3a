# Both commands, static, in an image without a shell:
#
#   docker build --build-arg VERSION="$(git describe --tags --always)" \
#       --build-arg COMMIT="$(git rev-parse HEAD)" -t grpc-health-http .

FROM golang:1.26.8-bookworm@sha256:a688600ca24f8a4d3ca77f95b0dd40704a9fc787c826660eb7ba0b641b8b175d AS build
WORKDIR /src
# The modules are a layer of their own: they change less often than the source.
COPY go.mod go.sum ./
RUN go mod download
COPY . .
# What -version and the metric grpc_health_check_build_info tell; "devel" and "unknown" where they are not given.
ARG VERSION=
ARG COMMIT=
RUN CGO_ENABLED=0 go build -trimpath -tags grpcnotrace -o /out/grpc_health_proxy \
        -ldflags "-s -w -X example.com/grpc-health-http/internal/version.tag=$VERSION \
                -X example.com/grpc-health-http/internal/version.commit=$COMMIT" ./cloudrun
RUN CGO_ENABLED=0 go build -trimpath -tags grpcnotrace -o /out/grpc_health_probe \
        -ldflags "-s -w -X example.com/grpc-health-http/internal/version.tag=$VERSION \
                -X example.com/grpc-health-http/internal/version.commit=$COMMIT" ./probe

# Of a base image static programs would use nothing but the root certificates, and the build stage has those.
FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/ /bin/
# By number, so that Kubernetes can see that it is not root (runAsNonRoot).
USER 65532:65532
ENV PORT=8080 GRPC_HEALTH_METRICS_HTTP_LISTEN_ADDR=:9000
EXPOSE 8080 9000
ENTRYPOINT ["/bin/grpc_health_proxy"]

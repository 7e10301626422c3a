//go:build linux

package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// peerCommand makes this program one of the servers that grpc_health_proxy is compared with:
//
//	bench peer KIND UPSTREAM TRANSPORT CERTIFICATES
const peerCommand = "peer"

// kind is a server under test.
type kind string

const (
	dialEach kind = "(a) dial per request"
	oneConn  kind = "(b) one connection"
	nothing  kind = "(c) nothing"
	ours     kind = "ours"
	oursDial kind = "ours, `GRPC_HEALTH_CONN_MAX_AGE=0`"
	before   kind = "ours before" // the program that -before names
	relay    kind = "(d) gRPC relay"
	nginx    kind = "(e) nginx, `grpc_pass`"
	itself   kind = "(f) the gRPC server itself"
)

// serving is the answer of all of them.
const serving = "SERVING\n"

// rpcTime bounds a peer's check, as CONNECT_TIMEOUT and RPC_TIMEOUT together do ours by default.
const rpcTime = 2 * time.Second

// runPeer serves until the process is killed.
func runPeer(args []string, stderr io.Writer) int {
	if len(args) != 4 {
		fmt.Fprintln(stderr, "this command is for the bench itself")
		return 2
	}
	if err := servePeer(kind(args[0]), args[1], transport(args[2]), certificates(args[3]), stderr); err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	return 0
}

func servePeer(k kind, upstream string, t transport, c certificates, stderr io.Writer) error {
	if k == itself {
		u, err := newUpstream(nil, 0)
		if err != nil {
			return err
		}
		listening(stderr, "http://"+u.addr)
		select {}
	}
	config, err := c.toUpstream(t)
	if err != nil {
		return err
	}
	to := insecure.NewCredentials()
	if config != nil {
		to = credentials.NewTLS(config)
	}
	handler, err := peer(k, upstream, to)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	scheme := "http"
	if config, err = c.listener(t); err != nil {
		return err
	}
	if config != nil {
		scheme, listener = "https", tls.NewListener(listener, config)
	}
	listening(stderr, scheme+"://"+listener.Addr().String())
	return http.Serve(listener, handler)
}

// listening says so as grpc_health_proxy does.
func listening(stderr io.Writer, url string) {
	slog.New(slog.NewTextHandler(stderr, nil)).Info("listening", "url", url+"/")
}

// peer is the handler of a kind.
func peer(k kind, upstream string, to credentials.TransportCredentials) (http.HandlerFunc, error) {
	dial := func() (*grpc.ClientConn, error) {
		return grpc.NewClient(upstream, grpc.WithTransportCredentials(to))
	}
	switch k {
	case dialEach:
		return func(w http.ResponseWriter, r *http.Request) {
			conn, err := dial()
			if err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
				return
			}
			defer conn.Close()
			answer(w, r, healthpb.NewHealthClient(conn))
		}, nil
	case oneConn:
		conn, err := dial()
		if err != nil {
			return nil, err
		}
		client := healthpb.NewHealthClient(conn)
		return func(w http.ResponseWriter, r *http.Request) { answer(w, r, client) }, nil
	case nothing:
		return func(w http.ResponseWriter, _ *http.Request) { say(w) }, nil
	}
	return nil, fmt.Errorf("%q is no peer", k)
}

// answer makes an RPC and answers with what it came to.
func answer(w http.ResponseWriter, r *http.Request, client healthpb.HealthClient) {
	ctx, cancel := context.WithTimeout(r.Context(), rpcTime)
	defer cancel()
	response, err := client.Check(ctx, &healthpb.HealthCheckRequest{})
	if err != nil || response.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		http.Error(w, fmt.Sprint(response.GetStatus(), err), http.StatusServiceUnavailable)
		return
	}
	say(w)
}

func say(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	io.WriteString(w, serving)
}

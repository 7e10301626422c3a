//go:build linux

package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"slices"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// says is a gRPC server that says the same to all.
type says struct {
	healthpb.UnimplementedHealthServer
	status healthpb.HealthCheckResponse_ServingStatus
	err    error
}

func (s says) Check(_ context.Context, r *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	if r.GetService() != "" {
		return nil, status.Error(codes.InvalidArgument, "it is to ask for the empty name")
	}
	return &healthpb.HealthCheckResponse{Status: s.status}, s.err
}

// TestGRPCAnswers has servers of grpc-go and of net/http: the right answer counts, and no wrong one is measured as a fast one.
func TestGRPCAnswers(t *testing.T) {
	t.Parallel()
	ofGRPC := func(s says) func(net.Listener) {
		return func(l net.Listener) {
			server := grpc.NewServer()
			healthpb.RegisterHealthServer(server, s)
			t.Cleanup(server.Stop)
			server.Serve(l)
		}
	}
	ofHTTP := func(code int, status, message string) func(net.Listener) {
		return func(l net.Listener) {
			server := &http.Server{Protocols: new(http.Protocols), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				io.Copy(io.Discard, r.Body)
				if status != "" {
					w.Header().Set(http.TrailerPrefix+"Grpc-Status", status)
				}
				w.WriteHeader(code)
				io.WriteString(w, message)
			})}
			server.Protocols.SetUnencryptedHTTP2(true)
			t.Cleanup(func() { server.Close() })
			server.Serve(l)
		}
	}
	const right = "\x00\x00\x00\x00\x02\x08\x01"
	tests := map[string]struct {
		serve func(net.Listener)
		right bool
	}{
		"grpc-go, SERVING":           {ofGRPC(says{status: healthpb.HealthCheckResponse_SERVING}), true},
		"grpc-go, NOT_SERVING":       {ofGRPC(says{status: healthpb.HealthCheckResponse_NOT_SERVING}), false},
		"grpc-go, no status":         {ofGRPC(says{}), false},
		"grpc-go, NOT_FOUND":         {ofGRPC(says{err: status.Error(codes.NotFound, "")}), false},
		"net/http, the right bytes":  {ofHTTP(http.StatusOK, "0", right), true},
		"net/http, another code":     {ofHTTP(http.StatusOK, "14", right), false},
		"net/http, no grpc-status":   {ofHTTP(http.StatusOK, "", right), false},
		"net/http, HTTP status":      {ofHTTP(http.StatusNotFound, "0", right), false},
		"net/http, no message":       {ofHTTP(http.StatusOK, "0", ""), false},
		"net/http, half a message":   {ofHTTP(http.StatusOK, "0", right[:6]), false},
		"net/http, two messages":     {ofHTTP(http.StatusOK, "0", right+right), false},
		"it closes the connection":   {closeNext, false},
		"HTTP/1.1 instead of HTTP/2": {func(l net.Listener) { http.Serve(l, http.NotFoundHandler()) }, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { listener.Close() })
			go tt.serve(listener)
			callers, err := newGRPCLoad(listener.Addr().String()).connectAll(3)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { closeAll(callers) })
			times, err := askAll(callers, time.Now(), time.Now().Add(200*time.Millisecond))
			if right := err == nil; right != tt.right {
				t.Errorf("%d answers and %v, want the answer to pass: %v", len(times), err, tt.right)
			}
		})
	}
}

func closeNext(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		conn.Close()
	}
}

// TestGRPCRequests reads what a caller sends: every stream is a new one, and frames that want a reply get one.
func TestGRPCRequests(t *testing.T) {
	t.Parallel()
	g, err := newGRPCCaller("127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	var frames bytes.Buffer
	server := http2.NewFramer(&frames, nil)
	var sent bytes.Buffer
	reader := http2.NewFramer(nil, &sent)
	next := func() (kinds []http2.FrameType, stream uint32) {
		t.Helper()
		request, err := g.request()
		if err != nil {
			t.Fatal(err)
		}
		sent.Write(bytes.TrimPrefix(request, []byte(http2.ClientPreface)))
		for sent.Len() > 0 {
			frame, err := reader.ReadFrame()
			if err != nil {
				t.Fatal(err)
			}
			kinds, stream = append(kinds, frame.Header().Type), frame.Header().StreamID
		}
		return kinds, stream
	}
	tests := []struct {
		serverSends func() error
		want        []http2.FrameType
	}{
		{func() error { return nil }, []http2.FrameType{http2.FrameSettings, http2.FrameWindowUpdate, http2.FrameHeaders, http2.FrameData}},
		{func() error { return nil }, []http2.FrameType{http2.FrameHeaders, http2.FrameData}},
		{func() error { return server.WriteSettings() }, []http2.FrameType{http2.FrameSettings, http2.FrameHeaders, http2.FrameData}},
		{func() error { return server.WritePing(false, [8]byte{1}) }, []http2.FrameType{http2.FramePing, http2.FrameHeaders, http2.FrameData}},
		{func() error { return server.WritePing(true, [8]byte{1}) }, []http2.FrameType{http2.FrameHeaders, http2.FrameData}},
		{server.WriteSettingsAck, []http2.FrameType{http2.FrameHeaders, http2.FrameData}},
	}
	for i, tt := range tests {
		if err := tt.serverSends(); err != nil {
			t.Fatal(err)
		}
		if used, whole, err := g.arrived(frames.Bytes()); used != frames.Len() || whole || err != nil {
			t.Errorf("%d: %d of %d octets are used, %v, %v", i, used, frames.Len(), whole, err)
		}
		frames.Reset()
		kinds, stream := next()
		if want := uint32(2*i + 1); stream != want {
			t.Errorf("%d: stream %d, want %d", i, stream, want)
		}
		if !slices.Equal(kinds, tt.want) {
			t.Errorf("%d: the caller sent %v, want %v", i, kinds, tt.want)
		}
	}
	if err := server.WriteGoAway(0, http2.ErrCodeNo, nil); err != nil {
		t.Fatal(err)
	}
	if _, _, err := g.arrived(frames.Bytes()); err == nil {
		t.Error("a connection that the server ends is no error")
	}
}

package faults

import (
	"crypto/tls"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/test/healthtest"
)

// Table returns the rows, in the order in which docs/reliability.md shows them.
func Table() []Fault {
	serving := func(within Bound) *Want { return &Want{Status: health.Serving, Within: within} }
	failed := func(phases ...health.Phase) *Want {
		return &Want{Status: health.ConnectionFailed, Phases: phases, Within: AtOnce}
	}
	timeout := func(phase health.Phase, within Bound) *Want {
		return &Want{Status: health.Timeout, Phases: []health.Phase{phase}, Within: within}
	}
	said := func(status health.Status) *Want { return &Want{Status: status, Within: AtOnce} }
	both := func(f Fault, want *Want) Fault {
		f.Fresh, f.Reused = want, want
		return f
	}

	table := []Fault{
		// The kept connection breaks, and new ones work.
		{Name: "the connection was reset", Reused: serving(AtOnce), begin: func(x *fixture) { x.forwarder.Reset() }},
		{Name: "the server has restarted", Reused: serving(AtOnce), begin: func(x *fixture) { x.up.Restart() }},
		{Name: "GOAWAY came (NO_ERROR)", Reused: serving(AtOnce), begin: func(x *fixture) { <-x.up.GoAway() }},
		{Name: "the connection loses everything, new ones work", Reused: serving(Silence), begin: func(x *fixture) { x.forwarder.BlackHole() }},
		both(Fault{Name: "reset during the RPC, new connections work", begin: hang, during: func(x *fixture) {
			x.forwarder.Reset()
			x.release()
		}}, serving(AtOnce)),
		both(Fault{Name: "GOAWAY during the RPC (NO_ERROR)", begin: hang, during: func(x *fixture) {
			x.forwarder.GoAway(0, http2.ErrCodeNo)
			x.release()
		}}, serving(AtOnce)),
		both(Fault{Name: "GOAWAY during the RPC (INTERNAL_ERROR)", begin: hang, during: func(x *fixture) {
			x.forwarder.GoAway(0, http2.ErrCodeInternal)
			x.release()
		}}, serving(AtOnce)),
		{
			Name: "everything is lost during the RPC, new connections work", Fresh: timeout(health.PhaseRPC, RPC), Reused: serving(Silence),
			begin: hang, during: func(x *fixture) {
				x.forwarder.BlackHole()
				x.release()
			},
		},

		// No connection can be made.
		both(Fault{Name: "nobody listens", begin: mode(healthtest.Refuse)}, failed(health.PhaseConnect)),
		{
			Name: "nobody listens any more, the kept connection still works", Fresh: failed(health.PhaseConnect), Reused: serving(AtOnce),
			begin: func(x *fixture) { x.forwarder.SetMode(healthtest.Refuse) },
		},
		both(Fault{Name: "connecting hangs (full back-log)", begin: mode(healthtest.Backlogged)}, timeout(health.PhaseConnect, Connect)),
		both(Fault{Name: "reset on accept", begin: mode(healthtest.ResetOnAccept)}, failed(health.PhaseConnect, health.PhaseHTTP2)),
		both(Fault{Name: "accepted, then silence", begin: mode(healthtest.Silent)}, timeout(health.PhaseHTTP2, Connect)),
		{
			Name: "silence on every connection", Fresh: timeout(health.PhaseHTTP2, Connect), Reused: timeout(health.PhaseHTTP2, SilenceConnect),
			begin: func(x *fixture) {
				x.forwarder.SetMode(healthtest.Silent)
				x.forwarder.BlackHole()
			},
		},
		both(Fault{Name: "it reads, and sends no SETTINGS", begin: frontEnd(healthtest.NoSettings())}, timeout(health.PhaseHTTP2, Connect)),
		both(Fault{Name: "closed on the first bytes", begin: mode(healthtest.CloseOnFirstBytes)}, failed(health.PhaseHTTP2)),
		both(Fault{Name: "garbage", begin: mode(healthtest.Garbage)}, failed(health.PhaseHTTP2)),
		both(Fault{Name: "an HTTP/1 server", begin: mode(healthtest.HTTP1)}, failed(health.PhaseHTTP2)),

		// Connections can be made, and are lost before an answer.
		both(Fault{Name: "closed on every RPC", begin: func(x *fixture) {
			x.forwarder.SetMode(healthtest.CloseOnRequest)
			x.forwarder.CloseOnBytes()
		}}, failed(health.PhaseRPC)),
		both(Fault{Name: "every stream is reset", begin: frontEnd(healthtest.ResetStream(http2.ErrCodeInternal))}, failed(health.PhaseRPC)),
		both(Fault{Name: "GOAWAY on every connection", Detail: "NO_ERROR", begin: frontEnd(healthtest.GoAwayAtOnce(http2.ErrCodeNo))}, failed(health.PhaseRPC)),
		both(Fault{Name: "GOAWAY on every connection", Detail: "ENHANCE_YOUR_CALM", begin: frontEnd(healthtest.GoAwayAtOnce(http2.ErrCodeEnhanceYourCalm))}, failed(health.PhaseRPC)),
		both(Fault{Name: "GOAWAY on every RPC", begin: frontEnd(healthtest.GoAwayOnRequest(http2.ErrCodeNo))}, failed(health.PhaseRPC)),

		// Slow, and too slow.
		both(Fault{Name: "every byte is late", begin: func(x *fixture) { x.forwarder.Delay(100*time.Millisecond, 100*time.Millisecond) }}, serving(Slow)),
		both(Fault{Name: "a slow dial", begin: func(x *fixture) {
			x.forwarder.Hold(slowness)
			x.forwarder.Reset()
		}}, serving(Slow)),
		both(Fault{Name: "a slow server", begin: func(x *fixture) { x.up.SetDelay("", slowness) }}, serving(Slow)),
		{Name: "the RPC hangs", Fresh: timeout(health.PhaseRPC, RPC), Reused: timeout(health.PhaseRPC, SilenceRPC), begin: hang},

		// The server answers.
		both(Fault{Name: "`NOT_SERVING`", begin: says(healthpb.HealthCheckResponse_NOT_SERVING)}, said(health.NotServing)),
		both(Fault{Name: "`UNKNOWN`, or a value of a later protocol", Detail: "0", begin: says(healthpb.HealthCheckResponse_UNKNOWN)}, said(health.Unknown)),
		both(Fault{Name: "`UNKNOWN`, or a value of a later protocol", Detail: "42", begin: says(42)}, said(health.Unknown)),
		both(Fault{Name: "`SERVICE_UNKNOWN`", begin: says(healthpb.HealthCheckResponse_SERVICE_UNKNOWN)}, said(health.ServiceUnknown)),
	}
	coded := func(name string, code codes.Code, status health.Status) {
		table = append(table, both(Fault{Name: name, Detail: code.String(), begin: func(x *fixture) { x.up.SetError("", code) }}, said(status)))
	}
	coded("RPC status NOT_FOUND", codes.NotFound, health.ServiceUnknown)
	coded("RPC status UNIMPLEMENTED", codes.Unimplemented, health.Unimplemented)
	for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
		if code != codes.NotFound && code != codes.Unimplemented {
			coded("any other RPC status", code, health.RPCFailed)
		}
	}
	table = append(table,
		both(Fault{Name: "no health service", begin: anotherUpstream(func(*fixture) []healthtest.Option {
			return []healthtest.Option{healthtest.WithoutHealth()}
		})}, said(health.Unimplemented)),
		both(Fault{Name: "trailers only", begin: frontEnd(healthtest.TrailersOnly(codes.Unavailable, "no back end"))}, said(health.RPCFailed)),
		both(Fault{Name: "a page of a front end (HTTP 502)", begin: frontEnd(healthtest.HTTPStatus(502))}, said(health.RPCFailed)),
		both(Fault{Name: "a wrong content type", begin: frontEnd(healthtest.ContentType("text/html"))}, said(health.RPCFailed)),
		both(Fault{Name: "an answer that is too large", begin: frontEnd(healthtest.TooLarge(2 << 20))}, said(health.RPCFailed)),

		// TLS. Rows that change the certificate reset the established connections, which would be reused until CONN_MAX_AGE.
		both(Fault{Name: "TLS: a certificate of another CA", prepare: withTLS, begin: certificate(func(x *fixture) *tls.Config {
			return healthtest.NewCA(x).ServerTLS(x)
		})}, failed(health.PhaseTLS)),
		both(Fault{Name: "TLS: expired", prepare: withTLS, begin: certificate(func(x *fixture) *tls.Config {
			return x.ca.ServerTLS(x, healthtest.Expired())
		})}, failed(health.PhaseTLS)),
		both(Fault{Name: "TLS: not yet valid", prepare: withTLS, begin: certificate(func(x *fixture) *tls.Config {
			return x.ca.ServerTLS(x, healthtest.NotYetValid())
		})}, failed(health.PhaseTLS)),
		both(Fault{Name: "TLS: for another name", prepare: withTLS, begin: certificate(func(x *fixture) *tls.Config {
			return x.ca.ServerTLS(x, healthtest.DNSNames("other.test"))
		})}, failed(health.PhaseTLS)),
		both(Fault{Name: "TLS: the client certificate is missing", prepare: withTLS, begin: certificate(func(x *fixture) *tls.Config {
			return x.ca.MutualTLS(x)
		})}, failed(health.PhaseTLS, health.PhaseHTTP2)),
		both(Fault{Name: "TLS: the client certificate is of another CA", prepare: withMutualTLS, begin: certificate(func(x *fixture) *tls.Config {
			config := x.ca.MutualTLS(x)
			config.ClientCAs = healthtest.NewCA(x).Pool()
			return config
		})}, failed(health.PhaseTLS, health.PhaseHTTP2)),
		both(Fault{Name: "TLS: 1.1 at most", prepare: withTLS, begin: certificate(func(x *fixture) *tls.Config {
			config := x.ca.ServerTLS(x)
			config.MinVersion, config.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
			return config
		})}, failed(health.PhaseTLS)),
		both(Fault{Name: "TLS: no ALPN", prepare: withTLS, begin: anotherUpstream(func(x *fixture) []healthtest.Option {
			return []healthtest.Option{healthtest.TLS(x.ca.ServerTLS(x)), healthtest.WithoutALPN()}
		})}, failed(health.PhaseTLS)),
		both(Fault{Name: "TLS: the server is a plaintext one", prepare: withTLS, begin: anotherUpstream(func(*fixture) []healthtest.Option { return nil })}, failed(health.PhaseTLS)),
		both(Fault{Name: "the server wants TLS", begin: anotherUpstream(func(x *fixture) []healthtest.Option {
			return []healthtest.Option{healthtest.TLS(healthtest.NewCA(x).ServerTLS(x))}
		})}, failed(health.PhaseHTTP2)),
		both(Fault{Name: "TLS: accepted, then silence", prepare: withTLS, begin: mode(healthtest.Silent)}, timeout(health.PhaseTLS, Connect)),
		both(Fault{Name: "TLS: garbage", prepare: withTLS, begin: mode(healthtest.Garbage)}, failed(health.PhaseTLS)),

		// Names.
		both(Fault{Name: "the name does not exist", prepare: withName, begin: func(x *fixture) {
			x.names.SetAddresses()
			x.forwarder.Reset()
		}}, failed(health.PhaseDNS)),
		both(Fault{Name: "the name server is silent", prepare: withName, begin: func(x *fixture) {
			x.names.SetSilent()
			x.forwarder.Reset()
		}}, timeout(health.PhaseDNS, Connect)),
		both(Fault{Name: "of two addresses the first refuses", prepare: withName, begin: func(x *fixture) {
			x.names.SetAddresses("127.0.0.2", "127.0.0.1")
			x.forwarder.Reset()
		}}, serving(AtOnce)),
		both(Fault{Name: "of two addresses the first drops SYNs", prepare: withName, begin: func(x *fixture) {
			healthtest.DropSYNs(x, "127.0.0.2:"+x.port())
			x.names.SetAddresses("127.0.0.2", "127.0.0.1")
			x.forwarder.Reset()
		}}, serving(Raced)),
		both(Fault{Name: "of two addresses the first accepts, then silence", prepare: withName, begin: func(x *fixture) {
			x.listen("127.0.0.2:" + x.port())
			x.names.SetAddresses("127.0.0.2", "127.0.0.1")
			x.forwarder.Reset()
		}}, serving(Raced)),
	)
	return table
}

// says makes the server answer with this serving status.
func says(status healthpb.HealthCheckResponse_ServingStatus) func(*fixture) {
	return func(x *fixture) { x.up.SetStatus("", status) }
}

// certificate changes the server's TLS configuration, and resets the established connections.
func certificate(config func(*fixture) *tls.Config) func(*fixture) {
	return func(x *fixture) {
		x.up.SetTLS(config(x))
		x.forwarder.Reset()
	}
}

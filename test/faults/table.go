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

// Table returns the rows, in the order in which the README shows them.
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
		// The connection that stands breaks, and new ones work.
		{Name: "the connection was reset", Reused: serving(AtOnce), begin: func(s *stage) { s.way.Reset() }},
		{Name: "the server has restarted", Reused: serving(AtOnce), begin: func(s *stage) { s.up.Restart() }},
		{Name: "GOAWAY came (NO_ERROR)", Reused: serving(AtOnce), begin: func(s *stage) { <-s.up.GoAway() }},
		{Name: "the connection loses everything, new ones work", Reused: serving(Silence), begin: func(s *stage) { s.way.BlackHole() }},
		both(Fault{Name: "reset during the RPC, new connections work", begin: hang, during: func(s *stage) {
			s.way.Reset()
			s.release()
		}}, serving(AtOnce)),
		both(Fault{Name: "GOAWAY during the RPC (NO_ERROR)", begin: hang, during: func(s *stage) {
			s.way.GoAway(0, http2.ErrCodeNo)
			s.release()
		}}, serving(AtOnce)),
		both(Fault{Name: "GOAWAY during the RPC (INTERNAL_ERROR)", begin: hang, during: func(s *stage) {
			s.way.GoAway(0, http2.ErrCodeInternal)
			s.release()
		}}, serving(AtOnce)),
		{
			Name: "everything is lost during the RPC, new connections work", Fresh: timeout(health.PhaseRPC, RPC), Reused: serving(Silence),
			begin: hang, during: func(s *stage) {
				s.way.BlackHole()
				s.release()
			},
		},

		// New connections do not come about.
		both(Fault{Name: "nobody listens", begin: mode(healthtest.Refuse)}, failed(health.PhaseConnect)),
		{
			Name: "nobody listens any more, the connection that stands goes on", Fresh: failed(health.PhaseConnect), Reused: serving(AtOnce),
			begin: func(s *stage) { s.way.SetMode(healthtest.Refuse) },
		},
		both(Fault{Name: "connecting hangs (full back-log)", begin: mode(healthtest.Backlogged)}, timeout(health.PhaseConnect, Connect)),
		both(Fault{Name: "reset on accept", begin: mode(healthtest.ResetOnAccept)}, failed(health.PhaseConnect, health.PhaseHTTP2)),
		both(Fault{Name: "accepted, then silence", begin: mode(healthtest.Silent)}, timeout(health.PhaseHTTP2, Connect)),
		{
			Name: "silence on every connection", Fresh: timeout(health.PhaseHTTP2, Connect), Reused: timeout(health.PhaseHTTP2, SilenceConnect),
			begin: func(s *stage) {
				s.way.SetMode(healthtest.Silent)
				s.way.BlackHole()
			},
		},
		both(Fault{Name: "it reads, and sends no SETTINGS", begin: frontEnd(healthtest.NoSettings())}, timeout(health.PhaseHTTP2, Connect)),
		both(Fault{Name: "closed on the first bytes", begin: mode(healthtest.CloseOnFirstBytes)}, failed(health.PhaseHTTP2)),
		both(Fault{Name: "garbage", begin: mode(healthtest.Garbage)}, failed(health.PhaseHTTP2)),
		both(Fault{Name: "an HTTP/1 server", begin: mode(healthtest.HTTP1)}, failed(health.PhaseHTTP2)),

		// Every connection stands, and is lost before an answer.
		both(Fault{Name: "closed on every RPC", begin: func(s *stage) {
			s.way.SetMode(healthtest.CloseOnRequest)
			s.way.CloseOnBytes()
		}}, failed(health.PhaseRPC)),
		both(Fault{Name: "every stream is reset", begin: frontEnd(healthtest.ResetStream(http2.ErrCodeInternal))}, failed(health.PhaseRPC)),
		both(Fault{Name: "GOAWAY on every connection", Detail: "NO_ERROR", begin: frontEnd(healthtest.GoAwayAtOnce(http2.ErrCodeNo))}, failed(health.PhaseRPC)),
		both(Fault{Name: "GOAWAY on every connection", Detail: "ENHANCE_YOUR_CALM", begin: frontEnd(healthtest.GoAwayAtOnce(http2.ErrCodeEnhanceYourCalm))}, failed(health.PhaseRPC)),
		both(Fault{Name: "GOAWAY on every RPC", begin: frontEnd(healthtest.GoAwayOnRequest(http2.ErrCodeNo))}, failed(health.PhaseRPC)),

		// Slow, and too slow.
		both(Fault{Name: "every byte is late", begin: func(s *stage) { s.way.Delay(100*time.Millisecond, 100*time.Millisecond) }}, serving(Slow)),
		both(Fault{Name: "a slow dial", begin: func(s *stage) {
			s.way.Hold(slowness)
			s.way.Reset()
		}}, serving(Slow)),
		both(Fault{Name: "a slow server", begin: func(s *stage) { s.up.SetDelay("", slowness) }}, serving(Slow)),
		{Name: "the RPC hangs", Fresh: timeout(health.PhaseRPC, RPC), Reused: timeout(health.PhaseRPC, SilenceRPC), begin: hang},

		// What the server says.
		both(Fault{Name: "`NOT_SERVING`", begin: says(healthpb.HealthCheckResponse_NOT_SERVING)}, said(health.NotServing)),
		both(Fault{Name: "`UNKNOWN`, or a value of a later protocol", Detail: "0", begin: says(healthpb.HealthCheckResponse_UNKNOWN)}, said(health.Unknown)),
		both(Fault{Name: "`UNKNOWN`, or a value of a later protocol", Detail: "42", begin: says(42)}, said(health.Unknown)),
		both(Fault{Name: "`SERVICE_UNKNOWN`", begin: says(healthpb.HealthCheckResponse_SERVICE_UNKNOWN)}, said(health.ServiceUnknown)),
	}
	coded := func(name string, code codes.Code, status health.Status) {
		table = append(table, both(Fault{Name: name, Detail: code.String(), begin: func(s *stage) { s.up.SetError("", code) }}, said(status)))
	}
	coded("RPC status NOT_FOUND", codes.NotFound, health.ServiceUnknown)
	coded("RPC status UNIMPLEMENTED", codes.Unimplemented, health.Unimplemented)
	for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
		if code != codes.NotFound && code != codes.Unimplemented {
			coded("any other RPC status", code, health.RPCFailed)
		}
	}
	table = append(table,
		both(Fault{Name: "no health service", begin: by(func(*stage) []healthtest.Option {
			return []healthtest.Option{healthtest.WithoutHealth()}
		})}, said(health.Unimplemented)),
		both(Fault{Name: "trailers only", begin: frontEnd(healthtest.TrailersOnly(codes.Unavailable, "no back end"))}, said(health.RPCFailed)),
		both(Fault{Name: "a page of a front end (HTTP 502)", begin: frontEnd(healthtest.HTTPStatus(502))}, said(health.RPCFailed)),
		both(Fault{Name: "a wrong content type", begin: frontEnd(healthtest.ContentType("text/html"))}, said(health.RPCFailed)),
		both(Fault{Name: "an answer that is too large", begin: frontEnd(healthtest.TooLarge(2 << 20))}, said(health.RPCFailed)),

		// TLS. Where the certificate changes the connection that stands is reset: it would go on for CONN_MAX_AGE.
		both(Fault{Name: "TLS: a certificate of another CA", place: overTLS, begin: certificate(func(s *stage) *tls.Config {
			return healthtest.NewCA(s).ServerTLS(s)
		})}, failed(health.PhaseTLS)),
		both(Fault{Name: "TLS: expired", place: overTLS, begin: certificate(func(s *stage) *tls.Config {
			return s.ca.ServerTLS(s, healthtest.Expired())
		})}, failed(health.PhaseTLS)),
		both(Fault{Name: "TLS: not yet valid", place: overTLS, begin: certificate(func(s *stage) *tls.Config {
			return s.ca.ServerTLS(s, healthtest.NotYetValid())
		})}, failed(health.PhaseTLS)),
		both(Fault{Name: "TLS: for another name", place: overTLS, begin: certificate(func(s *stage) *tls.Config {
			return s.ca.ServerTLS(s, healthtest.DNSNames("other.test"))
		})}, failed(health.PhaseTLS)),
		both(Fault{Name: "TLS: the client certificate is missing", place: overTLS, begin: certificate(func(s *stage) *tls.Config {
			return s.ca.MutualTLS(s)
		})}, failed(health.PhaseTLS, health.PhaseHTTP2)),
		both(Fault{Name: "TLS: the client certificate is of another CA", place: mutually, begin: certificate(func(s *stage) *tls.Config {
			config := s.ca.MutualTLS(s)
			config.ClientCAs = healthtest.NewCA(s).Pool()
			return config
		})}, failed(health.PhaseTLS, health.PhaseHTTP2)),
		both(Fault{Name: "TLS: 1.1 at most", place: overTLS, begin: certificate(func(s *stage) *tls.Config {
			config := s.ca.ServerTLS(s)
			config.MinVersion, config.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
			return config
		})}, failed(health.PhaseTLS)),
		both(Fault{Name: "TLS: no ALPN", place: overTLS, begin: by(func(s *stage) []healthtest.Option {
			return []healthtest.Option{healthtest.TLS(s.ca.ServerTLS(s)), healthtest.WithoutALPN()}
		})}, failed(health.PhaseTLS)),
		both(Fault{Name: "TLS: the server is a plaintext one", place: overTLS, begin: by(func(*stage) []healthtest.Option { return nil })}, failed(health.PhaseTLS)),
		both(Fault{Name: "the server wants TLS", begin: by(func(s *stage) []healthtest.Option {
			return []healthtest.Option{healthtest.TLS(healthtest.NewCA(s).ServerTLS(s))}
		})}, failed(health.PhaseHTTP2)),
		both(Fault{Name: "TLS: accepted, then silence", place: overTLS, begin: mode(healthtest.Silent)}, timeout(health.PhaseTLS, Connect)),
		both(Fault{Name: "TLS: garbage", place: overTLS, begin: mode(healthtest.Garbage)}, failed(health.PhaseTLS)),

		// Names.
		both(Fault{Name: "the name does not exist", place: byName, begin: func(s *stage) {
			s.names.SetAddresses()
			s.way.Reset()
		}}, failed(health.PhaseDNS)),
		both(Fault{Name: "the name server is silent", place: byName, begin: func(s *stage) {
			s.names.SetSilent()
			s.way.Reset()
		}}, timeout(health.PhaseDNS, Connect)),
		both(Fault{Name: "of two addresses the first refuses", place: byName, begin: func(s *stage) {
			s.names.SetAddresses("127.0.0.2", "127.0.0.1")
			s.way.Reset()
		}}, serving(AtOnce)),
		both(Fault{Name: "of two addresses the first drops SYNs", place: byName, begin: func(s *stage) {
			healthtest.DropSYNs(s, "127.0.0.2:"+s.port())
			s.names.SetAddresses("127.0.0.2", "127.0.0.1")
			s.way.Reset()
		}}, serving(Raced)),
		both(Fault{Name: "of two addresses the first accepts, then silence", place: byName, begin: func(s *stage) {
			s.listen("127.0.0.2:" + s.port())
			s.names.SetAddresses("127.0.0.2", "127.0.0.1")
			s.way.Reset()
		}}, serving(Raced)),
	)
	return table
}

// says makes the server answer with a serving status.
func says(status healthpb.HealthCheckResponse_ServingStatus) func(*stage) {
	return func(s *stage) { s.up.SetStatus("", status) }
}

// certificate changes the server's TLS; connections that stand are reset.
func certificate(config func(*stage) *tls.Config) func(*stage) {
	return func(s *stage) {
		s.up.SetTLS(config(s))
		s.way.Reset()
	}
}

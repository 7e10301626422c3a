package health

import (
	"strings"
	"time"
)

// Sentence says in plain words what a verdict means, as seen at a time. Callers may see it: it holds no address, no name and no
// text from outside.
func (v Verdict) Sentence(now time.Time) string { return v.withAddresses(v.sentence(now)) }

func (v Verdict) sentence(now time.Time) string {
	switch v.Status {
	case ConnectionFailed:
		sentence := failures[v.Phase]
		if failed := v.TLSError(); failed != nil {
			sentence = strings.TrimSuffix(failures[PhaseTLS]+" "+failed.Sentence(now), " ")
		}
		if sentence != "" {
			return sentence
		}
	case Timeout:
		if sentence := timeouts[v.Phase]; sentence != "" {
			return sentence
		}
	case RPCFailed:
		if v.Asked {
			return "The health check's RPC failed with the gRPC status " + v.GRPCCode() + "."
		}
	}
	return Meaning(v.Status, PhaseNone)
}

// Meaning is Sentence where no more is known than status and phase.
func Meaning(s Status, p Phase) string {
	switch {
	case s == ConnectionFailed && failures[p] != "":
		return failures[p]
	case s == Timeout && timeouts[p] != "":
		return timeouts[p]
	case meanings[s] != "":
		return meanings[s]
	}
	return meanings[Unknown]
}

var meanings = map[Status]string{
	Serving:          "The server says that it is serving.",
	NotServing:       "The server answers, and says that it is not serving.",
	Unknown:          "The server answers, and does not say how it is.",
	ServiceUnknown:   "The server answers, and does not know this service.",
	Unimplemented:    "The server answers, and has no health service.",
	ConnectionFailed: "There is no connection to the server.",
	Timeout:          "The server did not answer in time.",
	RPCFailed:        "The health check's RPC failed.",
	Overloaded:       "Too many checks are under way here to make this one. Nothing was found out about the server.",
}

// failures are what CONNECTION_FAILED means in each phase.
var failures = map[Phase]string{
	PhaseDNS:         "The lookup of the server's name failed.",
	PhaseConnect:     "The server does not accept connections, or cannot be reached.",
	PhaseTLS:         "TLS handshake failed.",
	PhaseHTTP2:       "The server accepts connections, and does not speak HTTP/2.",
	PhaseCredentials: "The check's own credentials could not be obtained: a certificate, a key or a token.",
	PhaseRPC:         "The connection was lost before the server answered.",
}

// timeouts are what TIMEOUT means in each phase.
var timeouts = map[Phase]string{
	PhaseDNS:         "The lookup of the server's name took too long.",
	PhaseConnect:     "The server did not accept a connection in time.",
	PhaseTLS:         "The TLS handshake did not end in time.",
	PhaseHTTP2:       "The server accepted a connection, and did not begin to speak HTTP/2 in time.",
	PhaseCredentials: "The check's own credentials could not be obtained in time: a certificate, a key or a token.",
	PhaseRPC:         "The server accepted a connection, and did not answer the health check in time.",
}

// Reason says why a verdict is not SERVING, in words that go into a line of the log. It may hold anything that Err holds.
func (v Verdict) Reason() string {
	if failed := v.TLSError(); failed != nil && (v.Addresses == nil || len(v.Addresses.All) == 1) && (failed.Fault == CertificateExpired || failed.Fault == CertificateNotYetValid) {
		return failed.Brief() // crypto/x509 has the times in a long sentence
	}
	if v.Err != nil {
		return v.Err.Error()
	}
	meaning := Meaning(v.Status, v.Phase)
	return strings.TrimSuffix(strings.ToLower(meaning[:1])+meaning[1:], ".")
}

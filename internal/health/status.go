package health

// Status is what a check found. The zero value is Unknown, never Serving.
type Status int

const (
	// Unknown: the server answered UNKNOWN, or a value that the protocol does not define.
	Unknown Status = iota
	// Serving: the server answered SERVING.
	Serving
	// NotServing: the server answered NOT_SERVING.
	NotServing
	// ServiceUnknown: RPC status NOT_FOUND, or the response SERVICE_UNKNOWN.
	ServiceUnknown
	// Unimplemented: RPC status UNIMPLEMENTED: the server has no health service.
	Unimplemented
	// ConnectionFailed: no usable connection, or it was lost before an answer.
	ConnectionFailed
	// Timeout: the time budget ran out.
	Timeout
	// RPCFailed: any other RPC status that came from the server.
	RPCFailed
	// Overloaded: a limit of this process is reached; nothing was found out about the upstream.
	Overloaded
)

// worstFirst orders the statuses for an answer about several services.
var worstFirst = [...]Status{
	ConnectionFailed, Timeout, Overloaded, RPCFailed, Unimplemented, NotServing, Unknown, ServiceUnknown, Serving,
}

var statusNames = [...]string{
	Unknown:          "UNKNOWN",
	Serving:          "SERVING",
	NotServing:       "NOT_SERVING",
	ServiceUnknown:   "SERVICE_UNKNOWN",
	Unimplemented:    "UNIMPLEMENTED",
	ConnectionFailed: "CONNECTION_FAILED",
	Timeout:          "TIMEOUT",
	RPCFailed:        "RPC_FAILED",
	Overloaded:       "OVERLOADED",
}

// Statuses lists every status, worst first.
func Statuses() []Status { return append([]Status(nil), worstFirst[:]...) }

// String is the name that callers see, "SERVING".
func (s Status) String() string {
	if s < 0 || int(s) >= len(statusNames) {
		return statusNames[Unknown]
	}
	return statusNames[s]
}

// severity is higher for a worse status.
func (s Status) severity() int {
	for i, w := range worstFirst {
		if w == s {
			return len(worstFirst) - i
		}
	}
	return Unknown.severity()
}

// Worst returns the worst status of the verdicts, Unknown where there are none.
func Worst(verdicts []Verdict) Status {
	if len(verdicts) == 0 {
		return Unknown
	}
	worst := verdicts[0].Status
	for _, v := range verdicts[1:] {
		if v.Status.severity() > worst.severity() {
			worst = v.Status
		}
	}
	return worst
}

// Phase says where a check ended that no server answered.
type Phase string

const (
	// PhaseNone: the server answered.
	PhaseNone Phase = ""
	// PhaseDNS: the lookup of the target's name.
	PhaseDNS Phase = "dns"
	// PhaseConnect: the TCP (or unix socket, or proxy) connection.
	PhaseConnect Phase = "connect"
	// PhaseTLS: the TLS or ALTS handshake, or a TLS alert before the server's SETTINGS.
	PhaseTLS Phase = "tls"
	// PhaseHTTP2: no SETTINGS frame came, or what came is not HTTP/2.
	PhaseHTTP2 Phase = "http2"
	// PhaseCredentials: certificates, keys, tokens or identities could not be obtained.
	PhaseCredentials Phase = "credentials"
	// PhaseRPC: the connection was usable, and the RPC got no answer.
	PhaseRPC Phase = "rpc"
)

// phaseOrder lists the phases by how much a failure in them says, least first. That is the order in which an attempt reaches
// them, but for credentials: they are needed first of all, and a failure to get them is this side's own fault, which says
// more than what an address met.
var phaseOrder = [...]Phase{PhaseNone, PhaseDNS, PhaseConnect, PhaseTLS, PhaseHTTP2, PhaseCredentials, PhaseRPC}

// Phases lists every phase but PhaseNone.
func Phases() []Phase { return append([]Phase(nil), phaseOrder[1:]...) }

// Beyond says whether an attempt that ended in p says more than one that ended in other: it came further.
func (p Phase) Beyond(other Phase) bool { return p.position() > other.position() }

func (p Phase) position() int {
	for i, q := range phaseOrder {
		if p == q {
			return i
		}
	}
	return 0
}

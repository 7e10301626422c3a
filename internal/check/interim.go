package check

import (
	"time"

	"example.com/grpc-health-http/internal/dial"
	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/internal/target"
)

type (
	Status           = health.Status
	Phase            = health.Phase
	Verdict          = health.Verdict
	Proof            = health.Evidence
	Attempt          = health.Attempt
	Dial             = health.Dial
	AddressAttempt   = health.AddressAttempt
	Target           = target.Target
	CredentialsError = dial.CredentialsError
	HandshakeError   = dial.HandshakeError
)

const (
	Unknown          = health.Unknown
	Serving          = health.Serving
	NotServing       = health.NotServing
	ServiceUnknown   = health.ServiceUnknown
	Unimplemented    = health.Unimplemented
	ConnectionFailed = health.ConnectionFailed
	Timeout          = health.Timeout
	RPCFailed        = health.RPCFailed
	Overloaded       = health.Overloaded

	PhaseNone        = health.PhaseNone
	PhaseDNS         = health.PhaseDNS
	PhaseConnect     = health.PhaseConnect
	PhaseTLS         = health.PhaseTLS
	PhaseHTTP2       = health.PhaseHTTP2
	PhaseCredentials = health.PhaseCredentials
	PhaseRPC         = health.PhaseRPC
)

var (
	errUnderWay = health.ErrInProgress
	ParseTarget = target.Parse
	Worst       = health.Worst
)

func rounded(d time.Duration) time.Duration { return d.Round(time.Microsecond) }

package grpcfront

import (
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"example.com/grpc-health-http/internal/health"
)

// protocolStatus is the status of the protocol that a finding is, in an answer with the code OK. ok is false where it is none.
func protocolStatus(s health.Status) (status healthpb.HealthCheckResponse_ServingStatus, ok bool) {
	switch s {
	case health.Serving:
		return healthpb.HealthCheckResponse_SERVING, true
	case health.NotServing:
		return healthpb.HealthCheckResponse_NOT_SERVING, true
	case health.Unknown:
		return healthpb.HealthCheckResponse_UNKNOWN, true
	}
	return 0, false
}

// Code is the gRPC code of an answer to Check with this verdict.
func Code(v *health.Verdict) codes.Code {
	switch v.Status {
	case health.ServiceUnknown:
		return codes.NotFound
	case health.Unimplemented:
		return codes.Unimplemented
	case health.ConnectionFailed:
		return codes.Unavailable
	case health.Timeout:
		return codes.DeadlineExceeded
	case health.Overloaded:
		return codes.ResourceExhausted
	case health.RPCFailed:
		if v.Code == codes.OK || v.Code > codes.Unauthenticated { // none that a client would take for this failure
			return codes.Unknown
		}
		return v.Code
	}
	return codes.OK
}

// CodeOnly is the code of an answer where the code alone counts. It is never UNIMPLEMENTED, which AWS' load balancers take for healthy by default.
func CodeOnly(s health.Status) codes.Code {
	switch s {
	case health.Serving:
		return codes.OK
	case health.Overloaded:
		return codes.ResourceExhausted
	}
	return codes.Unavailable
}

// Message is what a caller reads of a verdict: its status and phase, never its cause.
func Message(v *health.Verdict) string {
	if v.Phase == health.PhaseNone {
		return v.Status.String()
	}
	return v.Status.String() + ", phase " + string(v.Phase)
}

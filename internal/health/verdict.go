package health

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
)

// Func checks one service; the empty name is the whole server. A verdict is a value and never an
// error: for a health check, failure is an answer.
type Func func(ctx context.Context, service string) Verdict

// MaxServices is how many services may be asked for at once, and MaxNameLength the length of the longest name
// of one, in bytes.
const (
	MaxServices   = 100
	MaxNameLength = 255
)

// NameFault says what is wrong with a service's name and what to do about it; empty where nothing is.
func NameFault(name string) string {
	switch {
	case len(name) > MaxNameLength:
		return "a service name is longer than 255 bytes: use the service's name only"
	case !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl):
		return "a service name has a control character, or is not UTF-8: write it without"
	}
	return ""
}

// All checks the services side by side, the whole server where there are none. The verdicts are in the
// order of the names.
func All(ctx context.Context, check Func, services []string) []Verdict {
	services = Configured(services)
	return SideBySide(len(services), func(i int) Verdict { return check(ctx, services[i]) })
}

// ErrCallerDeadline is the cause (context.WithDeadlineCause) of a context whose deadline the caller has chosen. A check that it ends says nothing about
// the upstream: its verdict, Timeout, is for this caller alone: it is not logged and not counted.
var ErrCallerDeadline = errors.New("the caller's own deadline has passed")

// ErrNoRoute says that this machine has no route to an address.
var ErrNoRoute = errors.New("this machine has no route to it")

// Verdict is the answer of a check of one service.
type Verdict struct {
	// Target is the name of the upstream; empty where only one is configured.
	Target string
	// Service is the name that was asked for; empty is the whole server.
	Service string
	// List says that the verdict is of a List RPC that failed: Service is empty, and nothing was found out about any.
	List bool
	// LeftOut is how many more services the server lists than the answer to a List has verdicts; none of them is worse than those it
	// has. The last one of these says so.
	LeftOut int
	// Status is the finding.
	Status Status
	// Code is the gRPC code of the attempt that decided. It has a meaning only where Asked is true.
	Code codes.Code
	// Asked says that an RPC was made.
	Asked bool
	// Phase says where the check ended; empty when the server answered.
	Phase Phase
	// Duration is the time from the check's start to the verdict.
	Duration time.Duration
	// At is when the verdict was reached.
	At time.Time
	// Since is when the service was first seen with Status, and it had no other since; zero where nobody keeps it.
	Since time.Time
	// EvidenceID is the id of the log line that shows the evidence; empty for SERVING.
	EvidenceID string
	// Addresses are the findings about each address, where the verdict is made of those; else nil. Callers may see them where they may see Err.
	Addresses *Addresses
	// Err is the cause, for logs and the command line: an HTTP caller gets it only where the settings allow that. It is nil
	// for verdicts that the server gave with RPC status OK.
	Err error
}

// Past is what a verdict was.
type Past struct {
	At     time.Time
	Status Status
}

// EvidenceIDs are those of the verdicts that are not SERVING, each once; the first MaxServices of them, because proxies refuse long headers.
func EvidenceIDs(verdicts []Verdict) []string {
	var ids []string
	for i := range verdicts {
		if len(ids) == MaxServices {
			break
		}
		if v := &verdicts[i]; v.Status != Serving && v.EvidenceID != "" && !slices.Contains(ids, v.EvidenceID) {
			ids = append(ids, v.EvidenceID)
		}
	}
	return ids
}

// GRPCCode is the canonical name of Code ("NOT_FOUND"), empty where no RPC was made.
func (v Verdict) GRPCCode() string {
	if !v.Asked {
		return ""
	}
	if int(v.Code) < len(codeNames) {
		return codeNames[v.Code]
	}
	return "CODE_" + strconv.Itoa(int(v.Code))
}

// codeNames are the canonical names of
// https://github.com/grpc/grpc/blob/master/doc/statuscodes.md; codes.Code prints others ("NotFound").
var codeNames = [...]string{
	codes.OK:                 "OK",
	codes.Canceled:           "CANCELLED",
	codes.Unknown:            "UNKNOWN",
	codes.InvalidArgument:    "INVALID_ARGUMENT",
	codes.DeadlineExceeded:   "DEADLINE_EXCEEDED",
	codes.NotFound:           "NOT_FOUND",
	codes.AlreadyExists:      "ALREADY_EXISTS",
	codes.PermissionDenied:   "PERMISSION_DENIED",
	codes.ResourceExhausted:  "RESOURCE_EXHAUSTED",
	codes.FailedPrecondition: "FAILED_PRECONDITION",
	codes.Aborted:            "ABORTED",
	codes.OutOfRange:         "OUT_OF_RANGE",
	codes.Unimplemented:      "UNIMPLEMENTED",
	codes.Internal:           "INTERNAL",
	codes.Unavailable:        "UNAVAILABLE",
	codes.DataLoss:           "DATA_LOSS",
	codes.Unauthenticated:    "UNAUTHENTICATED",
}

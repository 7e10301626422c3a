//go:build unix

package main

import (
	"fmt"
	"time"

	"example.com/grpc-health-http/internal/health"
)

// The program's settings. They limit how long its answers may take.
const (
	connectTimeout = time.Second
	rpcTimeout     = time.Second
	connMaxAge     = 2 * time.Second
)

const (
	// tolerance is how much longer than both timeouts an answer may take, for HTTP and for waiting for a processor.
	tolerance = 500 * time.Millisecond
	// longStall is how long the machine must have stalled to excuse a TIMEOUT: half of a timeout.
	longStall = 500 * time.Millisecond
)

// answer is the answer to one request.
type answer struct {
	span          // from the request to its answer
	service       string
	Status, Phase string
	Code          string `json:"grpc_code"`
	evidence      string
	unanswered    error // why there is no verdict; nil if there is one
}

func (a answer) String() string {
	if a.unanswered != nil {
		return fmt.Sprintf("%s: no answer after %v: %v", a.service, a.to.Sub(a.from), a.unanswered)
	}
	return fmt.Sprintf("%s: %s, phase %q, code %q, after %v", a.service, a.Status, a.Phase, a.Code, a.to.Sub(a.from))
}

// states is the history of the upstream, the network, the program and the machine. A verdict must be explained by what was possible
// between its request and the answer. Faults that a checker must survive change nothing here, so they excuse no false verdict: a
// drain, a connection that loses everything, a slow server, a rotated certificate and a stopped program.
type states struct {
	serving   map[string]*condition // by service: SERVING, else NOT_SERVING
	answering map[string]*condition // by service: RPCs are answered
	reachable *condition            // the server runs, and established connections lead to it
	open      *condition            // new connections can be made
	stopped   timeline              // SIGSTOP had stopped the program
	stalls    timeline              // this process did not run because the machine was busy
}

func newStates(services []string) *states {
	s := &states{
		serving: make(map[string]*condition), answering: make(map[string]*condition),
		reachable: newCondition(), open: newCondition(),
	}
	for _, service := range services {
		s.serving[service], s.answering[service] = newCondition(), newCondition()
	}
	return s
}

// finding is the result of judging an answer.
type finding string

const (
	sound        finding = "sound"
	falseAlarm   finding = "false alarm"
	falseComfort finding = "false comfort"
	late         finding = "answer over budget"
	noAnswer     finding = "no answer"
	// excused: it would be a false alarm, but the machine had stalled.
	excused finding = "excused"
)

// judge compares an answer with the states between its request and the answer.
func (s *states) judge(a answer) finding {
	if a.unanswered != nil {
		return noAnswer
	}
	stalled := s.stalls.sum(a.span)
	if !s.explained(a) {
		switch {
		case a.Status == health.Serving.String():
			return falseComfort
		case a.Status == health.Timeout.String() && stalled >= longStall:
			return excused
		}
		return falseAlarm
	}
	if a.to.Sub(a.from)-s.stopped.sum(a.span)-stalled > connectTimeout+rpcTimeout+tolerance {
		return late
	}
	return sound
}

// explained reports whether the states allow the verdict.
func (s *states) explained(a answer) bool {
	broken := s.reachable.mayNot(a.span) || s.open.mayNot(a.span)
	switch a.Status {
	case health.Serving.String():
		return s.said(a, s.serving[a.service].yes.in(a.span))
	case health.NotServing.String():
		return s.said(a, s.serving[a.service].no.in(a.span))
	case health.ConnectionFailed.String(), health.RPCFailed.String(): // a server that is stopping may answer with an error
		return broken
	case health.Timeout.String():
		return broken || s.answering[a.service].mayNot(a.span)
	}
	return false
}

// said reports whether the server can have sent an answer that was right during these spans: it was answering RPCs then, and was
// reachable over a connection that was not older than connMaxAge.
func (s *states) said(a answer, when []span) bool {
	if len(s.open.may(span{a.from.Add(-connMaxAge), a.to})) == 0 {
		return false
	}
	for _, w := range when {
		for _, reachable := range s.reachable.may(w) {
			if len(s.answering[a.service].may(reachable)) > 0 {
				return true
			}
		}
	}
	return false
}

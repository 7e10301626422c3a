//go:build unix

package main

import (
	"fmt"
	"time"

	"example.com/grpc-health-http/internal/health"
)

// The settings of the program, which the judge holds it to.
const (
	connectTimeout = time.Second
	rpcTimeout     = time.Second
	connMaxAge     = 2 * time.Second
)

const (
	// tolerance is what an answer may take above the budgets: HTTP, and a program that waits for a processor.
	tolerance = 500 * time.Millisecond
	// starved is how long the machine must have stood still for a failure to be the machine's: half a budget.
	starved = 500 * time.Millisecond
)

// answer is what a caller got, and when.
type answer struct {
	span          // from the request's arrival to the answer
	service       string
	Status, Phase string
	Code          string `json:"grpc_code"`
	evidence      string
	unanswered    error // there is no verdict
}

func (a answer) String() string {
	if a.unanswered != nil {
		return fmt.Sprintf("%s: no answer after %v: %v", a.service, a.to.Sub(a.from), a.unanswered)
	}
	return fmt.Sprintf("%s: %s, phase %q, code %q, after %v", a.service, a.Status, a.Phase, a.Code, a.to.Sub(a.from))
}

// states are what the judge knows of the upstream, the way to it, the program and the machine. It knows no
// faults: a drain, a connection that loses everything, a slow server, a rotated certificate and a stopped
// process change none of these, and so they explain nothing.
type states struct {
	serving   map[string]*condition // by service: SERVING, else NOT_SERVING
	answering map[string]*condition // by service: RPCs are answered
	reachable *condition            // the server runs, and the connections there are lead to it
	open      *condition            // new connections come about
	stopped   timeline              // the program did not run, for it was told to stop
	stalls    timeline              // this process did not run, for the machine was busy
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

// finding is what the judge says of an answer.
type finding string

const (
	sound        finding = "sound"
	falseAlarm   finding = "false alarm"
	falseComfort finding = "false comfort"
	late         finding = "answer over budget"
	noAnswer     finding = "no answer"
	// excused: it would be a false alarm, but for the machine, which stood still.
	excused finding = "excused"
)

// judge finds what no state explains that the upstream had between a request's arrival and its answer.
func (s *states) judge(a answer) finding {
	if a.unanswered != nil {
		return noAnswer
	}
	stalled := s.stalls.sum(a.span)
	if !s.explained(a) {
		switch {
		case a.Status == health.Serving.String():
			return falseComfort
		case a.Status == health.Timeout.String() && stalled >= starved:
			return excused
		}
		return falseAlarm
	}
	if a.to.Sub(a.from)-s.stopped.sum(a.span)-stalled > connectTimeout+rpcTimeout+tolerance {
		return late
	}
	return sound
}

func (s *states) explained(a answer) bool {
	broken := s.reachable.mayNot(a.span) || s.open.mayNot(a.span)
	switch a.Status {
	case health.Serving.String():
		return s.said(a, s.serving[a.service].yes.in(a.span))
	case health.NotServing.String():
		return s.said(a, s.serving[a.service].no.in(a.span))
	case health.ConnectionFailed.String(), health.RPCFailed.String(): // a server that is being stopped may say so
		return broken
	case health.Timeout.String():
		return broken || s.answering[a.service].mayNot(a.span)
	}
	return false
}

// said says whether the server can have given an answer that it may have had in these spans: it was
// answering then, and a connection that is not too old leads to it.
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

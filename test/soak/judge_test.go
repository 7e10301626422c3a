//go:build unix

package main

import (
	"errors"
	"testing"
	"time"
)

// TestJudge judges answers against this history, in seconds: the server is SERVING until 10, NOT_SERVING from 10 to 20, and
// SERVING again. It is unreachable from 20 to 30, accepts no new connections from 40 to 50, and does not answer RPCs from 60 to 70.
// The program is stopped from 80 to 90, and the machine stalls from 100 to 101.
func TestJudge(t *testing.T) {
	t.Parallel()
	start := time.Now()
	at := func(seconds float64) time.Time { return start.Add(time.Duration(seconds * float64(time.Second))) }
	lasting := func(seconds ...float64) (spans []span) {
		for i := 0; i < len(seconds); i += 2 {
			spans = append(spans, span{at(seconds[i]), at(seconds[i+1])})
		}
		return spans
	}
	history := func(yes, no []span) *condition {
		return &condition{yes: timeline{spans: yes}, no: timeline{spans: no}}
	}
	const ever = 1000
	s := &states{
		serving:   map[string]*condition{"s": history(lasting(0, 10, 20, ever), lasting(10, 20))},
		reachable: history(lasting(0, 20, 30, ever), lasting(20, 30)),
		open:      history(lasting(0, 40, 50, ever), lasting(40, 50)),
		answering: map[string]*condition{"s": history(lasting(0, 60, 70, ever), lasting(60, 70))},
		stopped:   timeline{spans: lasting(80, 90)},
		stalls:    timeline{spans: lasting(100, 101)},
	}
	for _, row := range []struct {
		name     string
		from, to float64
		status   string
		want     finding
	}{
		{"the right status", 5, 5.1, "SERVING", sound},
		{"the wrong status", 5, 5.1, "NOT_SERVING", falseAlarm},
		{"a failure without a cause", 5, 5.1, "CONNECTION_FAILED", falseAlarm},
		{"a time-out without a cause", 5, 6, "TIMEOUT", falseAlarm},
		{"a status that the server never has", 5, 5.1, "SERVICE_UNKNOWN", falseAlarm},
		{"over budget", 5, 7.6, "SERVING", late},
		{"during a change, the old status", 9.9, 10.1, "SERVING", sound},
		{"during a change, the new status", 9.9, 10.1, "NOT_SERVING", sound},
		{"the status from before the request", 10.1, 10.2, "SERVING", falseComfort},
		{"unreachable", 21, 21.1, "CONNECTION_FAILED", sound},
		{"unreachable before the answer", 19, 20.5, "TIMEOUT", sound},
		{"unreachable, and SERVING", 21, 21.1, "SERVING", falseComfort},
		{"unreachable, and NOT_SERVING", 21, 21.1, "NOT_SERVING", falseAlarm},
		{"reachable again", 30.1, 30.2, "CONNECTION_FAILED", falseAlarm},
		{"no new connections", 41, 41.1, "CONNECTION_FAILED", sound},
		{"no new connections, and a kept one", 41, 41.1, "SERVING", sound},
		{"no new connections, and a kept one that is too old", 43, 43.1, "SERVING", falseComfort},
		{"no answer to RPCs", 61, 62, "TIMEOUT", sound},
		{"no answer to RPCs, which breaks no connection", 61, 62, "CONNECTION_FAILED", falseAlarm},
		{"no answer to RPCs, and SERVING", 61, 62, "SERVING", falseComfort},
		{"stopped", 79.5, 91, "SERVING", sound},
		{"stopped, and over budget nevertheless", 79, 92.6, "SERVING", late},
		{"stopped, which does not excuse a TIMEOUT", 79.5, 91, "TIMEOUT", falseAlarm},
		{"a stall", 99.5, 101, "TIMEOUT", excused},
		{"a stall, which breaks no connection", 99.5, 101, "CONNECTION_FAILED", falseAlarm},
		{"a stall that is too short", 100.6, 101.5, "TIMEOUT", falseAlarm},
		{"the time of a stall is subtracted", 98.9, 101.9, "SERVING", sound},
	} {
		a := answer{span: span{at(row.from), at(row.to)}, service: "s", Status: row.status}
		if got := s.judge(a); got != row.want {
			t.Errorf("%s: %s, want %s", row.name, got, row.want)
		}
	}
	if got := s.judge(answer{span: span{at(1), at(2)}, unanswered: errors.New("reset")}); got != noAnswer {
		t.Errorf("no answer: %s", got)
	}
}

func TestConditionMayBeEitherWhileItChanges(t *testing.T) {
	t.Parallel()
	c := newCondition()
	before := time.Now()
	var within span
	c.change(false, func() { within = span{time.Now(), time.Now()} })
	after := time.Now()
	for _, row := range []struct {
		w           span
		may, mayNot bool
	}{
		{span{before, before}, true, false},
		{within, true, true},
		{span{after.Add(time.Hour), after.Add(time.Hour)}, false, true},
	} {
		if may, mayNot := len(c.may(row.w)) > 0, c.mayNot(row.w); may != row.may || mayNot != row.mayNot {
			t.Errorf("may %v, may not %v; want %v, %v", may, mayNot, row.may, row.mayNot)
		}
	}
}

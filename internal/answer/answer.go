// Package answer tells verdicts as text and as JSON, in an HTTP body and on the command line, and as an exit code.
package answer

import (
	"encoding/json"
	"fmt"
	"math"
	"time"

	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/internal/inert"
)

// Text has a line for each service, "echo.EchoServer SERVING", and just the status for the whole
// server; with targets the target's name comes first. A last line counts the services of a long List that have none. Without any verdict it is the overall status, so that it is never empty.
func Text(verdicts []health.Verdict) []byte {
	if len(verdicts) == 0 {
		return []byte(health.Worst(nil).String() + "\n")
	}
	var text []byte
	for _, v := range verdicts {
		if v.Target != "" {
			text = append(append(text, v.Target...), ' ')
		}
		if v.Service != "" {
			text = append(text, inert.Text(v.Service)...)
			text = append(text, ' ')
		}
		text = append(text, v.Status.String()...)
		text = append(text, '\n')
		if v.LeftOut > 0 {
			text = fmt.Appendf(text, "(%d more, none of them worse)\n", v.LeftOut)
		}
	}
	return text
}

type whole struct {
	Status   string    `json:"status"`
	Summary  bool      `json:"summary,omitempty"`
	Services []service `json:"services"`
	LeftOut  int       `json:"services_left_out,omitempty"`
}

type service struct {
	Target          string  `json:"target,omitempty"`
	Service         string  `json:"service"`
	Status          string  `json:"status"`
	GRPCCode        string  `json:"grpc_code"`
	Phase           string  `json:"phase"`
	DurationSeconds float64 `json:"duration_seconds"`
	CheckedAt       string  `json:"checked_at,omitempty"`
	Evidence        string  `json:"evidence,omitempty"`
	Cause           string  `json:"cause,omitempty"`
	*each
}

// each is what the addresses have to say, where each is checked on its own.
type each struct {
	Addresses  []address `json:"addresses"`
	Needed     int       `json:"addresses_needed"`
	NotChecked int       `json:"addresses_not_checked,omitempty"`
	NotShown   int       `json:"addresses_not_shown,omitempty"`
}

type address struct {
	Address         string  `json:"address"`
	Status          string  `json:"status"`
	GRPCCode        string  `json:"grpc_code"`
	Phase           string  `json:"phase"`
	DurationSeconds float64 `json:"duration_seconds"`
	NoRoute         bool    `json:"no_route,omitempty"`
	Cause           string  `json:"cause,omitempty"`
}

// MaxAddresses is how many addresses JSON shows, of all services together; but of each service's the worst few.
const MaxAddresses = 4096

// Shown is how many addresses JSON shows of each of n services at most.
func Shown(n int) int { return max(MaxAddresses/max(n, 1), 4) }

func newEach(a *health.Addresses, most int) *each {
	shown := a.All[:min(len(a.All), most)]
	e := &each{Addresses: make([]address, 0, len(shown)), Needed: a.Needed, NotChecked: a.LeftOut, NotShown: len(a.All) - len(shown)}
	for _, one := range shown {
		text := address{Address: one.Address, Status: one.Status.String(), GRPCCode: one.GRPCCode(), Phase: string(one.Phase),
			DurationSeconds: one.Duration.Seconds(), NoRoute: one.NoRoute}
		if one.Err != nil {
			text.Cause = inert.Text(one.Err.Error())
		}
		e.Addresses = append(e.Addresses, text)
	}
	return e
}

// JSON is the worst status and an object for each service, and how many services a long List has beside them. causes says that the reader may see why a check failed, and each address: causes hold
// addresses, and messages of the server. summary says that the verdicts are the latest ones, with their times, and not those of checks that were just made.
func JSON(verdicts []health.Verdict, summary, causes bool) []byte {
	w := whole{Status: health.Worst(verdicts).String(), Summary: summary, Services: make([]service, 0, len(verdicts))}
	for _, v := range verdicts {
		w.LeftOut += v.LeftOut
		s := service{
			Target:          v.Target,
			Service:         inert.Text(v.Service),
			Status:          v.Status.String(),
			GRPCCode:        v.GRPCCode(),
			Phase:           string(v.Phase),
			DurationSeconds: v.Duration.Seconds(),
			Evidence:        v.EvidenceID,
		}
		if summary && !v.At.IsZero() {
			s.CheckedAt = v.At.UTC().Format(time.RFC3339Nano)
		}
		if causes && v.Err != nil {
			s.Cause = inert.Text(v.Err.Error())
		}
		if causes && v.Addresses != nil {
			s.each = newEach(v.Addresses, Shown(len(verdicts)))
		}
		w.Services = append(w.Services, s)
	}
	text, err := json.Marshal(w)
	if err != nil {
		panic(err) // cannot happen: all fields are strings and finite numbers
	}
	return append(text, '\n')
}

// ExitCode is the worst verdict's exit code. Among several that are as bad it is the lowest: of two time-outs, that of the
// connection.
func ExitCode(verdicts []health.Verdict, code func(health.Verdict) int) int {
	worst, lowest := health.Worst(verdicts), math.MaxInt
	for _, v := range verdicts {
		if v.Status == worst {
			lowest = min(lowest, code(v))
		}
	}
	return lowest
}

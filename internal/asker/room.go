package asker

import (
	"context"
	"errors"
	"net/http"

	"example.com/grpc-health-http/internal/memory"
)

// few is how many services, or targets, a request may pick, and how many requests a connection may have in progress, without leaving half of the
// memory to others.
const few = 4

// admit takes the memory for a request that waits for the checks of a question, and reports whether it was there.
func (a *Asker) admit(r *http.Request, q *Question, chosen []*Upstream) (share *memory.Share, cost int64, ok bool) {
	names, configured := 0, !q.List
	for _, u := range chosen {
		if len(q.Services) == 0 {
			names += max(1, len(u.Services))
			continue
		}
		names += len(q.Services)
		if len(u.Services) == 0 {
			configured = false
		}
	}
	share = a.memory.Others
	if configured {
		share = a.memory.Configured
	}
	cost = memory.Request
	if r.TLS != nil || r.ProtoMajor > 1 { // HTTP/2 costs as much without TLS
		cost = memory.SecureRequest
	}
	cost += memory.Name * int64(names)
	rest := int64(0)
	picked := len(q.Services)
	if len(q.Targets)+len(q.Groups) > 0 {
		picked = max(picked, len(chosen))
	}
	if picked > few || r.ProtoMajor > 1 && a.memory.SideBySide != nil && a.memory.SideBySide(r) > few {
		rest = share.Limit() / 2
	} else if a.memory.Crowds != nil && share.Crowded() && a.memory.Crowds(r) {
		rest = share.Limit() / 8
	}
	return share, cost, share.TakeLeaving(cost, rest)
}

// whileHere is the context of an HTTP/1 request that waits where memory is short: its work ends when the caller closes its side, because
// most who do have gone. gone ends this, and says whether it has happened: then the answer, should somebody still wait for it, is that there
// is no memory.
func whileHere(ctx context.Context, r *http.Request) (here context.Context, gone func() bool) {
	here, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(r.Context(), cancel)
	return here, func() bool {
		ended := !stop()
		cancel()
		return ended && errors.Is(r.Context().Err(), context.Canceled)
	}
}

func stayed() bool { return false }

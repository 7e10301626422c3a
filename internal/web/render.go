package web

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"example.com/grpc-health-http/internal/answer"
	"example.com/grpc-health-http/internal/asker"
	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/internal/inert"
)

// httpCodes translates a status.
var httpCodes = [...]int{
	health.Serving:          http.StatusOK,
	health.NotServing:       http.StatusServiceUnavailable,
	health.Unknown:          http.StatusServiceUnavailable,
	health.ServiceUnknown:   http.StatusNotFound,
	health.Unimplemented:    http.StatusServiceUnavailable,
	health.ConnectionFailed: http.StatusServiceUnavailable,
	health.Timeout:          http.StatusServiceUnavailable,
	health.RPCFailed:        http.StatusServiceUnavailable,
	health.Overloaded:       http.StatusServiceUnavailable,
}

// Header values are made once and only read.
var (
	statusValues = makeStatusValues()
	retrySoon    = []string{"1"} // seconds
)

func makeStatusValues() (values [len(httpCodes)][]string) {
	for i := range values {
		values[i] = []string{health.Status(i).String()}
	}
	return values
}

// render answers a query with what was found. Where it asks for no format the Accept header decides.
func (h *handler) render(w http.ResponseWriter, r *http.Request, q query, found asker.Answer) {
	verdicts := found.Verdicts
	header := w.Header()
	asked := q.format
	if asked == "" {
		asked = negotiate(r.Header["Accept"])
	}
	worst := health.Worst(verdicts)
	if worst < 0 || int(worst) >= len(httpCodes) {
		worst = health.Unknown
	}
	header["Grpc-Health-Status"] = statusValues[worst]
	if worst != health.Serving {
		if ids := health.EvidenceIDs(verdicts); len(ids) > 0 {
			header["Grpc-Health-Evidence"] = []string{strings.Join(ids, ", ")}
		}
	}
	if worst == health.Overloaded {
		header["Retry-After"] = retrySoon
	}
	if r.Method == http.MethodOptions {
		header["Allow"] = allowOptions
		header["Content-Length"] = noLength
		w.WriteHeader(httpCodes[worst])
		return
	}
	if asked != formatJSON && asked != formatHTML && h.isReady(verdicts) {
		send(w, r, httpCodes[worst], contentText, h.ready[worst])
		return
	}
	var shows shown
	contentType := contentText
	switch asked {
	case formatJSON:
		contentType = contentJSON
	case formatHTML:
		contentType = contentHTML
		header["Content-Security-Policy"] = loadPage().policy
		shows = shown{title: h.pageTitle, now: time.Now(), showCause: h.showCause}
		shows.certificate = certificateOf(q, found, shows.now)
		found, shows.tally = cut(found)
		shows.kept = newKept(found)
	}
	body := func() []byte {
		switch asked {
		case formatJSON:
			return answer.JSON(verdicts, found.Summary, h.showCause)
		case formatHTML:
			return loadPage().render(newPage(q, worst, found, shows))
		}
		return answer.Text(verdicts)
	}
	cost, sent := answerCost(asked, found.Verdicts, h.showCause), false
	switch {
	case cost > maxAnswer:
	case cost < worthSharing:
		sent = h.sendOwn(w, r, httpCodes[worst], contentType, cost, body)
	default:
		sent = h.sendShared(w, r, httpCodes[worst], contentType, newBodyKey(asked, q, found, shows), cost, body)
	}
	if sent {
		return
	}
	delete(header, "Grpc-Health-Evidence")
	delete(header, "Content-Security-Policy")
	if !asker.Overloaded(verdicts) { // else it is counted already
		h.asker.Reject("overload")
	}
	overloaded(w, r, asked)
}

// sendOwn sends what f makes, and reports whether there was memory for it: cost, in bytes.
func (h *handler) sendOwn(w http.ResponseWriter, r *http.Request, code int, contentType []string, cost int64, f func() []byte) bool {
	if !h.answerMemory.Take(cost) {
		return false
	}
	defer func() { h.answerMemory.Give(cost) }()
	body := f()
	h.answerMemory.Give(cost - int64(cap(body))) // to make an answer takes more than to have it
	cost = int64(cap(body))
	send(w, r, code, contentType, page{body: body})
	return true
}

// sendShared is sendOwn for a body that has a key: where another request has it, f is not called, and nothing taken.
func (h *handler) sendShared(w http.ResponseWriter, r *http.Request, code int, contentType []string, key bodyKey, cost int64, f func() []byte) bool {
	b, mine := h.sharing.take(key, cost, h.answerMemory)
	if b == nil {
		return false
	}
	defer h.sharing.leave(b, h.answerMemory)
	if mine {
		h.sharing.make(b, h.answerMemory, f)
	}
	send(w, r, code, contentType, b.wait())
	return true
}

// causes are those of the failures, each once.
func causes(verdicts []health.Verdict) []string {
	var all []string
	for _, v := range verdicts {
		if v.Status == health.Serving || v.Err == nil {
			continue
		}
		if cause := inert.Text(v.Err.Error()); !slices.Contains(all, cause) {
			all = append(all, cause)
		}
	}
	return all
}

// isReady says whether the answer in text is ready-made.
func (h *handler) isReady(verdicts []health.Verdict) bool {
	return h.ready != nil && len(verdicts) == 1 && verdicts[0].Service == h.readyFor
}

// readyPages are the text answers about one service.
func readyPages(service string) *[len(httpCodes)]page {
	var pages [len(httpCodes)]page
	for i := range pages {
		body := answer.Text([]health.Verdict{{Service: service, Status: health.Status(i)}})
		pages[i] = page{body: body, length: []string{strconv.Itoa(len(body))}}
	}
	return &pages
}

package web

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"example.com/grpc-health-http/internal/answer"
	"example.com/grpc-health-http/internal/check"
)

// httpCodes translates a status.
var httpCodes = [...]int{
	check.Serving:          http.StatusOK,
	check.NotServing:       http.StatusServiceUnavailable,
	check.Unknown:          http.StatusServiceUnavailable,
	check.ServiceUnknown:   http.StatusNotFound,
	check.Unimplemented:    http.StatusServiceUnavailable,
	check.ConnectionFailed: http.StatusServiceUnavailable,
	check.Timeout:          http.StatusServiceUnavailable,
	check.RPCFailed:        http.StatusServiceUnavailable,
	check.Overloaded:       http.StatusServiceUnavailable,
}

// Header values are made once and only read.
var (
	statusValues = makeStatusValues()
	retrySoon    = []string{"1"} // seconds
)

func makeStatusValues() (values [len(httpCodes)][]string) {
	for i := range values {
		values[i] = []string{check.Status(i).String()}
	}
	return values
}

// render answers a query with the verdicts. Where it asks for no format the Accept header decides.
func (h *handler) render(w http.ResponseWriter, r *http.Request, q query, verdicts []check.Verdict) {
	header := w.Header()
	asked := q.format
	if asked == "" {
		asked = negotiate(r.Header["Accept"])
	}
	worst := check.Worst(verdicts)
	if worst < 0 || int(worst) >= len(httpCodes) {
		worst = check.Unknown
	}
	header["Grpc-Health-Status"] = statusValues[worst]
	if worst != check.Serving {
		if ids := evidence(verdicts); len(ids) > 0 {
			header["Grpc-Health-Evidence"] = []string{strings.Join(ids, ", ")}
		}
	}
	if worst == check.Overloaded {
		header["Retry-After"] = retrySoon
	}
	switch asked {
	case formatJSON:
		send(w, r, httpCodes[worst], contentJSON, page{body: answer.JSON(verdicts)})
	case formatHTML:
		p := loadPage()
		header["Content-Security-Policy"] = p.policy
		var certificateEnds time.Time
		if h.certificateEnds != nil {
			certificateEnds = h.certificateEnds()
		}
		send(w, r, httpCodes[worst], contentHTML, page{body: p.render(newPage(q, worst, verdicts, certificateEnds))})
	default:
		send(w, r, httpCodes[worst], contentText, h.text(worst, verdicts))
	}
}

// evidence lists the ids of the log lines that prove the failures, each once.
func evidence(verdicts []check.Verdict) []string {
	var ids []string
	for _, v := range verdicts {
		if v.Status != check.Serving && v.Evidence != "" && !slices.Contains(ids, v.Evidence) {
			ids = append(ids, v.Evidence)
		}
	}
	return ids
}

// text is the answer in text, ready-made where it can be.
func (h *handler) text(worst check.Status, verdicts []check.Verdict) page {
	if h.ready != nil && len(verdicts) == 1 && verdicts[0].Service == h.byDefault[0] {
		return h.ready[worst]
	}
	return page{body: answer.Text(verdicts)}
}

// readyPages are the text answers about one service.
func readyPages(service string) *[len(httpCodes)]page {
	var pages [len(httpCodes)]page
	for i := range pages {
		body := answer.Text([]check.Verdict{{Service: service, Status: check.Status(i)}})
		pages[i] = page{body: body, length: []string{strconv.Itoa(len(body))}}
	}
	return &pages
}

package web

import (
	"net/http"
	"strconv"

	"example.com/grpc-health-http/internal/answer"
	"example.com/grpc-health-http/internal/health"
	"example.com/grpc-health-http/internal/memory"
)

// maxAnswer is the most that an answer may take while it is made, in bytes.
const maxAnswer = 8 << 20

// answerCost is what it takes at most to make an answer, in bytes: the constants are measured, and TestAnswerCost holds them.
func answerCost(f format, verdicts []health.Verdict, showCause bool) int64 {
	plain, others := 0, 0 // bytes that stay what they are in every format, and those that may need an escape
	count := func(text string) {
		for i := range len(text) {
			if c := text[i]; 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_' {
				plain++
			} else {
				others++
			}
		}
	}
	addresses := 0
	for i := range verdicts {
		v := &verdicts[i]
		count(v.Target)
		count(v.Service)
		if showCause && v.Err != nil && (f == formatJSON || f == formatHTML && len(verdicts) < manyRows) {
			count(v.Err.Error())
		}
		if showCause && v.Addresses != nil && (f == formatJSON || f == formatHTML && len(verdicts) == 1) {
			all := v.Addresses.All
			all = all[:min(len(all), answer.Shown(len(verdicts)))]
			addresses += len(all)
			for k := range all {
				count(all[k].Address)
				if all[k].Err != nil {
					count(all[k].Err.Error())
				}
			}
		}
	}
	switch f {
	case formatHTML:
		return int64(72<<10 + 2500*len(verdicts) + 256*addresses + 8*plain + 24*others)
	case formatJSON:
		return int64(2<<10 + 512*len(verdicts) + 512*addresses + 4*plain + 12*others)
	}
	return int64(1<<10 + 64*len(verdicts) + 2*plain + 6*others)
}

// Overloaded returns the handler of requests for which there is no memory left to find out what they ask for. rejected is that of the
// Options.
func Overloaded(rejected func(reason string)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		guard(w.Header())
		if rejected != nil {
			rejected("overload")
		}
		q, _ := parseQuery(r.URL.RawQuery) // an error leaves the usual format
		overloaded(w, r, q.format)
	})
}

// Limited answers requests with next while there is memory in the share for what each takes, in bytes: cost is called for each.
func Limited(share *memory.Share, cost func() int64, rejected func(reason string), next http.Handler) http.Handler {
	overloaded := Overloaded(rejected)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		taken := cost()
		if !share.Take(taken) {
			overloaded.ServeHTTP(w, r)
			return
		}
		defer share.Give(taken)
		next.ServeHTTP(w, r)
	})
}

// What an overloaded process answers is ready-made, so that it takes nothing. It is about no service in particular.
var (
	overloadText = ready(answer.Text([]health.Verdict{{Status: health.Overloaded}}))
	overloadJSON = ready(answer.JSON([]health.Verdict{{Status: health.Overloaded}}, false, false))
)

func ready(body []byte) page { return page{body: body, length: []string{strconv.Itoa(len(body))}} }

// overloaded answers a request for which there is no memory, in the format that it asks for, or as text where that is a page.
func overloaded(w http.ResponseWriter, r *http.Request, f format) {
	if f == "" {
		f = negotiate(r.Header["Accept"])
	}
	header := w.Header()
	header["Grpc-Health-Status"] = statusValues[health.Overloaded]
	header["Retry-After"] = retrySoon
	if r.Method == http.MethodOptions {
		header["Allow"] = allowOptions
		header["Content-Length"] = noLength
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	if f == formatJSON {
		send(w, r, http.StatusServiceUnavailable, contentJSON, overloadJSON)
		return
	}
	send(w, r, http.StatusServiceUnavailable, contentText, overloadText)
}
